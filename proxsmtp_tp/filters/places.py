"""FilterProcesses over all workers: who has a place, and who waits for one, in memory that they share.

Every change is made under one lock. A place is its owner's row and its client. Of its waiting messages each worker
shows the one that it would serve next; a free place goes to the best of those (`Waiting`), and its worker is told by an
eventfd(2). A worker that does not renew what it shows is passed over: it hangs, or is dead.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
import time
import weakref
from collections import Counter
from contextlib import AbstractContextManager, nullcontext, suppress
from itertools import compress
from operator import itemgetter
from typing import Any, NamedTuple, Protocol

SLOTS = 1 << 16
"""Places that there can be: no machine runs more filters at once. Only pages that were used take memory."""

STALE = 2.0
"""Seconds after which nobody waits for a worker that has shown nothing new."""

_BELLS = 16
"""eventfds: a worker has that of its row; where there are more workers, some share one and look by themselves, too."""

_KEY = 16
_CLIENT = struct.Struct("=16s")
_RECORD = struct.Struct("=16sdd")
"""What a worker shows: client, when its message was complete, when it was shown (CLOCK_MONOTONIC); all zero: nobody."""
_SERVED = struct.Struct("=16sd")
"""A place that was given: client, and when."""
_MAPPED = bytes(10) + b"\xff\xff"


RECENT = 256
"""Places given last that are remembered: with more clients in turn than that, the first of them count as new again."""


class Waiting(NamedTuple):
    """A client that waits. The least is next: with the fewest places, served least recently, waiting longest."""

    held: int
    served: float
    since: float


def rank(client: bytes, since: float, held: Counter[bytes], served: dict[bytes, float]) -> Waiting:
    """A client whose first message has waited since then."""
    return Waiting(held[client], served.get(client, 0.0), since)


class Places(Protocol):
    """What a worker sees of the places. Everything but `lock` and `ring` is used under the lock."""

    lock: AbstractContextManager[Any]

    @property
    def bell(self) -> int | None:
        """A descriptor that is readable when a place may be ours; None: nobody else has any."""

    def taken(self) -> int:
        """Places that are taken, by whichever worker."""

    def held(self) -> Counter[bytes]:
        """Places that each client has."""

    def served(self) -> dict[bytes, float]:
        """When each client was last given a place; those that were served long ago are forgotten."""

    def take(self, client: bytes) -> None:
        """A place for a client."""

    def give_back(self, client: bytes) -> None:
        """One of its places is free."""

    def show(self, client: bytes | None, since: float) -> None:
        """Who is next of those that wait here; None: nobody waits."""

    def others_wait(self) -> bool:
        """Whether anybody waits at another worker."""

    def others(self, held: Counter[bytes], served: dict[bytes, float]) -> tuple[Waiting, int] | None:
        """The best that waits at another worker, and which that is."""

    def ring(self, worker: int) -> None:
        """A place may be that worker's."""


class OwnPlaces:
    """Of a worker without others."""

    def __init__(self) -> None:
        self.lock: AbstractContextManager[Any] = nullcontext()
        self.bell = None
        self._held: Counter[bytes] = Counter()
        self._served: dict[bytes, float] = {}

    def taken(self) -> int:
        return self._held.total()

    def held(self) -> Counter[bytes]:
        return Counter(self._held)

    def served(self) -> dict[bytes, float]:
        return self._served

    def take(self, client: bytes) -> None:
        self._held[client] += 1
        self._served.pop(client, None)
        self._served[client] = time.monotonic()
        if len(self._served) > RECENT:
            del self._served[next(iter(self._served))]

    def give_back(self, client: bytes) -> None:
        self._held[client] -= 1
        if not self._held[client]:
            del self._held[client]

    def show(self, client: bytes | None, since: float) -> None:
        """Nobody looks."""

    def others_wait(self) -> bool:
        return False

    def others(self, _held: Counter[bytes], _served: dict[bytes, float]) -> None:
        return None

    def ring(self, worker: int) -> None:
        """There is nobody."""


