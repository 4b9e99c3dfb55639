"""FilterTimeout: how long we wait for a filter, in total.

Time counts only while the filter keeps us waiting; a slow client costs it nothing, and bytes that it writes buy it
nothing. So neither a slow message nor a filter that drips its output moves the limit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class Clock:
    """Calls `spent` once, from the event loop, when it has run for `limit` seconds in total. Stopped at first."""

    __slots__ = ("_left", "_loop", "_since", "_spent", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: float, spent: Callable[[], None]) -> None:
        self._loop = loop
        self._left = limit
        self._spent = spent
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def run(self) -> None:
        """Go on counting. Idempotent."""
        if self._timer is None:
            self._since = self._loop.time()
            self._timer = self._loop.call_later(max(self._left, 0), self._spent)

    def stop(self) -> None:
        """Stop counting; what has passed stays counted. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._left -= self._loop.time() - self._since
