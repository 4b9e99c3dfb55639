"""How late the event loop of each worker was, at most, in the last minute or two: in memory that all processes share.

A worker writes only its own row, two words: the largest lag of the current minute, and of the one before, each in
microseconds with the number of its minute. The lag is how long after its time a timer of one second was called: the
loop was busy, or the process did not get a processor.
"""

from __future__ import annotations

import mmap
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_MINUTE = 60
_WORDS = 2
_SHIFT = 32  # the minute is above, the microseconds below: at most 71 minutes
_MAX = (1 << _SHIFT) - 1


class LoopLag:
    """Of all workers. `clock` is monotonic, in seconds, and the same in all processes."""

    def __init__(self, rows: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._words = memoryview(mmap.mmap(-1, rows * _WORDS * 8)).cast("Q")
        self._clock = clock

    def late(self, worker: int, seconds: float) -> None:
        """The worker: its timer was so late."""
        minute = self._minute()
        place = worker * _WORDS + minute % _WORDS
        before = self._words[place] & _MAX if self._words[place] >> _SHIFT == minute else 0
        self._words[place] = minute << _SHIFT | max(before, min(_MAX, int(max(0.0, seconds) * 1e6)))

    def clear(self, worker: int) -> None:
        """The master: the worker is dead."""
        self._words[worker * _WORDS] = self._words[worker * _WORDS + 1] = 0

    def largest(self) -> float:
        """Of all workers, in seconds."""
        oldest = self._minute() - 1
        return max((word & _MAX for word in self._words.tolist() if word >> _SHIFT >= oldest), default=0) / 1e6

    def _minute(self) -> int:
        return int(self._clock() / _MINUTE) + 1
