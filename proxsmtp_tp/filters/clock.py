"""FilterTimeout: how long we wait for a filter.

A message is complete before its filter starts, so a slow client costs the filter nothing. The whole limit is given when
the filter starts, and again each time that it takes more of a message that it could not take at once: once it has the
whole message, the limit is a total, and bytes that it writes buy it nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class Clock:
    """Calls `spent` once, from the event loop, `limit` seconds after the last `start`. Stopped at first."""

    __slots__ = ("_limit", "_loop", "_spent", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: float, spent: Callable[[], None]) -> None:
        self._loop = loop
        self._limit = limit
        self._spent = spent
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Give the whole limit from now on."""
        self.stop()
        self._timer = self._loop.call_later(self._limit, self._spent)

    def stop(self) -> None:
        """Count no more. Idempotent."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
