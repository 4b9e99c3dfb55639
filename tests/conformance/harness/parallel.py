"""Plays cases on many daemons at once.

1.10 waits 44 ms at each exchange, and loses exit codes when two of its filters end at once: so each daemon plays
one case after the other, and many daemons play at the same time. Cases with the same configuration share one.
"""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.harness.daemon import Daemon, DaemonError
from tests.conformance.harness.player import CasePlayer, Mismatch
from tests.conformance.harness.script import Side

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.conformance.harness.script import Case

AT_ONCE = 12
"""Daemons at once: nearly all of the time they, or we, wait."""
SHARED = 15
"""Cases that share a daemon at most: starting one of ours costs more than several cases do."""

Play = tuple[Side, str]
"""A side and the name of a case."""
Key = tuple[Side, tuple[str, ...], int]
"""What cases must have in common to share a daemon: side, configuration, log level."""


def play_all(plays: Iterable[tuple[Side, Case]]) -> dict[Play, str]:
    """Play them all. The text of what went wrong by play; "" where nothing did."""
    groups: dict[Key, list[Case]] = defaultdict(list)
    for side, case in plays:
        groups[side, case.config_for(side), case.level].append(case)
    chunks = [(key, part) for key, cases in groups.items() for part in _parts(cases)]
    chunks.sort(key=lambda chunk: -len(chunk[1]))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = pool.map(_play_on_one, chunks)
        return {play: text for outcome in outcomes for play, text in outcome}


def chosen(request: pytest.FixtureRequest, test: str, *parameters: str) -> list[tuple[Any, ...]]:
    """The parameters of the tests of that name that this run selected: what must be played for them."""
    return [
        tuple(item.callspec.params[name] for name in parameters)
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.originalname == test
    ]


def _parts(cases: list[Case]) -> Iterator[list[Case]]:
    for start in range(0, len(cases), SHARED):
        yield cases[start : start + SHARED]


def _play_on_one(chunk: tuple[Key, list[Case]]) -> list[tuple[Play, str]]:
    """One daemon after the other, if it dies or does not start, until all its cases are played."""
    (side, config, level), cases = chunk
    outcomes = []
    daemon: Daemon | None = None
    try:
        for case in cases:
            try:
                if daemon is None or not daemon.alive:
                    if daemon is not None:
                        daemon.stop()
                    daemon = Daemon(side, config, level=level)
                    daemon.start()
                CasePlayer(case, daemon).play()
                text = ""
            except (Mismatch, DaemonError, OSError) as error:
                text = str(error) or repr(error)
            outcomes.append(((side, case.name), text))
    finally:
        if daemon is not None:
            daemon.stop()
    return outcomes
