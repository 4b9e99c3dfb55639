"""What the tests of sockets share: coroutines run on the daemon's event loop, each in a loop of its own."""

from __future__ import annotations

from tests.unit.net.fixtures import fast_ticks, fork, pytest_pyfunc_call, start_proxy

__all__ = ["fast_ticks", "fork", "pytest_pyfunc_call", "start_proxy"]
