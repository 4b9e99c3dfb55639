"""A time limit for a coroutine: as asyncio.timeout(), which is no compiled code and an asynchronous context."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from proxsmtp_tp.filters.callbacks import callback

if TYPE_CHECKING:
    from types import TracebackType


class time_limit:  # noqa: N801  (used like a function)
    """A context in a task: what waits in it after so many seconds is cancelled, and TimeoutError is raised."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._cancelled_before = 0
        self._over = False

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        if self._task is None:
            raise RuntimeError("a time limit outside of a task")
        self._cancelled_before = self._task.cancelling()
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._time_is_up)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        timer, task = self._timer, self._task
        self._timer = self._task = None
        if timer is not None:
            timer.cancel()
        if self._over and task is not None:
            others = task.uncancel() > self._cancelled_before  # somebody else has cancelled the task, too
            if isinstance(error, asyncio.CancelledError) and not others:
                raise TimeoutError from error

    @callback
    def _time_is_up(self) -> None:
        self._over = True
        if self._task is not None:
            self._task.cancel()

    def failed(self, error: Exception) -> None:
        """CallbackOwner: a bug. The event loop logs it."""
        raise error
