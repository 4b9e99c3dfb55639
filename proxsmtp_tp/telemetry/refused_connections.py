"""How many connections were refused because MaxConnections were in use, counted by all workers in shared memory.

A worker writes only its own word, which is never set back. The words of the header are changed under the lock of the
table of connections.
"""

from __future__ import annotations

import mmap

HIGH, LOW = 0.8, 0.7
"""Shares of MaxConnections: warn above the first, and again only after the number was below the second."""

_SECOND, _TOLD, _WARNED, _HEADER = range(4)  # words before those of the workers


class RefusedConnections:
    """Shared by all workers: a word for each row that only its worker writes, never set back."""

    def __init__(self, rows: int) -> None:
        self._words = memoryview(mmap.mmap(-1, (_HEADER + rows) * 8)).cast("Q")

    def count(self, worker: int) -> None:
        """A connection was refused, because MaxConnections are in use."""
        self._words[_HEADER + worker] += 1

    def untold(self, second: int) -> int:
        """Refusals not logged yet, for the first caller in each second; 0 for others. Call it under the lock."""
        words = self._words
        if words[_SECOND] >= second:
            return 0
        words[_SECOND] = second
        total = sum(words[_HEADER:])
        told, words[_TOLD] = words[_TOLD], total
        return total - told

    def warn(self, used: int, limit: int) -> bool:
        """Whether to warn now that so many connections are in use. Call it under the lock."""
        warned, words = self._words[_WARNED], self._words
        if used >= HIGH * limit:
            words[_WARNED] = 1
            return not warned
        if used < LOW * limit:
            words[_WARNED] = 0
        return False
