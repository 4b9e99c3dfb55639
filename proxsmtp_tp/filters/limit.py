"""How many filter processes a worker runs at once. Whoever comes later waits in line, first come, first served.

A process counts until it is reaped, also while it is being ended: the limit is on what the machine bears, not on what
anybody still wants.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class ProcessLimit:
    """At most `maximum` places. Used inside a running event loop."""

    def __init__(self, maximum: int) -> None:
        if maximum < 1:
            raise ValueError(f"no filter could ever run with {maximum} processes")
        self.maximum = maximum
        self.taken = 0
        self.closed = False
        self._line: dict[Callable[[], None], None] = {}

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._line)

    def enter(self, granted: Callable[[], None]) -> bool:
        """Take a place: True if it is taken now; otherwise `granted` is called from the event loop once it is."""
        if self.closed:
            return False
        if self.taken < self.maximum and not self._line:
            self.taken += 1
            return True
        self._line[granted] = None
        return False

    def forget(self, granted: Callable[[], None]) -> None:
        """Stand in line no more. Whoever was granted a place meanwhile is still called, and leaves it."""
        self._line.pop(granted, None)

    def close(self) -> None:
        """The worker ends: nobody is granted a place any more."""
        self.closed = True
        self._line.clear()

    def leave(self) -> None:
        """Give a place back."""
        self.taken -= 1
        while self._line and self.taken < self.maximum:
            granted = next(iter(self._line))
            del self._line[granted]
            self.taken += 1
            asyncio.get_running_loop().call_soon(granted)  # not now: a line of failing starts must not nest
