"""Makes trace ids unique over restarts of the daemon, also if the clock is set back meanwhile.

A file in the state directory has a time that only increases: no id has a later time. After a start, ids have times
after that time and after now. While the daemon runs, the time in the file is ahead of the clock, and is
written again before the clock comes near it; workers take no later time from the clock (`telemetry.trace_id`). When the
daemon ends, it writes the time of the last id. After a crash ids begin up to LEASE in the future, and count on until
the clock has come there.

Where the file cannot be read or written, ids of two daemons differ by chance only (16 random bits in a millisecond),
and the log says so once.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from proxsmtp_tp.service.state_directory import replace_file
from proxsmtp_tp.telemetry.trace_id import EPOCH_MS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from proxsmtp_tp.telemetry.trace_id import TraceIds

log = logging.getLogger(__name__)

FILE = "trace-ids"
LEASE = 120_000
"""Milliseconds from the clock to the time in the file, when it is written: one write a minute costs nothing."""
MARGIN = 2_000
"""Milliseconds between the limit of the workers and the time in the file: 2000 times 65,536 ids that count on. At the
end of the daemon: a worker may still accept a client."""
_RETRY = 60.0
"""Seconds after which a write that failed is tried again."""
_END = 1 << 40
"""After the last time of an id."""


class IdLease:
    """The file, in the master. `clock` gives POSIX time in seconds."""

    def __init__(self, ids: TraceIds, kept: Path, clock: Callable[[], float] = time.time) -> None:
        self._ids = ids
        self._kept = kept
        self._clock = clock
        self._written = self._read()
        self._told = False
        self._due = 0.0
        """On the monotonic clock."""
        ids.begin(self._written)
        self.step()

    def due(self) -> float:
        """When `step` must be called next, on the monotonic clock."""
        return self._due

    def step(self) -> None:
        """Write a later time, if the clock has come near the one in the file. Call it at least once a second."""
        now = max(self._now(), self._ids.used)
        if now + LEASE // 2 < self._written or time.monotonic() < self._due:
            return
        if self._write(now + LEASE):
            self._ids.limit(self._written - MARGIN)

    def close(self) -> None:
        """The daemon ends: the next one begins after its last id."""
        if not self._told and self._write(max(self._now(), self._ids.used) + MARGIN):
            self._ids.limit(self._written - MARGIN // 2)

    def _now(self) -> int:
        return max(int(self._clock() * 1000) - EPOCH_MS, 0)

    def _read(self) -> int:
        try:
            found = int(self._kept.read_bytes()[:20])
            if 0 <= found < _END:
                return found
            raise ValueError(f"{found} is no time of an id")
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            log.warning("trace ids: %s is not used: %s", self._kept, error)
        return 0

    def _write(self, until: int) -> bool:
        try:
            replace_file(self._kept, b"%d\n" % until)
        except OSError as error:
            if not self._told:
                self._told = True
                why = error.strerror or error
                log.info("trace ids may repeat if the clock goes back and the daemon restarts: %s: %s", self._kept, why)
                self._ids.limit(_END)  # as if there were no file
            self._due = time.monotonic() + _RETRY
            return False
        self._written, self._told, self._due = until, False, 0.0
        return True