class PlaceTable:
    """Of all workers. Made once, before they are forked; `lock` excludes other processes."""

    def __init__(self, workers: int, lock: AbstractContextManager[Any]) -> None:
        self.workers = workers
        self.lock = lock
        sizes = (3 * 8, SLOTS * 2, workers * _RECORD.size, RECENT * _SERVED.size, SLOTS * _KEY)
        starts = [sum(sizes[:index]) for index in range(len(sizes) + 1)]
        view = memoryview(mmap.mmap(-1, starts[-1]))
        self.used = view[starts[0] : starts[1]].cast("Q")
        """How many slots, and how many rows, must be looked at (those behind were never used, or are free); how often a
        place was given."""
        self.owners = view[starts[1] : starts[2]].cast("H")  # row + 1; 0 is free
        self.records = view[starts[2] : starts[3]]
        self.recent = view[starts[3] : starts[4]]
        self.keys = view[starts[4] :]
        self.bells = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(_BELLS)]
        for bell in self.bells:
            weakref.finalize(self, os.close, bell)

    def clear(self, worker: int) -> None:
        """The master, when a worker is dead."""
        with self.lock:
            for slot in range(self.used[0]):
                if self.owners[slot] == worker + 1:
                    self.owners[slot] = 0
            self.records[worker * _RECORD.size : (worker + 1) * _RECORD.size] = bytes(_RECORD.size)

    def of(self, worker: int) -> WorkerPlaces:
        """What a worker sees."""
        return WorkerPlaces(self, worker)


class WorkerPlaces:
    """One worker's view of the table."""

    def __init__(self, table: PlaceTable, worker: int) -> None:
        self.lock = table.lock
        self.bell = table.bells[worker % _BELLS]
        self._table = table
        self._worker = worker

    def taken(self) -> int:
        used = self._table.used[0]
        return used - self._table.owners[:used].tolist().count(0)

    def held(self) -> Counter[bytes]:
        table = self._table
        used = table.used[0]
        keys = map(itemgetter(0), _CLIENT.iter_unpack(table.keys[: used * _KEY]))
        return Counter(compress(keys, table.owners[:used].tolist()))

    def take(self, client: bytes) -> None:
        table = self._table
        owners = table.owners[: table.used[0]].tolist()
        slot = owners.index(0) if 0 in owners else len(owners)
        table.keys[slot * _KEY : (slot + 1) * _KEY] = client
        table.owners[slot] = self._worker + 1
        start = table.used[2] % RECENT * _SERVED.size
        table.recent[start : start + _SERVED.size] = _SERVED.pack(client, time.monotonic())
        table.used[2] += 1
        table.used[0] = max(table.used[0], slot + 1)

    def give_back(self, client: bytes) -> None:
        table = self._table
        used = table.used[0]
        for slot, owner in enumerate(table.owners[:used].tolist()):
            if owner == self._worker + 1 and self._key(slot) == client:
                table.owners[slot] = 0
                break
        while used and not table.owners[used - 1]:
            used -= 1
        table.used[0] = used

    def show(self, client: bytes | None, since: float) -> None:
        record = bytes(_RECORD.size) if client is None else _RECORD.pack(client, since, time.monotonic())
        start = self._worker * _RECORD.size
        self._table.records[start : start + _RECORD.size] = record
        self._table.used[1] = max(self._table.used[1], self._worker + 1)

    def served(self) -> dict[bytes, float]:
        given = self._table.used[2]
        recent = bytes(self._table.recent[: min(given, RECENT) * _SERVED.size])
        oldest = given % RECENT * _SERVED.size if given > RECENT else 0
        return dict(_SERVED.iter_unpack(recent[oldest:] + recent[:oldest]))

    def others_wait(self) -> bool:
        own = self._worker * _RECORD.size
        shown = self._table.records[: self._table.used[1] * _RECORD.size]
        return any(shown[:own]) or any(shown[own + _RECORD.size :])

    def others(self, held: Counter[bytes], served: dict[bytes, float]) -> tuple[Waiting, int] | None:
        oldest = time.monotonic() - STALE
        records = enumerate(_RECORD.iter_unpack(self._table.records[: self._table.used[1] * _RECORD.size]))
        waiting = [
            (rank(client, since, held, served), worker)
            for worker, (client, since, shown) in records
            if shown > oldest and worker != self._worker
        ]
        return min(waiting, default=None)

    def ring(self, worker: int) -> None:
        with suppress(BlockingIOError):  # it has been rung so often that it will hear
            os.eventfd_write(self._table.bells[worker % _BELLS], 1)

    def _key(self, slot: int) -> bytes:
        return bytes(self._table.keys[slot * _KEY : (slot + 1) * _KEY])


def client_key(client: str) -> bytes:
    """A client as `holder` names it, as an IPv6 address (v4 mapped, RFC 4291 section 2.5.5.2); this host: all zero."""
    if not client:
        return bytes(_KEY)
    if ":" in client:
        return socket.inet_pton(socket.AF_INET6, client)
    return _MAPPED + socket.inet_pton(socket.AF_INET, client)
