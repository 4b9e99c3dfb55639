"""The places of FilterProcesses, shared by all workers: which are in use, and who waits for one.

The table is shared memory; every change is made under one lock. A place in use stores its worker's row and its client.
Each worker publishes the message that it would serve next. A free place goes to the first of these (`Waiting`), and
its worker is woken by an eventfd(2). A worker that publishes nothing for STALE seconds hangs or is dead: it is skipped.
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
"""The most places: no machine runs more filters at once. Only pages that were used take memory."""

STALE = 2.0
"""Seconds after which a worker that published nothing is skipped."""

_WAKEUPS = 16
"""eventfds. A worker uses that of its row; more workers share them, and find a free place by their timer (limit.LOOK).
"""

_KEY = 16
_CLIENT = struct.Struct("=16s")
_RECORD = struct.Struct("=16sdd")
"""What a worker publishes: client, when its message was complete, when this was published (CLOCK_MONOTONIC); all zero:
nobody waits."""
_SERVED = struct.Struct("=16sd")
"""A place that was given: client, and when."""
_MAPPED = bytes(10) + b"\xff\xff"


RECENT = 256
"""How many of the last given places are remembered. With more clients than that, the earliest count as new again."""


class Waiting(NamedTuple):
    """A client that waits. The smallest is next: fewest places in use, then served least recently, then waiting
    longest."""

    in_use: int
    served: float
    since: float


def rank(client: bytes, since: float, in_use: Counter[bytes], served: dict[bytes, float]) -> Waiting:
    """A client whose first message has waited since then."""
    return Waiting(in_use[client], served.get(client, 0.0), since)


class Places(Protocol):
    """What a worker sees of the places. All but `lock`, `wakeup` and `wake` are used under the lock."""

    lock: AbstractContextManager[Any]

    @property
    def wakeup(self) -> int | None:
        """A descriptor that becomes readable when a place may be free for us; None: there is no other worker."""

    def taken(self) -> int:
        """Places in use, by all workers."""

    def in_use(self) -> Counter[bytes]:
        """Places in use by each client."""

    def served(self) -> dict[bytes, float]:
        """When each client last got a place; only the last RECENT ones are known."""

    def take(self, client: bytes) -> None:
        """Give a place to a client."""

    def give_back(self, client: bytes) -> None:
        """Make one of its places free."""

    def publish(self, client: bytes | None, since: float) -> None:
        """Tell the other workers which client is next here; None: nobody waits."""

    def others_wait(self) -> bool:
        """Whether anybody waits at another worker."""

    def others(self, in_use: Counter[bytes], served: dict[bytes, float]) -> tuple[Waiting, int] | None:
        """The first of those that wait at other workers, and that worker's row."""

    def wake(self, worker: int) -> None:
        """Tell that worker that a place may be free for it."""


class OwnPlaces:
    """The places of the only worker."""

    def __init__(self) -> None:
        self.lock: AbstractContextManager[Any] = nullcontext()
        self.wakeup = None
        self._in_use: Counter[bytes] = Counter()
        self._served: dict[bytes, float] = {}

    def taken(self) -> int:
        return self._in_use.total()

    def in_use(self) -> Counter[bytes]:
        return Counter(self._in_use)

    def served(self) -> dict[bytes, float]:
        return self._served

    def take(self, client: bytes) -> None:
        self._in_use[client] += 1
        self._served.pop(client, None)
        self._served[client] = time.monotonic()
        if len(self._served) > RECENT:
            del self._served[next(iter(self._served))]

    def give_back(self, client: bytes) -> None:
        self._in_use[client] -= 1
        if not self._in_use[client]:
            del self._in_use[client]

    def publish(self, client: bytes | None, since: float) -> None:
        """No other worker reads it."""

    def others_wait(self) -> bool:
        return False

    def others(self, _in_use: Counter[bytes], _served: dict[bytes, float]) -> None:
        return None

    def wake(self, worker: int) -> None:
        """There is no other worker."""


class PlaceTable:
    """The places of all workers. Made once, before they are forked; `lock` excludes other processes."""

    def __init__(self, workers: int, lock: AbstractContextManager[Any]) -> None:
        self.workers = workers
        self.lock = lock
        sizes = (3 * 8, SLOTS * 2, workers * _RECORD.size, RECENT * _SERVED.size, SLOTS * _KEY)
        starts = [sum(sizes[:index]) for index in range(len(sizes) + 1)]
        view = memoryview(mmap.mmap(-1, starts[-1]))
        self.used = view[starts[0] : starts[1]].cast("Q")
        """Three words: slots to read, rows to read (all after them are free), and how many places were ever given."""
        self.owners = view[starts[1] : starts[2]].cast("H")  # row + 1; 0 is free
        self.records = view[starts[2] : starts[3]]
        self.recent = view[starts[3] : starts[4]]
        self.keys = view[starts[4] :]
        self.wakeups = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(_WAKEUPS)]
        for wakeup in self.wakeups:
            weakref.finalize(self, os.close, wakeup)

    def clear(self, worker: int) -> None:
        """Free what a dead worker used. Called by the master."""
        with self.lock:
            for slot in range(self.used[0]):
                if self.owners[slot] == worker + 1:
                    self.owners[slot] = 0
            self.records[worker * _RECORD.size : (worker + 1) * _RECORD.size] = bytes(_RECORD.size)

    def of(self, worker: int) -> WorkerPlaces:
        """The view of the worker with this row."""
        return WorkerPlaces(self, worker)


class WorkerPlaces:
    """One worker's view of the table."""

    def __init__(self, table: PlaceTable, worker: int) -> None:
        self.lock = table.lock
        self.wakeup = table.wakeups[worker % _WAKEUPS]
        self._table = table
        self._worker = worker

    def taken(self) -> int:
        used = self._table.used[0]
        return used - self._table.owners[:used].tolist().count(0)

    def in_use(self) -> Counter[bytes]:
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

    def publish(self, client: bytes | None, since: float) -> None:
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
        published = self._table.records[: self._table.used[1] * _RECORD.size]
        return any(published[:own]) or any(published[own + _RECORD.size :])

    def others(self, in_use: Counter[bytes], served: dict[bytes, float]) -> tuple[Waiting, int] | None:
        oldest = time.monotonic() - STALE
        records = enumerate(_RECORD.iter_unpack(self._table.records[: self._table.used[1] * _RECORD.size]))
        waiting = [
            (rank(client, since, in_use, served), worker)
            for worker, (client, since, published) in records
            if published > oldest and worker != self._worker
        ]
        return min(waiting, default=None)

    def wake(self, worker: int) -> None:
        with suppress(BlockingIOError):  # the counter is full: the worker is woken anyway
            os.eventfd_write(self._table.wakeups[worker % _WAKEUPS], 1)

    def _key(self, slot: int) -> bytes:
        return bytes(self._table.keys[slot * _KEY : (slot + 1) * _KEY])


def client_key(client: str) -> bytes:
    """The client as 16 octets (IPv4 is mapped, RFC 4291 section 2.5.5.2); "": all zero.

    `client`: as `config.addresses.client_of_address` returns it.
    """
    if not client:
        return bytes(_KEY)
    if ":" in client:
        return socket.inet_pton(socket.AF_INET6, client)
    return _MAPPED + socket.inet_pton(socket.AF_INET, client)
