"""The table that all workers share: it limits connections, and knows which connections are our own.

One anonymous shared mapping, made by the master and inherited over fork. Each worker has a row. Old and new workers of
a reload have different rows, and are counted together.

Guarantees: at no moment more connections than the limit, over all workers. The lock is a POSIX record lock
(fcntl(2)) on a memory file: it belongs to a process, so the kernel releases it when the process ends. Every change
under the lock is one word, so a process that is killed leaves no half-written change; the master clears its row. A
row and its upstream connections are written only by their worker; reading them needs no lock. `counters` has a row
for each worker too.

An upstream connection is identified by both its end points (RFC 9293 section 3.3.1): a client on the address that we
dial from (in full mode its own address) may use a port that one of our connections uses, too. In full mode the
clients' own connections are also in the table, because we must not dial with the end points of one of them.
"""

from __future__ import annotations

import mmap
import socket
import struct
from collections import Counter
from functools import lru_cache
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Final

from proxsmtp_tp.filters.places import PlaceTable
from proxsmtp_tp.net.client_table import SIZE_DEFAULT, ClientTable
from proxsmtp_tp.net.tls_rejections import TlsRejections
from proxsmtp_tp.telemetry.counters import Counters
from proxsmtp_tp.telemetry.last_error import LastError
from proxsmtp_tp.telemetry.loop_lag import LoopLag
from proxsmtp_tp.telemetry.metrics import Metrics
from proxsmtp_tp.telemetry.recent_failures import RecentFailures
from proxsmtp_tp.telemetry.recent_messages import RecentMessages
from proxsmtp_tp.telemetry.record_lock import RecordLock
from proxsmtp_tp.telemetry.refused_connections import RefusedConnections
from proxsmtp_tp.telemetry.sessions import SessionTable
from proxsmtp_tp.telemetry.switches import Switches
from proxsmtp_tp.telemetry.trace_id import TraceIds
from proxsmtp_tp.telemetry.unreachable import Unreachable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proxsmtp_tp.filters.places import WorkerPlaces

End = tuple[str, int]

_LIMIT: Final = 0  # the words of the header
_ROWS: Final = 1
_CHUNKS: Final = 2
_HEADER: Final = 3  # their number
_WORD: Final = 8
_MAPPED: Final = bytes(10) + b"\xff\xff"
# A key: its kind, and two end points, each an address as IPv6 (v4 mapped, RFC 4291 section 2.5.5.2) and a port. A share
# says for which client a connection is counted. All zero: a free place.
_UPSTREAM: Final = b"\1"
_CLIENT: Final = b"\2"
_SHARE_KEY: Final = b"\3"
_KEY_SIZE: Final = 1 + 2 * (16 + 2)
_NO_MARK: Final = bytes(_WORD)
_WORD_MASK: Final = (1 << 64) - 1
_ADDRESSES: Final = 4096
"""IP addresses whose octets a worker remembers: a session asks for the same ones several times."""

WORKERS_MAX = 512
"""Rows: as many as Workers allows, and the same number for workers that drain after a reload."""

# A worker takes places in chunks, so that it needs the lock for one in 64 of them.
_CHUNK: Final = 64
_CHUNK_BYTES: Final = _CHUNK * _KEY_SIZE
# Three keys (upstream, client, share) for each connection that MaxConnections may allow (half of fs.nr_open), and one
# partly filled chunk for each worker. Only pages that were used take memory; the lowest free chunk is taken first, so
# used chunks lie together.
_CHUNKS_MAX = 3 * (1 << 19) // _CHUNK + WORKERS_MAX

SHARES_MAX = 20_000
"""Keys that are looked at to name the clients with most connections: 5 ms, once a second at most."""

SHARE: Final = 4
"""A client may have at most this many times the number of free connections. One client alone gets four fifths of
MaxConnections, two get four ninths each: there are always free connections for the next client, however many come
(Choudhury and Hahne, dynamic queue length thresholds)."""

_BUCKETS: Final = 1 << 16
"""Counters of connections by client, found by a hash of the client: a look-up takes the same time however many
connections there are, because a refused client may connect again and again. Few clients have the same counter, and no
client can choose its counter: the hash has a secret key, the same in all workers, which are forked."""


