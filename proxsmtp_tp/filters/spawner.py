"""Starts processes in a thread of its own, so that the event loop does not wait until the program is executed.

The thread stays until the process ends: the kernel sends the signal of PR_SET_PDEATHSIG when the thread that started a
child ends (PR_SET_PDEATHSIG(2const)). It has all signals blocked, so handlers run in the main thread.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from proxsmtp_tp.filters.execution import Prepared


class Start:
    """The start of one process. `done` is called from the event loop afterwards, unless it was cancelled before."""

    __slots__ = ("_cancelled", "_descriptors", "_done", "_lock", "_loop", "_prepared", "error", "pid")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        prepared: Prepared,
        descriptors: Sequence[int | None],
        done: Callable[[], None],
    ) -> None:
        self.pid = 0
        """The process, once it is started."""
        self.error: Exception | None = None
        """Why it was not started."""
        self._loop = loop
        self._prepared = prepared
        self._descriptors = descriptors
        self._done = done
        self._lock = threading.Lock()
        self._cancelled = False
        _spawner().put(self)

    def cancel(self) -> None:
        """Do not start it; if it is being started now, wait for that: then it has a `pid`, or an `error`."""
        with self._lock:
            self._cancelled = True

    def make(self) -> None:
        """Start it. Called in the thread."""
        with self._lock:
            if self._cancelled:
                return
            try:
                self.pid = self._prepared.spawn(self._descriptors)
            except Exception as error:  # noqa: BLE001  (the thread must go on for other messages)
                self.error = error
        with suppress(RuntimeError):  # the loop is closed: who closed it has cancelled this
            self._loop.call_soon_threadsafe(self._done)


def _serve(starts: SimpleQueue[Start]) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        starts.get().make()


_starts: SimpleQueue[Start] | None = None


def _spawner() -> SimpleQueue[Start]:
    """The queue of this process's thread, which runs."""
    global _starts  # noqa: PLW0603  (one for each process)
    if _starts is None:
        _starts = SimpleQueue()
        threading.Thread(target=_serve, args=(_starts,), name="spawner", daemon=True).start()
    return _starts


def _forget() -> None:
    """A process that was forked has no such thread."""
    global _starts  # noqa: PLW0603
    _starts = None


os.register_at_fork(after_in_child=_forget)
