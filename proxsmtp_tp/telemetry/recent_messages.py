"""The last messages of each worker, in memory that all workers share: client, server, reply, size and time.

For `top`, which shows messages a second by client and by server: sessions that run now say nothing about those that
have ended. One mapping, made by the master before the first fork and kept over reloads. Each worker writes only its own
ring, without a lock, and never waits for a reader: a message that is overwritten before it is read is lost, and
counted. Each ring has a number of messages that only increases, also when another worker writes the ring after a crash.
"""

from __future__ import annotations

import mmap
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

ENTRIES: Final = 4096
"""Messages of one worker that are kept: more than it relays in two seconds, the time between two readings of `top`."""
_ADDRESS = 46
"""Octets of an IP address as text (INET6_ADDRSTRLEN of netinet/in.h, with its NUL)."""
_ENTRY: Final = struct.Struct(f"={_ADDRESS}s{_ADDRESS}scIf")
_SIZE_MAX: Final = 0xFFFFFFFF
_WORD = 8
_NO_RESERVE = 0x4000  # MAP_NORESERVE, mmap(2): most rows have no worker


class Message(NamedTuple):
    """One message that has ended. `reply`: the first digit of the reply to it, `-` where the client was gone."""

    client: bytes
    server: bytes
    reply: bytes
    octets: int
    seconds: float
    """From the client's end of data to our reply."""


class RecentMessages:
    """A ring for each of `workers` rows of the admission table."""

    def __init__(self, workers: int) -> None:
        flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | _NO_RESERVE
        self._numbers = memoryview(mmap.mmap(-1, workers * _WORD)).cast("Q")
        self._entries = memoryview(mmap.mmap(-1, workers * ENTRIES * _ENTRY.size, flags=flags))

    def of(self, worker: int) -> WorkerMessages:
        """The ring of one worker."""
        return WorkerMessages(self._numbers, self._ring(worker), worker)

    def numbers(self) -> list[int]:
        """How many messages were written to each ring, without the rings after the last one that was used."""
        numbers = self._numbers.tolist()
        while numbers and not numbers[-1]:
            numbers.pop()
        return numbers

    def since(self, before: Sequence[int]) -> tuple[list[Message], int, list[int]]:
        """The messages after the reading that gave these numbers; how many were lost; the numbers of this reading."""
        messages, lost, numbers = [], 0, self.numbers()
        for worker, number in enumerate(numbers):
            first = min(before[worker], number) if worker < len(before) else 0
            ring = bytes(self._ring(worker)) if first < number else b""
            oldest = max(first, self._numbers[worker] - ENTRIES + 1) if ring else first  # that one is being overwritten
            lost += max(0, min(oldest, number) - first)
            for each in range(oldest, number):
                client, server, *rest = _ENTRY.unpack_from(ring, each % ENTRIES * _ENTRY.size)
                messages.append(Message(client.rstrip(b"\0"), server.rstrip(b"\0"), *rest))
        return messages, lost, numbers

    def _ring(self, worker: int) -> memoryview:
        return self._entries[worker * ENTRIES * _ENTRY.size : (worker + 1) * ENTRIES * _ENTRY.size]


class WorkerMessages:
    """The ring of one worker. Only that worker writes it."""

    __slots__ = ("_numbers", "_ring", "_worker")

    def __init__(self, numbers: memoryview, ring: memoryview, worker: int) -> None:
        self._numbers = numbers
        self._ring = ring
        self._worker = worker

    def add(self, client: str, server: str, reply: bytes, octets: int, seconds: float) -> None:
        """A message has ended; `reply` is the whole reply to it, or empty."""
        number = self._numbers[self._worker]
        _ENTRY.pack_into(
            self._ring,
            number % ENTRIES * _ENTRY.size,
            client.encode(),
            server.encode(),
            reply[:1] or b"-",
            min(octets, _SIZE_MAX),
            seconds,
        )
        self._numbers[self._worker] = number + 1
