"""How much all messages that are kept may take: SpoolLimit over all workers, a reserve on the disk, a worker's memory.

Octets count from the moment that they are kept until the message is over, in memory and on disk alike: what a client
sent, and what a filter wrote. Each worker adds up its own; the sum of all is read without a lock, so workers that take
at the same moment may pass the limit by what they have in hand, which is some hundred kilobytes each.
"""

from __future__ import annotations

import errno
import os
from typing import Protocol

RESERVE = 64 << 20
"""Octets of TempDirectory's file system that stay free: it may be shared, and who logs or rotates there needs some."""
RESERVE_PART = 20
"""Of a small file system, this part of it stays free instead."""

MEMORY_TOTAL = 32 << 20
"""Octets of all messages together that a worker keeps in memory; with that much, the next go to disk at once. So many
connections that send at once fill the disk, which has a limit, and not the memory."""


class SpoolFullError(OSError):
    """There is no room for more of a message."""


class Tally(Protocol):
    """The octets that workers keep."""

    def add(self, octets: int) -> None:
        """This worker keeps so many more, or fewer."""

    @property
    def total(self) -> int:
        """Of all workers."""


class _Alone:
    """The tally of a worker without others."""

    def __init__(self) -> None:
        self.total = 0

    def add(self, octets: int) -> None:
        self.total += octets


class SpoolSpace:
    """Of one worker. `limit` is SpoolLimit in octets, 0 for none."""

    def __init__(self, directory: str, limit: int = 0, tally: Tally | None = None) -> None:
        self.directory = directory
        self._limit = limit
        self._tally = tally or _Alone()
        self.memory = 0
        """Octets that are kept in memory."""

    def take(self, octets: int) -> None:
        """SpoolSpace for so many more octets. Raises SpoolFullError where there is none."""
        if self._limit and self._tally.total + octets > self._limit:
            raise SpoolFullError(errno.ENOSPC, f"SpoolLimit ({self._limit} octets) is reached")
        self._tally.add(octets)

    def give_back(self, octets: int) -> None:
        """They are not kept any more."""
        self._tally.add(-octets)

    def take_on_disk(self, octets: int) -> None:
        """The same for octets that go to disk, whose reserve stays. Raises OSError where it can not be looked at."""
        disk = os.statvfs(self.directory)
        reserve = min(RESERVE, disk.f_blocks * disk.f_frsize // RESERVE_PART)
        if disk.f_bavail * disk.f_frsize - octets < reserve:
            raise SpoolFullError(errno.ENOSPC, f"{self.directory} has no more than {reserve >> 10} KiB left")
        self.take(octets)

    def has_memory(self, octets: int) -> bool:
        """Whether so many more octets may be kept in memory."""
        return self.memory + octets <= MEMORY_TOTAL