class Admission:
    """Counts connections of workers against one limit, and knows our own upstream connections.

    Made once, before forking, for workers 0..`workers`-1; `begin` brings more, up to WORKERS_MAX. Each
    process then uses its own copy of this object. `clients`: see `client_table`.
    """

    def __init__(self, max_connections: int, workers: int, clients: int = SIZE_DEFAULT) -> None:
        rows, chunks = WORKERS_MAX, _CHUNKS_MAX
        keys, marks = chunks * _CHUNK_BYTES, chunks * _CHUNK * _WORD
        sizes = (_HEADER * _WORD, rows * _WORD, rows * _WORD, marks, _BUCKETS * 4, rows, chunks * 2, keys)
        starts = [sum(sizes[:index]) for index in range(len(sizes) + 1)]
        view = memoryview(mmap.mmap(-1, starts[-1]))
        self._header = view[starts[0] : starts[1]].cast("Q")
        self._counts = view[starts[1] : starts[2]].cast("Q")
        self._spooled = view[starts[2] : starts[3]].cast("Q")
        self._marks = view[starts[3] : starts[4]]  # one for each key, see _mark
        self._by_client = view[starts[4] : starts[5]].cast("I")  # connections, see _BUCKETS
        self._accepting = view[starts[5] : starts[6]]
        self._owners = view[starts[6] : starts[7]].cast("H")  # of chunks: worker + 1; 0 is free
        self._keys = view[starts[7] :]
        self._free: dict[int, list[int]] = {}  # by worker: places in its chunks. A process has one worker
        self._lock = RecordLock()
        self._places = PlaceTable(WORKERS_MAX, RecordLock())
        self._chain_places: dict[str, PlaceTable] = {}
        self.counters = Counters(rows)
        self.recent_verdicts = RecentFailures(rows)
        self.trace_ids = TraceIds(rows)
        self.refused = RefusedConnections(rows)
        self.switches = Switches()
        self.clients = ClientTable(clients, rows)
        self.sessions = SessionTable()
        self.metrics = Metrics(rows)
        self.recent_messages = RecentMessages(rows)
        self.unreachable = Unreachable(rows)
        self.last_error = LastError()
        self.tls_rejections = TlsRejections()
        self.loop_lag = LoopLag(rows)
        self.set_limit(max_connections)
        for worker in range(workers):
            self.begin(worker)

    @property
    def limit(self) -> int:
        """MaxConnections, as it is now."""
        return self._header[_LIMIT]

    def set_limit(self, max_connections: int) -> None:
        """Change the limit for all workers. Existing connections stay."""
        self._header[_LIMIT] = max_connections

    # Connections.

    def begin(self, worker: int) -> None:
        """The master, before it forks a worker: this row is used from now on, and its worker accepts."""
        with self._lock:
            self._header[_ROWS] = max(self._header[_ROWS], worker + 1)
            self._accepting[worker] = 1
            self.clients.begin(worker)
        self.metrics.begin(worker)

    def end_accepting(self, worker: int) -> None:
        """The worker accepts no more clients: it is ignored when the least busy worker is looked for."""
        self._accepting[worker] = 0

    def try_enter(self, worker: int, client: str = "") -> bool:
        """Count one more connection of the worker, if the limits allow it. True: it is counted until `leave`.

        `client` is what `config.addresses.client_of_address` returns; "": it may use all connections.
        """
        bucket = _bucket(client)
        with self._lock:
            if not self._has_place(client):
                return False
            self._counts[worker] += 1
            if bucket is not None:
                self._by_client[bucket] += 1
            return True

    def would_enter(self, client: str) -> bool:
        """What `try_enter` would return. Nothing is counted."""
        with self._lock:
            return self._has_place(client)

    def _has_place(self, client: str) -> bool:
        bucket = _bucket(client)
        taken = sum(self._counts[: self._header[_ROWS]])
        allowed = SHARE * (self._header[_LIMIT] - taken)
        return allowed > 0 and (bucket is None or self._by_client[bucket] < allowed)

    def clients_with_most(self, most: int) -> list[tuple[str, int]]:
        """Clients with the most connections, and how many; of a very large table only its first SHARES_MAX keys."""
        size = min(self._header[_CHUNKS] * _CHUNK_BYTES, SHARES_MAX * _KEY_SIZE)
        keys = bytes(self._keys[:size])
        starts = range(0, size, _KEY_SIZE)
        found = Counter(keys[at : at + 17] for at in starts if keys[at : at + 1] == _SHARE_KEY)
        return [(_address(key[1:]), number) for key, number in found.most_common(most)]

    def look_for_floods(self, second: int) -> tuple[int, bool]:
        """Refused connections that are not logged yet, and whether to warn that many are in use: see `floods`."""
        with self._lock:
            return self.refused.untold(second), self.refused.warn(sum(self.counts()), self._header[_LIMIT])

    @property
    def full(self) -> bool:
        """Whether the limit is reached."""
        return sum(self.counts()) >= self._header[_LIMIT]

    def add_share(self, worker: int, client: str) -> int:
        """Record that a connection counts for the share of `client`. The handle is for `forget`."""
        return self._add(worker, _share_key(client))

    def leave(self, worker: int, client: str = "") -> None:
        """A connection of the worker has ended; `client` as for `try_enter`. Raises ValueError where it has none."""
        if not self._counts[worker]:
            raise ValueError(f"worker {worker} has no connection to end")
        self._counts[worker] -= 1  # without the lock: others need not wait for this place
        bucket = _bucket(client)
        if bucket is not None:
            with self._lock:
                self._by_client[bucket] = max(self._by_client[bucket] - 1, 0)

    def counts(self) -> list[int]:
        """Connections of each row that is or was used, by row."""
        return self._counts[: self._header[_ROWS]].tolist()

    def busier_than_others(self, worker: int) -> bool:
        """Whether some other worker that accepts has fewer connections."""
        mine = self._counts[worker]
        accepting = self._accepting[: self._header[_ROWS]].tolist()
        return any(flag and count < mine for flag, count in zip(accepting, self.counts(), strict=False))

    def clear(self, worker: int) -> None:
        """The master, when a worker is dead: its connections are gone with it."""
        with self._lock:
            owners = self._owners[: self._header[_CHUNKS]].tolist()
            for chunk, owner in enumerate(owners):
                if owner == worker + 1:
                    start = chunk * _CHUNK_BYTES
                    self._marks[chunk * _CHUNK * _WORD : (chunk + 1) * _CHUNK * _WORD] = bytes(_CHUNK * _WORD)
                    self._keys[start : start + _CHUNK_BYTES] = bytes(_CHUNK_BYTES)
                    self._owners[chunk] = 0
            while self._header[_CHUNKS] and not self._owners[self._header[_CHUNKS] - 1]:
                self._header[_CHUNKS] -= 1
            self._accepting[worker] = 0
            self._counts[worker] = 0
            self._spooled[worker] = 0
            self._count_shares()
            self.counters.keep(worker)
            self.metrics.keep(worker)
            self.unreachable.clear(worker)
            self.clients.clear(worker)
            self.loop_lag.clear(worker)
        self._free.pop(worker, None)
        for places in (self._places, *self._chain_places.values()):
            places.clear(worker)
        self.sessions.clear(worker)

    def _count_shares(self) -> None:
        """Count all shares again, under the lock: those of a dead worker, and its unfinished changes, are gone."""
        by_client = [0] * _BUCKETS
        for chunk, owner in enumerate(self._owners[: self._header[_CHUNKS]].tolist()):
            if owner:
                keys = bytes(self._keys[chunk * _CHUNK_BYTES : (chunk + 1) * _CHUNK_BYTES])
                for start in range(0, _CHUNK_BYTES, _KEY_SIZE):
                    if keys[start : start + 1] == _SHARE_KEY:
                        by_client[hash(keys[start : start + _KEY_SIZE]) % _BUCKETS] += 1
        self._by_client[:] = memoryview(struct.pack(f"={_BUCKETS}I", *by_client)).cast("I")

    def tally(self, worker: int) -> SpoolTally:
        """The counter of the octets of messages that the worker stores."""
        return SpoolTally(self._spooled, worker)

    def prepare_filters(self, names: Iterable[str]) -> None:
        """Before a worker is forked: make the places of its filters. Old and new workers of a reload share those of a
        filter that both have; they stay until the daemon ends.
        """
        for name in names:
            if name not in self._chain_places:
                self._chain_places[name] = PlaceTable(WORKERS_MAX, RecordLock())

    def chain_places(self, name: str, worker: int) -> WorkerPlaces:
        """The places of the filter with this name."""
        return self._chain_places[name].of(worker)

    def places(self, worker: int) -> WorkerPlaces:
        """The worker's view of FilterProcesses."""
        return self._places.of(worker)

    # Connections by their end points. `End` is an IP literal and a port.

    def add_upstream(self, worker: int, ours: End, theirs: End) -> int:
        """Record a connection of ours from `ours` to `theirs`. The handle is for `forget`."""
        return self._add(worker, _UPSTREAM + _key(*ours) + _key(*theirs))

    def add_client(self, worker: int, client: End, destination: End) -> int:
        """Record a client's connection from `client` to `destination`. The handle is for `forget`."""
        return self._add(worker, _CLIENT + _key(*client) + _key(*destination))

    def forget(self, worker: int, handle: int) -> None:
        """That connection has ended. Raises ValueError if the handle is not one of the worker's, or was forgotten."""
        place = slice(handle * _KEY_SIZE, (handle + 1) * _KEY_SIZE)
        if self._owners[handle // _CHUNK] != worker + 1 or not any(self._keys[place]):
            raise ValueError(f"worker {worker} has no connection {handle} in the table")
        self._marks[handle * _WORD : (handle + 1) * _WORD] = _NO_MARK
        self._keys[place] = bytes(_KEY_SIZE)
        self._free[worker].append(handle)

    def is_upstream(self, client: End, destination: End) -> bool:
        """Whether this connection is one of ours, of any worker."""
        return self._has(_UPSTREAM + _key(*client) + _key(*destination))

    def is_client(self, client: End, destination: End) -> bool:
        """Whether a client of any worker has a connection with these end points."""
        return self._has(_CLIENT + _key(*client) + _key(*destination))

    def _add(self, worker: int, key: bytes) -> int:
        free = self._free.setdefault(worker, [])
        if not free:
            free += self._take_chunk(worker)
        handle = free.pop()
        self._keys[handle * _KEY_SIZE : (handle + 1) * _KEY_SIZE] = key
        self._marks[handle * _WORD : (handle + 1) * _WORD] = _mark(key)
        return handle

    def _has(self, key: bytes) -> bool:
        marks, mark = bytes(self._marks[: self._header[_CHUNKS] * _CHUNK * _WORD]), _mark(key)
        place = marks.find(mark)
        while place >= 0:
            at = place // _WORD * _KEY_SIZE
            if place % _WORD == 0 and self._keys[at : at + _KEY_SIZE] == key:  # not a part of two neighbours
                return True
            place = marks.find(mark, place + 1)
        return False

    def _take_chunk(self, worker: int) -> list[int]:
        with self._lock:
            used = self._owners[: self._header[_CHUNKS]].tolist()
            chunk = used.index(0) if 0 in used else len(used)
            if chunk == _CHUNKS_MAX:
                raise ValueError("more connections than there can be")
            self._owners[chunk] = worker + 1
            self._header[_CHUNKS] = max(self._header[_CHUNKS], chunk + 1)
        return list(range((chunk + 1) * _CHUNK - 1, chunk * _CHUNK - 1, -1))


class SpoolTally:
    """Octets of stored messages: a row for each worker, written only by it."""

    def __init__(self, rows: memoryview, worker: int) -> None:
        self._rows = rows
        self._worker = worker

    def add(self, octets: int) -> None:
        """Add octets; negative: subtract."""
        self._rows[self._worker] += octets

    @property
    def total(self) -> int:
        """The sum of all workers."""
        return sum(self._rows)


def _mark(key: bytes) -> bytes:
    """A word that stands for a key, the same in all workers, which are forked. It has no octet 0, unlike free places:
    `bytes.find` is ten times as fast as among the keys themselves.
    """
    return (hash(key) & _WORD_MASK).to_bytes(_WORD, "little").replace(b"\0", b"\1")


def _share_key(client: str) -> bytes:
    return (_SHARE_KEY + _key(client, 1)).ljust(_KEY_SIZE, b"\0")


def _address(packed: bytes) -> str:
    address = IPv6Address(packed)
    return str(address.ipv4_mapped or address)


def _bucket(client: str) -> int | None:
    return hash(_share_key(client)) % _BUCKETS if client else None


def _key(ip: str, port: int) -> bytes:
    """Raises ValueError for what is no IP literal (a scope is left out) or no port."""
    if not 0 < port < 65536:
        raise ValueError(f"{port} is no port")
    return _packed(ip) + port.to_bytes(2, "big")


@lru_cache(_ADDRESSES)
def _packed(ip: str) -> bytes:
    try:
        if ":" in ip:
            return socket.inet_pton(socket.AF_INET6, ip.partition("%")[0])
        return _MAPPED + socket.inet_pton(socket.AF_INET, ip)
    except (OSError, ValueError):
        raise ValueError(f"{ip!r} is no IP address") from None
