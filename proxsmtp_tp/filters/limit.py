"""How many filter processes run at once, over all workers. Further messages wait.

A place is occupied until its process is reaped, also while the process is being ended: the limit protects the machine.

A free place goes to the client that has the fewest, and among those to the one that was served least recently: a client
may have all places while nobody else waits, and its turn when others do. Its own messages are served as they come.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from proxsmtp_tp.config.addresses import holder
from proxsmtp_tp.filters.places import SLOTS, OwnPlaces, client_key, rank

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxsmtp_tp.filters.places import Places, Waiting

LOOK = 0.25
"""Seconds after which who waits looks by itself: where a worker died that should have told it."""


class ProcessLimit:
    """At most `maximum` places, over all workers that share `places`. Used inside a running event loop."""

    def __init__(self, maximum: int, places: Places | None = None) -> None:
        if maximum < 1:
            raise ValueError(f"no filter could ever run with {maximum} processes")
        self.maximum = min(maximum, SLOTS)
        self.taken = 0
        """Places that this worker has."""
        self.closed = False
        self._places: Places = places or OwnPlaces()
        self._line: dict[bytes, dict[Callable[[], None], float]] = {}
        """By client, in the order of coming: since when each waits."""
        self._timer: asyncio.TimerHandle | None = None
        self._listening = False

    @property
    def waiting(self) -> int:
        """How many messages wait at this worker."""
        return sum(map(len, self._line.values()))

    def enter(self, granted: Callable[[], None], client: str = "") -> bool:
        """Take a place: True if it is taken now; otherwise `granted` is called from the event loop once it is."""
        if self.closed:
            return False
        self._line.setdefault(client_key(holder(client)), {})[granted] = time.monotonic()
        now = self._serve()
        if granted in now:
            now.remove(granted)
            self._call(now)
            return True
        self._call(now)
        return False

    def forget(self, granted: Callable[[], None], client: str = "") -> None:
        """Stop waiting. If a place was already granted, `granted` is still called and must give the place back."""
        key = client_key(holder(client))
        if granted in self._line.get(key, ()):
            self._leave_line(key, granted)
            self._call(self._serve())

    def close(self) -> None:
        """The worker ends: no more places are granted."""
        self.closed = True
        self._line.clear()
        self._serve()

    def leave(self, client: str = "") -> None:
        """Give a place of that client back."""
        self.taken -= 1
        with self._places.lock:
            self._places.give_back(client_key(holder(client)))
        self._call(self._serve())

    def _call(self, granted: list[Callable[[], None]]) -> None:
        for each in granted:
            asyncio.get_running_loop().call_soon(each)  # not now: starts that fail must not nest

    # Whose turn it is.

    def _serve(self) -> list[Callable[[], None]]:
        """Give free places to who is next here; tell another worker where it has the next. Who got one."""
        places = self._places
        granted: list[Callable[[], None]] = []
        next_worker = None
        with places.lock:
            compared = len(self._line) > 1 or places.others_wait()  # otherwise whoever waits is next
            held, served = (places.held(), places.served()) if compared else (Counter(), {})
            while places.taken() < self.maximum:
                mine, others = self._next(held, served), places.others(held, served)
                if mine is None or (others is not None and others[0] < mine[0]):
                    next_worker = others and others[1]
                    break
                client = mine[1]
                places.take(client)
                held[client] += 1
                served = places.served() if len(self._line) > 1 else served
                granted.append(next(iter(self._line[client])))
                self._leave_line(client, granted[-1])
            first = self._next(held, served)
            places.show(*((first[1], first[0].since) if first else (None, 0.0)))
        self.taken += len(granted)
        if next_worker is not None:
            places.ring(next_worker)
        self._listen()
        return granted

    def _next(self, held: Counter[bytes], served: dict[bytes, float]) -> tuple[Waiting, bytes] | None:
        """The client that is next of those that wait here."""
        waiting = [(rank(key, next(iter(line.values())), held, served), key) for key, line in self._line.items()]
        return min(waiting, default=None)

    def _leave_line(self, client: bytes, granted: Callable[[], None]) -> None:
        line = self._line[client]
        del line[granted]
        if not line:
            del self._line[client]

    # What other workers tell.

    def _listen(self) -> None:
        """Hear of free places while somebody waits."""
        bell = self._places.bell
        if bell is None:
            return
        loop = asyncio.get_running_loop()
        if self._line:
            if not self._listening:
                self._listening = True
                loop.add_reader(bell, self._rung)
            self._timer = self._timer or loop.call_later(LOOK, self._look)
            return
        if self._listening:
            self._listening = False
            loop.remove_reader(bell)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _rung(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._places.bell or 0)
        self._call(self._serve())

    def _look(self) -> None:
        self._timer = None
        self._call(self._serve())
