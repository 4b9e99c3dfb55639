"""No counter is lost or doubled when workers are killed (bench/killed_workers.py does it with 100,000 messages)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import killed_workers

if TYPE_CHECKING:
    from pathlib import Path


def test_counters_are_exact_with_workers_killed_in_between(tmp_path: Path) -> None:
    assert killed_workers.run(tmp_path, messages=400, kills=6) == []
