"""The filter of `scripted_milter`, as tests see it."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

from tests.unit.filters.member_harness import TEXT, Judged, judge

if TYPE_CHECKING:
    from pathlib import Path


class Scripted:
    """The filter, and what it is told to do."""

    def __init__(self, directory: Path) -> None:
        self.plan = directory / "plan"
        self.seen = directory / "seen"
        self.socket = directory / "milter"
        self.token = 0

    def judge(self, text: bytes = TEXT, *, known: dict[str, Any] | None = None, **plan: Any) -> Judged:
        """Judge a message with that plan."""
        self.begin(**plan)
        return asyncio.run(judge(f"m milter {self.socket}", text, str(self.plan.parent), **(known or {})))

    def begin(self, **plan: Any) -> None:
        """The plan for the next message."""
        self.token += 1
        self.plan.write_text(json.dumps({**plan, "token": self.token}))

    @property
    def events(self) -> list[list[Any]]:
        """What it has seen of the last message, when it has closed the connection."""
        seen = self.seen.with_name(f"{self.seen.name}.{self.token}")
        end = time.monotonic() + 100
        while not seen.exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        found: list[list[Any]] = json.loads(seen.read_text())
        return found
