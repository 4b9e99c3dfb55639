"""Coroutines run on the daemon's event loop, each in a loop of its own; the lab for real mail servers."""

from __future__ import annotations

from tests.real.conftest import directory, lab
from tests.unit.net.fixtures import pytest_pyfunc_call

__all__ = ["directory", "lab", "pytest_pyfunc_call"]
