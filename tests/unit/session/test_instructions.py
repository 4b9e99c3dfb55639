"""The session does not become slower unnoticed: instructions of a message, which no other process disturbs.

The limits are 1.3 times what was counted on 28 Nov 2026 with CPython 3.11.7: 416,753 interpreted, 89,804 compiled. A
change that needs more raises them, and its commit says why. `python -m bench.instructions --profile` shows
which functions take them.
"""

from __future__ import annotations

from bench.instructions import instructions
from proxsmtp_tp.session import session

INTERPRETED = 542_000
COMPILED = 117_000

FEWEST = 20_000
"""Fewer are no message: the count is wrong."""


def test_instructions_of_a_message() -> None:
    compiled = not (session.__file__ or "").endswith(".py")
    assert FEWEST < instructions("session") <= (COMPILED if compiled else INTERPRETED)
