"""What the tests of sockets share: coroutines run on the daemon's event loop, each in a loop of its own."""

from __future__ import annotations

from tests.unit.net.running import fast_ticks, open_stage, pytest_pyfunc_call

__all__ = ["fast_ticks", "open_stage", "pytest_pyfunc_call"]
