"""Faults use the fixtures of tests/unit/net."""

from __future__ import annotations

from tests.unit.net.fixtures import fast_ticks, pytest_pyfunc_call, start_proxy

__all__ = ["fast_ticks", "pytest_pyfunc_call", "start_proxy"]
