"""A filter does not cost more unnoticed: instructions of a message that a milter or a worker judges.

As `tests/unit/session/test_instructions.py`. The limits are 1.3 times what was counted on 28 Nov 2026 with CPython
3.11.7. The filter itself is not counted.
"""

from __future__ import annotations

import pytest

from bench.instructions import instructions

LIMITS = {"milter": 2_360_000, "worker": 1_950_000}
"""Of the interpreted build. The compiled one executes fewer."""

FEWEST = 100_000
"""Fewer are no message: the count is wrong."""


@pytest.mark.parametrize("kind", ["milter", "worker"])
def test_instructions_of_a_message(kind: str) -> None:
    assert FEWEST < instructions(kind) <= LIMITS[kind]
