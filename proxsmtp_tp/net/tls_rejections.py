"""Which clients have rejected our certificate for which server (TlsRejected: pass), in memory that all workers share.

The next attempt of such a client may reach another worker, so the table is made before the first fork. The size is
fixed. All entries of a client are in one of 32 buckets, whose hash has a secret key: a client that rejects many
certificates on purpose takes the places of one in 32 clients, and those have to be rejected once more.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from proxsmtp_tp.config.addresses import client_of_address
from proxsmtp_tp.telemetry.record_lock import RecordLock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BUCKETS: Final = 32
SLOTS: Final = 256
"""Of a bucket. A mail server that verifies has this many servers and names within TlsRejectedTimeOut; then the entry
that ends first is replaced."""
_TEXT: Final = 480
"""Octets: an address of a client (39), a server (a path of a unix socket has 108), a port and a name (253)."""


class Rejection(NamedTuple):
    """`client`: an IPv4 address, or the network address of an IPv6 /64. `name`: in its hello; "": none."""

    client: str
    server: str
    port: int
    name: str


class TlsRejections:
    """The table. Each method takes some microseconds, and a lock against other processes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock  # one clock for all processes: CLOCK_MONOTONIC (clock_gettime(2))
        self._learned = memoryview(mmap.mmap(-1, 8)).cast("Q")
        self._digests = memoryview(mmap.mmap(-1, BUCKETS * SLOTS * 8)).cast("Q")
        self._until = memoryview(mmap.mmap(-1, BUCKETS * SLOTS * 8)).cast("d")
        self._texts = memoryview(mmap.mmap(-1, BUCKETS * SLOTS * _TEXT))
        self._secret = os.urandom(16)
        self._lock = RecordLock()

    def learn(self, rejection: Rejection, seconds: float) -> None:
        """The client has rejected our certificate: it is `known` for so long."""
        text, now = _text(rejection), self._clock()
        digest, places = self._hash(text), self._bucket(rejection.client)
        with self._lock:
            place = self._find(digest, places)
            if place is None:
                place = min(places, key=self._until.__getitem__)
            self._learned[0] = 1
            self._digests[place] = digest
            self._until[place] = now + seconds
            self._texts[place * _TEXT : (place + 1) * _TEXT] = text.ljust(_TEXT, b"\0")

    def known(self, rejection: Rejection) -> bool:
        """Whether the client has rejected our certificate for this server and name lately."""
        if not self._learned[0]:
            return False
        with self._lock:
            place = self._find(self._hash(_text(rejection)), self._bucket(rejection.client))
            return place is not None and self._until[place] > self._clock()

    def clear(self) -> None:
        """Forget all: the configuration was read again."""
        with self._lock:
            self._learned[0] = 0
            for place in range(len(self._digests)):
                if self._digests[place]:
                    self._digests[place], self._until[place] = 0, 0.0

    def entries(self) -> list[tuple[Rejection, float]]:
        """All that are known, with the seconds that are left; those that end last come first."""
        if not self._learned[0]:
            return []
        with self._lock:
            return sorted(self._read(self._clock()), key=lambda each: -each[1])

    def _read(self, now: float) -> Iterator[tuple[Rejection, float]]:
        for place, digest in enumerate(self._digests.tolist()):
            if digest and self._until[place] > now:
                text = bytes(self._texts[place * _TEXT : (place + 1) * _TEXT])
                client, server, port, name = text.rstrip(b"\0").decode().split("\n")
                yield Rejection(client, server, int(port), name), self._until[place] - now

    def _find(self, digest: int, places: range) -> int | None:
        words = self._digests[places.start : places.stop].tolist()
        return places.start + words.index(digest) if digest in words else None

    def _bucket(self, client: str) -> range:
        start = self._hash(client.encode()) % BUCKETS * SLOTS
        return range(start, start + SLOTS)

    def _hash(self, data: bytes) -> int:
        """Never 0, which is a free place."""
        return int.from_bytes(hashlib.blake2b(data, digest_size=8, key=self._secret).digest(), "little") or 1


def client_of(ip: str) -> str:
    """The client of an entry; programs of this host are one client each address."""
    return client_of_address(ip) or ip


def _text(rejection: Rejection) -> bytes:
    return "\n".join(map(str, rejection)).encode()[:_TEXT]


class RejectionsOfClient:
    """Those of one connection's client (`session.limits.Rejections`)."""

    def __init__(self, table: TlsRejections, seconds: float, client_ip: str) -> None:
        self._table = table
        self._client = client_of(client_ip)
        self._seconds = seconds

    def known(self, server: str, port: int, name: str) -> bool:
        """Whether this client has rejected our certificate for this server and name."""
        return self._table.known(Rejection(self._client, server, port, name))

    def learn(self, server: str, port: int, name: str) -> None:
        """It has done so now."""
        self._table.learn(Rejection(self._client, server, port, name), self._seconds)
