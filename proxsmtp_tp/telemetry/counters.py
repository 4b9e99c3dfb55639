"""Events counted by all workers in one shared mapping, made by the master and inherited over fork.

A worker writes only its own row, one word for each counter, so no lock is needed. Before the row of a dead worker is
given to another, the master adds its values to a row for dead workers (`keep`), so that a counter never decreases while
the daemon runs. A reader sees the value before or after an update, because an aligned word is written at once.
"""

from __future__ import annotations

import mmap
from enum import IntEnum, unique

_WORD = 8


@unique
class Counter(IntEnum):
    """The counters; the value is the index in a row. `status` and other programs show the name in lower case."""

    POSSIBLE_DUPLICATES = 0
    """Messages that the server has completely, but whose final reply is not known: the client will send them again."""
    LIMITED_CONNECTION_RATE = 1
    """Connections refused by ClientConnectionRate."""
    LIMITED_SERVERS = 2
    """Connections refused by ClientServers."""
    LIMITED_MESSAGES = 3
    """MAIL commands refused by ClientMessages."""
    LIMITED_RECIPIENTS = 4
    """RCPT commands refused by ClientRecipients."""
    LIMITED_REJECTS = 5
    """MAIL and RCPT commands refused by ClientRejects."""
    LIMITED_SPAM = 6
    """MAIL commands refused by ClientSpam."""
    LIMITED_LOCKED = 7
    """Connections and MAIL commands of locked clients that were refused."""
    SHADOW_CONNECTION_RATE = 8
    """What ClientConnectionRate in shadow form would have refused."""
    SHADOW_SERVERS = 9
    """What ClientServers in shadow form would have refused."""
    SHADOW_MESSAGES = 10
    """What ClientMessages in shadow form would have refused."""
    SHADOW_RECIPIENTS = 11
    """What ClientRecipients in shadow form would have refused."""
    SHADOW_REJECTS = 12
    """What ClientRejects in shadow form would have refused."""
    SHADOW_SPAM = 13
    """What ClientSpam in shadow form would have refused."""
    CLIENTS_UNTRACKED = 14
    """Connections of clients without space in the table of clients (ClientTableSize): no limit was checked."""
    MONITORED = 15
    """Messages that passed to the server because of FilterMode monitor, whatever the filter said."""
    MONITORED_REFUSED = 16
    """Monitored messages that the filter would have refused, deferred or discarded."""
    BYPASSED = 17
    """Messages that passed to the server unjudged, because the filter was bypassed."""
    EVENTS_LOST = 18
    """Events that were lost: the reader of the socket is too slow or absent, or the disk is full (EventLog)."""
    LIMITED_CONNECTIONS = 19
    """Connections refused by ClientConnections."""
    SHADOW_CONNECTIONS = 20
    """What ClientConnections in shadow form would have refused."""
    LOG_LINES_SUPPRESSED = 21
    """Lines that were not written, because one client caused more than 50 a second."""


class Counters:
    """One row for each of `workers` rows of the admission table, and one for workers that are dead."""

    def __init__(self, workers: int) -> None:
        self._words = memoryview(mmap.mmap(-1, (workers + 1) * len(Counter) * _WORD)).cast("Q")
        self._dead = workers

    def count(self, worker: int, counter: Counter) -> None:
        """Increment a counter in the worker's row. Only that worker may call this."""
        self._words[worker * len(Counter) + counter] += 1

    def event_lost_in_master(self) -> None:
        """An event of the master is lost: count it in the row for dead workers, which only the master writes."""
        self.count(self._dead, Counter.EVENTS_LOST)

    def keep(self, worker: int) -> None:
        """The worker of this row is dead: keep its values in the sum, and set the row to 0."""
        for counter in Counter:
            place = worker * len(Counter) + counter
            self._words[self._dead * len(Counter) + counter] += self._words[place]
            self._words[place] = 0

    def totals(self) -> dict[Counter, int]:
        """Each counter since the start of the daemon, summed over all workers."""
        words = self._words.tolist()
        return {counter: sum(words[counter :: len(Counter)]) for counter in Counter}
