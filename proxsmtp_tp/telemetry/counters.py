"""Events counted by all workers in one shared mapping, made by the master and inherited over fork.

A worker writes only its own row, so no lock is needed: one word for each counter. Before the row of a dead worker is
given to another, the master adds it to the sum of those before it (`keep`): a counter never falls while the daemon
runs. Whoever reads while a worker writes sees the word before or after, as an aligned word is written at once.
"""

from __future__ import annotations

import mmap
from enum import IntEnum, unique

_WORD = 8


@unique
class Counter(IntEnum):
    """What is counted; the value is its place in a row. The name in lower case is what `status` and programs read."""

    POSSIBLE_DUPLICATES = 0
    """Messages that the server has whole, but whose final reply is not known: the client will send them again."""


class Counters:
    """One row for each of `workers` rows of the admission table, and one for workers that are dead."""

    def __init__(self, workers: int) -> None:
        self._words = memoryview(mmap.mmap(-1, (workers + 1) * len(Counter) * _WORD)).cast("Q")
        self._dead = workers

    def count(self, worker: int, counter: Counter) -> None:
        """One more, in the worker's row. Only that worker may call this."""
        self._words[worker * len(Counter) + counter] += 1

    def keep(self, worker: int) -> None:
        """The worker of this row is dead: what it counted stays counted, and the row begins at 0 again."""
        for counter in Counter:
            place = worker * len(Counter) + counter
            self._words[self._dead * len(Counter) + counter] += self._words[place]
            self._words[place] = 0

    def totals(self) -> dict[Counter, int]:
        """Each counter since the start of the daemon, over all workers."""
        words = self._words.tolist()
        return {counter: sum(words[counter :: len(Counter)]) for counter in Counter}
