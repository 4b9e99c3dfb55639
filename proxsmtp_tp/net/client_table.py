"""What is known about each client, in memory that all workers share: the state of its limits, and whether it is locked.

Made by the master before the first fork, and kept over a reload. The size is fixed: memory does not grow with the
number of clients. Each client belongs to one bucket of 8 slots. A client cannot choose its bucket, because the hash has
a secret key. In a full bucket the client that was seen longest ago is forgotten; first those that have used nothing of
their limits. A connected or locked client is never forgotten. If all 8 are connected or locked, a new client is not
tracked: its limits are not checked (`enter` returns None).

Guarantees: a change of a slot happens under the record lock of its stripe (fcntl(2)), which the kernel releases when
its process ends; each change is one word. Connections are counted in one row for each worker, which only that worker
writes. When a worker is dead, the master clears its row, so its connections no longer count.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import struct
import time
from contextlib import suppress
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from proxsmtp_tp.telemetry.descriptor import Descriptor

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZE_DEFAULT = 65536
"""Slots: 8 MiB, and the same again for ClientServers. Only pages that were used take memory."""

_WAYS = 8
"""Slots of a bucket. With half of all slots in use, one bucket in 20 is full; with 4 slots it would be one in 7."""
_STRIPES = 64
"""Number of locks: with four workers, a change meets another one at the same lock at most once in 16 times."""
WORDS = 16
"""Words of a slot."""
_WORD = 8
SERVER_BITS = 512
"""Bits of one window of the set of servers. A client has two windows, together as large as its slot."""
WINDOW = SERVER_BITS // 64
"""Words of a window."""
_LOCKS, _HEAD, _TAIL, _ENTRIES, _EVICTIONS, _HEADER = range(6)  # the words of the header, and their number
REQUESTS_MAX = 1024
"""Lock requests that may wait for the master; it handles them within milliseconds."""
_NO_RESERVE = 0x4000  # MAP_NORESERVE, mmap(2): most of the table is never touched


class Word(IntEnum):
    """The words of a slot. Rate limits: the state of `gcra`, on CLOCK_MONOTONIC. Zero: nothing is known."""

    KEY = 0  # two words: the client's network address as IPv6 (IPv4 mapped)
    SEEN = 2  # nanoseconds of CLOCK_MONOTONIC
    LOCKED_UNTIL = 3  # seconds since 1970: valid after a restart, too
    LOCK_REASON = 4
    CONNECTION_RATE = 5
    SERVERS = 6
    MESSAGES = 7
    RECIPIENTS = 8
    REJECTS = 9
    SPAM = 10
    SERVERS_WINDOW = 11  # the number of the period that the current window belongs to
    # 12 to 15 are free.


_SEEN = int(Word.SEEN)
_STATES = slice(Word.CONNECTION_RATE, Word.SPAM + 1)
_NO_SERVERS = (0,) * WINDOW


class LockRequest(NamedTuple):
    """A client has reached a limit that locks it. `reason` as LOCK_REASON; `trace` is the id of the session."""

    key: bytes
    reason: int
    trace: bytes


_REQUEST = struct.Struct("=16sB13s")


class Stripe:
    """The lock of a part of the table, for `with`. Reusable, but not reentrant."""

    __slots__ = ("_file", "_number")

    def __init__(self, file: int, number: int) -> None:
        self._file = file
        self._number = number

    def __enter__(self) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, self._number)

    def __exit__(self, *_: object) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, self._number)


class ClientTable:
    """`size` clients, rounded up to whole buckets; `rows` workers."""

    def __init__(self, size: int, rows: int) -> None:
        self._buckets = -(-size // _WAYS)
        self.size = self._buckets * _WAYS
        self._rows = rows
        self._rows_used = memoryview(_shared(_WORD)).cast("Q")
        self._header = memoryview(_shared(_HEADER * _WORD)).cast("Q")
        self._words = memoryview(_shared(self.size * WORDS * _WORD)).cast("Q")
        self._servers = memoryview(_shared(self.size * 2 * WINDOW * _WORD)).cast("Q")
        self._open = memoryview(_shared(rows * self.size * 4)).cast("I")
        self._secret = os.urandom(16)
        self._requests = memoryview(_shared(REQUESTS_MAX * _REQUEST.size))
        self._file = os.memfd_create("admission: clients")
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._owned = (Descriptor(self._file), Descriptor(self._wakeup))

    # A worker's rows.

    def begin(self, worker: int) -> None:
        """The master, before it forks a worker."""
        self._rows_used[0] = max(self._rows_used[0], worker + 1)

    def clear(self, worker: int) -> None:
        """The master, when a worker is dead: its connections are gone with it."""
        row = self._open[worker * self.size : (worker + 1) * self.size].cast("B")
        row[:] = bytes(len(row))

    # Clients.

    def enter(self, worker: int, key: bytes) -> tuple[int, int] | None:
        """A client connects. Returns its slot, which it keeps until `leave`, and the number of its other connections.

        None: its bucket is full.
        """
        first = self._bucket(key) * _WAYS
        with self._stripe(first):
            slot = self._find(key, first)
            if slot is None:
                slot = self._make(key, first)
            if slot is None:
                return None
            others = self.connections(slot)
            self._open[worker * self.size + slot] += 1
            self._words[slot * WORDS + _SEEN] = time.monotonic_ns()
        return slot, others

    def leave(self, worker: int, slot: int) -> None:
        """A connection of the client has ended."""
        self._open[worker * self.size + slot] -= 1

    def find(self, key: bytes) -> int | None:
        """The slot of a client; None: nothing is known about it."""
        first = self._bucket(key) * _WAYS
        with self._stripe(first):
            return self._find(key, first)

    def add(self, key: bytes) -> int | None:
        """The slot of a client, connected or not; made if it has none. None: its bucket is full. Under `changing`."""
        first = self._bucket(key) * _WAYS
        slot = self._find(key, first)
        return self._make(key, first) if slot is None else slot

    def has_space(self, key: bytes) -> bool:
        """Whether an unknown client would get a slot."""
        first = self._bucket(key) * _WAYS
        wall, now = int(time.time()), time.monotonic_ns()
        with self._stripe(first):
            return any(self._value(slot, wall, now) is not None for slot in range(first, first + _WAYS))

    def connections(self, slot: int) -> int:
        """Open connections of the client, in all workers."""
        return sum(self._open[slot : self._rows_used[0] * self.size : self.size])

    def entries(self) -> int:
        """How many clients are known. A client keeps its slot until another client needs it."""
        return self._header[_ENTRIES]

    # The words of a slot.

    def state(self, slot: int) -> list[int]:
        """All words of a slot (`Word`)."""
        start = slot * WORDS
        return self._words[start : start + WORDS].tolist()

    def set(self, slot: int, word: int, value: int) -> None:
        """Change one word. Under `changing`."""
        self._words[slot * WORDS + word] = value

    def reset(self, slot: int) -> None:
        """Forget what the client has used of its limits. A lock stays. Under `changing`."""
        start = slot * WORDS
        for word in range(_STATES.start, _STATES.stop):
            self._words[start + word] = 0
        self._forget_servers(slot)

    def changing(self, key: bytes) -> Stripe:
        """The lock of the client's bucket, against other processes (not threads). Takes 2 microseconds."""
        return self._stripe(self._bucket(key) * _WAYS)

    def changing_slot(self, slot: int) -> Stripe:
        """The same, for a client whose slot is known."""
        return self._stripe(slot)

    # The servers of a client: a set in two windows of bits, the current period and the one before.

    def servers(self, slot: int) -> tuple[list[int], list[int]]:
        """The words of both windows, the current one first."""
        start = slot * 2 * WINDOW
        words = self._servers[start : start + 2 * WINDOW].tolist()
        return words[:WINDOW], words[WINDOW:]

    def set_servers(self, slot: int, current: Sequence[int], before: Sequence[int]) -> None:
        """Change both windows. Under `changing`."""
        for place, word in enumerate((*current, *before), slot * 2 * WINDOW):
            self._servers[place] = word

    def server_bit(self, server: str) -> int:
        """The bit of a server in a window."""
        return self._hash(server.encode()) % SERVER_BITS

    # Locks. Only the master changes them.

    @property
    def locks(self) -> int:
        """How many clients are locked, as the master last counted. With 0 a worker need not look a client up."""
        return self._header[_LOCKS]

    @locks.setter
    def locks(self, number: int) -> None:
        self._header[_LOCKS] = number

    def evictions(self) -> int:
        """Clients that were forgotten because another one needed the slot."""
        return self._header[_EVICTIONS]

    def ask_for_lock(self, request: LockRequest) -> bool:
        """A worker asks the master to lock a client. False: too many requests wait; ask again later."""
        with Stripe(self._file, _STRIPES):
            head, tail = self._header[_HEAD], self._header[_TAIL]
            if head - tail == REQUESTS_MAX:
                return False
            start = head % REQUESTS_MAX * _REQUEST.size
            self._requests[start : start + _REQUEST.size] = _REQUEST.pack(*request)
            self._header[_HEAD] = head + 1
        os.eventfd_write(self._wakeup, 1)
        return True

    def fileno(self) -> int:
        """Readable when workers have asked for locks."""
        return self._wakeup

    def requests(self) -> list[LockRequest]:
        """The requests of workers since the last call."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._wakeup)
        head, tail = self._header[_HEAD], self._header[_TAIL]
        places = (number % REQUESTS_MAX * _REQUEST.size for number in range(tail, head))
        asked = [LockRequest(*_REQUEST.unpack_from(self._requests, place)) for place in places]
        self._header[_TAIL] = head
        return asked

    # Helpers.

    def _hash(self, data: bytes) -> int:
        return int.from_bytes(hashlib.blake2b(data, digest_size=8, key=self._secret).digest(), "little")

    def _bucket(self, key: bytes) -> int:
        return self._hash(key) % self._buckets

    def _stripe(self, slot: int) -> Stripe:
        return Stripe(self._file, slot // _WAYS % _STRIPES)

    def _find(self, key: bytes, first: int) -> int | None:
        """`first` is the first slot of the client's bucket."""
        low, high = _halves(key)
        for slot in range(first, first + _WAYS):
            if self._words[slot * WORDS] == low and self._words[slot * WORDS + 1] == high:
                return slot
        return None

    def _make(self, key: bytes, first: int) -> int | None:
        """A slot for a new client; None: all are connected or locked."""
        wall, now = int(time.time()), time.monotonic_ns()
        best, slot = None, None
        for candidate in range(first, first + _WAYS):
            value = self._value(candidate, wall, now)
            if value is not None and (best is None or value < best):
                best, slot = value, candidate
        if slot is None:
            return None
        start = slot * WORDS
        with Stripe(self._file, _STRIPES):
            self._header[_EVICTIONS if self._words[start] or self._words[start + 1] else _ENTRIES] += 1
        self._words[start] = self._words[start + 1] = 0  # no client's slot, until all of it is written
        for word in range(Word.SEEN, WORDS):
            self._words[start + word] = 0
        self._forget_servers(slot)
        self._words[start + Word.SEEN] = now
        self._words[start], self._words[start + 1] = _halves(key)
        return slot

    def _forget_servers(self, slot: int) -> None:
        """Write only where bits are set: a page that is written takes memory."""
        if any(map(any, self.servers(slot))):
            self.set_servers(slot, _NO_SERVERS, _NO_SERVERS)

    def _value(self, slot: int, wall: int, now: int) -> tuple[int, int] | None:
        """How much is lost if this slot is forgotten; the slot with the least goes first. None: it must stay."""
        words = self.state(slot)
        if not words[0] and not words[1]:
            return (0, 0)
        if words[Word.LOCKED_UNTIL] > wall or self.connections(slot):
            return None
        return (2 if max(words[_STATES]) > now else 1, words[Word.SEEN])


def _shared(size: int) -> mmap.mmap:
    return mmap.mmap(-1, size, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | _NO_RESERVE)


def _halves(key: bytes) -> tuple[int, int]:
    return int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
