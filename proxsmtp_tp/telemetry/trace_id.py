"""Trace ids: one for each session, the same in log lines, events, the environment of filters and replies of ours.

13 characters of base32 (the alphabet of Crockford: digits and capital letters without I, L, O and U), 65 bits:

    40 bits   milliseconds since 2026-01-01 00:00 UTC: until the year 2060
     9 bits   the worker's row in the table of all workers (`net.admission.WORKERS_MAX` rows)
    16 bits   a number that is random in each new millisecond, and counts on in the same one

Time and number of a row are one increasing value in shared memory that the master makes before the first fork: the next
worker in a row, after a crash or a reload, continues after the last id of the worker before it. A clock that goes back
does not repeat an id either: the number counts on, and its carry advances the time, until the clock has reached that
time. The same holds over restarts of the daemon: the master keeps on disk the time up to which ids may have been given
(`service.id_lease`), the workers give no later ids, and the next daemon begins there. Without that file, and between
instances and hosts, ids differ by the random number where millisecond and row are the same by chance. Ids sort by time.
"""

from __future__ import annotations

import mmap
import random
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LENGTH = 13
"""Characters of an id."""

EPOCH_MS = 1_767_225_600_000
"""2026-01-01 00:00 UTC in milliseconds of POSIX time: 40 bits of milliseconds since 1970 ended in 2004."""

ROWS_MAX = 512
"""Rows that 9 bits can tell apart."""

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]
_NUMBER_BITS = 16
_NUMBER_MASK = (1 << _NUMBER_BITS) - 1
_ROW_BITS = 9
_TIME_MASK = (1 << 40) - 1


def encoded(milliseconds: int, row: int, number: int) -> str:
    """The 13 characters. Time beyond 40 bits begins again at 0."""
    bits = (((milliseconds & _TIME_MASK) << _ROW_BITS | row) << _NUMBER_BITS) | number
    head = _ALPHABET[bits >> 60]
    return head + "".join([_PAIRS[bits >> shift & 1023] for shift in (50, 40, 30, 20, 10, 0)])


class TraceIds:
    """The table of all rows, in shared memory."""

    def __init__(self, rows: int) -> None:
        """ValueError for more rows than an id can tell apart."""
        if rows > ROWS_MAX:
            raise ValueError(f"{rows} rows do not fit in a trace id")
        self._last = memoryview(mmap.mmap(-1, (rows + 1) * 8)).cast("Q")
        self._rows = rows
        self._last[rows] = _TIME_MASK

    def begin(self, milliseconds: int) -> None:
        """The first ids of all rows are not before this time (since EPOCH_MS)."""
        for row in range(self._rows):
            self._last[row] = max(self._last[row], milliseconds << _NUMBER_BITS)

    def limit(self, milliseconds: int) -> None:
        """From now on a new id takes its time from the clock only as far as this; then it counts on."""
        self._last[self._rows] = min(milliseconds, _TIME_MASK)

    @property
    def used(self) -> int:
        """The time of the last id of all rows, in milliseconds since EPOCH_MS; ids of other processes may follow it."""
        return max(self._last[: self._rows].tolist(), default=0) >> _NUMBER_BITS

    def of(self, row: int, clock: Callable[[], float] = time.time) -> RowIds:
        """The ids of one worker; `clock` gives POSIX time in seconds."""
        return RowIds(self._last, row, self._rows, clock)


class RowIds:
    """The ids of one worker. Only that worker may call `new`."""

    def __init__(self, last: memoryview, row: int, limit: int, clock: Callable[[], float]) -> None:
        self._last = last
        self._row = row
        self._limit = limit
        self._clock = clock

    def new(self) -> str:
        """The id of the next session; costs a microsecond."""
        milliseconds = min(max(int(self._clock() * 1000) - EPOCH_MS, 0), self._last[self._limit])
        random_number = random.getrandbits(_NUMBER_BITS)  # not secret: it only separates ids of different daemons
        value = max(milliseconds << _NUMBER_BITS | random_number, self._last[self._row] + 1)
        if value >> _NUMBER_BITS == self._last[self._row] >> _NUMBER_BITS:
            value = self._last[self._row] + 1
        self._last[self._row] = value
        return encoded(value >> _NUMBER_BITS, self._row, value & _NUMBER_MASK)
