"""The lab of tests/real, with other programs in it."""

from __future__ import annotations

from tests.real.conftest import directory, lab

__all__ = ["directory", "lab"]
