"""How much space all stored messages may take: SpoolLimit over all workers, a reserve on the disk, a worker's memory.

Octets count from the moment that they are stored until the message is done, in memory and on disk alike: what a client
sent, and what a filter wrote. Each worker sums its own. The total is read without a lock, so workers that store octets
at the same moment may exceed the limit, by some hundred kilobytes each.
"""

from __future__ import annotations

import errno
import os
from typing import Protocol

RESERVE = 64 << 20
"""Octets of TempDirectory's file system that stay free: others may use it too, for example for logs."""
RESERVE_PART = 20
"""For a small file system: this fraction (one part in N) stays free instead."""

MEMORY_TOTAL = 32 << 20
"""Octets of all messages together that a worker keeps in memory. More octets go to disk at once, so that many
connections that send at the same time cannot fill the memory."""


class SpoolFullError(OSError):
    """There is no space for more octets of a message."""


class Tally(Protocol):
    """Counts the octets that workers store."""

    def add(self, octets: int) -> None:
        """This worker stores so many octets more, or (negative) fewer."""

    @property
    def total(self) -> int:
        """The sum of all workers."""


class _Alone:
    """The tally if there is only one worker."""

    def __init__(self) -> None:
        self.total = 0

    def add(self, octets: int) -> None:
        self.total += octets


class SpoolSpace:
    """The space of one worker. `limit` is SpoolLimit in octets, 0 for none."""

    def __init__(self, directory: str, limit: int = 0, tally: Tally | None = None) -> None:
        self.directory = directory
        self._limit = limit
        self._tally = tally or _Alone()
        self.memory = 0
        """Octets that are stored in memory."""

    def take(self, octets: int) -> None:
        """Reserve space for so many octets. Raises SpoolFullError if there is none."""
        if self._limit and self._tally.total + octets > self._limit:
            raise SpoolFullError(errno.ENOSPC, f"SpoolLimit ({self._limit} octets) is reached")
        self._tally.add(octets)

    def give_back(self, octets: int) -> None:
        """Release so many octets."""
        self._tally.add(-octets)

    def take_on_disk(self, octets: int) -> None:
        """Reserve space on disk, without its reserve. Raises SpoolFullError, or OSError if the disk cannot be
        examined.
        """
        disk = os.statvfs(self.directory)
        reserve = min(RESERVE, disk.f_blocks * disk.f_frsize // RESERVE_PART)
        if disk.f_bavail * disk.f_frsize - octets < reserve:
            raise SpoolFullError(errno.ENOSPC, f"{self.directory} has no more than {reserve >> 10} KiB left")
        self.take(octets)

    def has_memory(self, octets: int) -> bool:
        """Whether so many more octets may be stored in memory."""
        return self.memory + octets <= MEMORY_TOTAL
