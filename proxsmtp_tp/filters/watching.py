"""Watches the descriptors of children: in one epoll(7) instance, which the event loop watches.

uvloop needs seven system calls and several objects to begin and to end watching a descriptor, and a filter has three
for some milliseconds. Here it is one call each.
"""

from __future__ import annotations

import select
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

AT_ONCE = 32
"""Descriptors that are served in one turn of the event loop: each may take some 50 us."""


class Watch:
    """Calls functions from the event loop while their descriptors are readable. It has a descriptor only while it has
    something to watch, or is held.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._epoll: select.epoll | None = None
        self._ready: dict[int, Callable[[], None]] = {}
        self._holders = 0

    def hold(self) -> None:
        """Keep the descriptor open between two children, until `let_go`: to open it takes longer than to use it."""
        self._holders += 1

    def let_go(self) -> None:
        """The end of one `hold`."""
        self._holders -= 1
        self._close_unused()

    def add(self, descriptor: int, ready: Callable[[], None]) -> None:
        """Begin. Raises OSError if the system has no descriptor or memory left."""
        epoll = self._epoll or self._open()
        self._ready[descriptor] = ready
        try:
            epoll.register(descriptor, select.EPOLLIN)
        except OSError:
            self._forget(descriptor)
            raise

    def remove(self, descriptor: int) -> None:
        """Stop, if it was watched. Call it before the descriptor is closed: a process that is just being started may
        have it, too.
        """
        if self._epoll is not None and descriptor in self._ready:
            self._epoll.unregister(descriptor)
            self._forget(descriptor)

    def _open(self) -> select.epoll:
        epoll, loop = select.epoll(), self._loop()
        if loop is not None:
            loop.add_reader(epoll.fileno(), self._look)
        self._epoll = epoll
        return epoll

    def _forget(self, descriptor: int) -> None:
        del self._ready[descriptor]
        self._close_unused()

    def _close_unused(self) -> None:
        if self._ready or self._holders or self._epoll is None:
            return
        epoll, self._epoll = self._epoll, None
        loop = self._loop()
        if loop is not None and not loop.is_closed():
            loop.remove_reader(epoll.fileno())
        epoll.close()

    def _look(self) -> None:
        if self._epoll is None:
            return
        for descriptor, _ in self._epoll.poll(0, AT_ONCE):
            ready = self._ready.get(descriptor)  # None: one before it was the end of that child
            if ready is not None:
                ready()


_watches: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Watch] = weakref.WeakKeyDictionary()


def watch_of(loop: asyncio.AbstractEventLoop) -> Watch:
    """The instance of this event loop."""
    watch = _watches.get(loop)
    if watch is None:
        watch = _watches[loop] = Watch(loop)
    return watch
