"""docs/migration.md names every difference on purpose, and nothing that is not shown."""

from __future__ import annotations

import re
from pathlib import Path

from tests.conformance.test_command_line import STARTS
from tests.conformance.test_dialogues import CASES
from tests.conformance.test_manpages import stands

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/migration.md").read_text("utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| 1.10 ")]


def shown(row: str) -> list[str]:
    """What the last column names."""
    return re.findall(r"`([^`]+)`", row.strip().strip("|").rpartition("|")[2])


def test_every_difference_is_reported() -> None:
    told = {name for row in ROWS for name in shown(row)}
    different = {case.name for case in CASES if case.differs} | {
        f"start:{start.name}" for start in STARTS if start.differs
    }
    assert sorted(different - told) == []


def test_everything_reported_is_shown() -> None:
    assert len(ROWS) > 40
    assert [row for row in ROWS if not shown(row)] == []
    names = {name for row in ROWS for name in shown(row)}
    assert [name for name in sorted(names) if not stands(name) and not (ROOT / name).is_file()] == []
