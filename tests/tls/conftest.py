"""Coroutines run on the daemon's event loop, each in a loop of its own."""

from __future__ import annotations

from tests.unit.net.fixtures import pytest_pyfunc_call

__all__ = ["pytest_pyfunc_call"]
