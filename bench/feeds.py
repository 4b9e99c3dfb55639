"""How long one event holds the loop: the longest single `feed` of each case of tests/unit/session/feeds.py.

    python -m bench.feeds [CASES]

prints the CASES (10) longest, in milliseconds of this thread's CPU time, each the best of three runs, with 256 KiB
sent at once. The loop is also blocked while the driver performs the effects of a feed: a write(2) for each side and the
lines of the log.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from tests.unit.session.feeds import CASES, READ, Case, Feeder

if TYPE_CHECKING:
    from proxsmtp_tp.session import effects, events


class Timed(Feeder):
    """Keeps the longest feed."""

    longest = 0.0
    _last = 0.0

    def feed(self, event: events.Event) -> None:
        """The same, measured."""
        self.watch = self._watched
        self._feed = self.session.feed
        self.session.feed = self._timed  # type: ignore[method-assign]
        super().feed(event)
        self.session.feed = self._feed  # type: ignore[method-assign]

    def _timed(self, event: events.Event) -> list[effects.Effect]:
        start = time.thread_time()
        given = self._feed(event)
        self._last = time.thread_time() - start
        return given

    def _watched(self, _event: events.Event, _given: list[effects.Effect]) -> None:
        self.longest = max(self.longest, self._last)


def longest(case: Case) -> float:
    """Seconds of the longest feed of a case."""
    found = []
    for _ in range(3):
        feeder = Timed(case.options)
        case.prepare(feeder)
        feeder.longest = 0.0
        feeder.client_sends(case.data(READ))
        found.append(feeder.longest)
    return min(found)


def main() -> None:
    """Measure all cases."""
    shown = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    found = sorted(((longest(case), str(case)) for case in CASES), reverse=True)
    for seconds, name in found[:shown]:
        print(f"{seconds * 1000:8.2f} ms  {name}")


if __name__ == "__main__":
    main()
