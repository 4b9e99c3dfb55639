"""FilterTimeout: how long the proxy waits for a filter.

A message is complete before its filter starts, so a slow client does not use up the filter's time. The filter gets the
full limit when it starts, and again each time that it reads more of a message that it did not read at once. After
it has the whole message, the limit is for all of the rest; output does not extend it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class Clock:
    """Calls `spent` once, from the event loop, `limit` seconds after the last `start`. Not running at first, and never
    after `end`.
    """

    __slots__ = ("_limit", "_loop", "_spent", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: float, spent: Callable[[], None]) -> None:
        self._loop = loop
        self._limit = limit
        self._spent: Callable[[], None] | None = spent
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start or restart the full limit now."""
        self.stop()
        if self._spent is not None:
            self._timer = self._loop.call_later(self._limit, self._spent)

    def end(self) -> None:
        """Stop for good. It keeps its owner no longer: no circle of objects is left for the garbage collector."""
        self.stop()
        self._spent = None

    def stop(self) -> None:
        """Stop. Idempotent."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
