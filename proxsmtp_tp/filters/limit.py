"""At most FilterProcesses filters run at once, over all workers. Further messages wait.

A place is in use until its process is reaped, also while the process is being ended: the limit protects the machine.

A free place goes to the client with the fewest places, and among those to the one that was served least recently. So
one client may use all places while nobody else waits. The messages of one client are served in the order of arrival;
when the line is never empty, the newest first, and none waits long: those that would be judged too late get a 4xx reply
at once.
"""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from proxsmtp_tp.config.addresses import client_of_address
from proxsmtp_tp.filters.places import SLOTS, OwnPlaces, client_key, rank

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxsmtp_tp.filters.places import Places, Waiting

NEVER_EMPTY = 5.0
"""Seconds: a line that was not empty for so long has more messages than the filters can judge (the controlled delay
queue of "Fail at Scale", in the time scale of mail)."""

OVERLOAD_WAIT = 2.0
"""Seconds that a message waits then: its client sends it again later, and until then it costs nothing here."""

LOOK = 0.25
"""Seconds after which a worker with waiting messages looks for a place without being woken: the worker that should wake
it may have died."""


@functools.lru_cache(1024)
def _key(client: str) -> bytes:
    return client_key(client_of_address(client))


class ProcessLimit:
    """At most `maximum` places, over all workers that share `places`. Used inside a running event loop."""

    def __init__(self, maximum: int, places: Places | None = None, wait: float | None = None) -> None:
        if maximum < 1:
            raise ValueError(f"no filter could ever run with {maximum} processes")
        self.maximum = min(maximum, SLOTS)
        self.taken = 0
        """Places that this worker uses."""
        self.closed = False
        self._wait = wait
        self._waited_since: float | None = None
        """Since when at least one message waits here; None: none does."""
        self._places: Places = places or OwnPlaces()
        self._waiting: dict[bytes, dict[Callable[[], None], float]] = {}
        """By client, in the order of arrival: since when each message waits."""
        self._timer: asyncio.TimerHandle | None = None
        self._listening = False

    @property
    def waiting(self) -> int:
        """How many messages wait at this worker."""
        return sum(map(len, self._waiting.values()))

    @property
    def overloaded(self) -> bool:
        """Whether messages have waited here without a break for so long that the line will not end by itself."""
        return self._waited_since is not None and time.monotonic() - self._waited_since > NEVER_EMPTY

    def wait(self, otherwise: float) -> float:
        """Seconds that the next message may wait for a place; `otherwise`: where the limit says nothing."""
        seconds = otherwise if self._wait is None else self._wait
        return min(seconds, OVERLOAD_WAIT) if self.overloaded else seconds

    def enter(self, granted: Callable[[], None], client: str = "") -> bool:
        """Take a place: True if it is taken now; otherwise `granted` is called from the event loop once it is."""
        if self.closed:
            return False
        key = _key(client)
        if not self._waiting and self._take_free(key):
            return True
        self._waiting.setdefault(key, {})[granted] = time.monotonic()
        now = self._serve()
        if granted in now:
            now.remove(granted)
            self._call(now)
            return True
        self._call(now)
        return False

    def forget(self, granted: Callable[[], None], client: str = "") -> None:
        """Stop waiting. If a place was already granted, `granted` is still called and must give the place back."""
        key = _key(client)
        if granted in self._waiting.get(key, ()):
            self._stop_waiting(key, granted)
            self._call(self._serve())

    def close(self) -> None:
        """The worker ends: no more places are granted."""
        self.closed = True
        self._waiting.clear()
        self._serve()

    def leave(self, client: str = "") -> None:
        """Give a place of that client back."""
        self.taken -= 1
        places = self._places
        with places.lock:
            places.give_back(_key(client))
            waited_for = bool(self._waiting) or places.others_wait()
        if waited_for:
            self._call(self._serve())

    def _call(self, granted: list[Callable[[], None]]) -> None:
        for each in granted:
            asyncio.get_running_loop().call_soon(each)  # not now: starts that fail must not nest

    # Which client gets a free place.

    def _take_free(self, client: bytes) -> bool:
        """Take a place that nobody waits for, here or at another worker: there is nothing to compare or to publish."""
        places = self._places
        with places.lock:
            if places.others_wait() or places.taken() >= self.maximum:
                return False
            places.take(client)
        self.taken += 1
        return True

    def _serve(self) -> list[Callable[[], None]]:
        """Give free places to the clients that are next here, and wake the worker where the next one waits. Returns who
        got one."""
        places = self._places
        granted: list[Callable[[], None]] = []
        next_worker = None
        with places.lock:
            compared = len(self._waiting) > 1 or places.others_wait()  # otherwise there is nothing to compare
            in_use, served = (places.in_use(), places.served()) if compared else (Counter(), {})
            while places.taken() < self.maximum:
                mine, others = self._next(in_use, served), places.others(in_use, served)
                if mine is None or (others is not None and others[0] < mine[0]):
                    next_worker = others and others[1]
                    break
                client = mine[1]
                places.take(client)
                in_use[client] += 1
                served = places.served() if len(self._waiting) > 1 else served
                messages = self._waiting[client]
                granted.append(next(reversed(messages) if self.overloaded else iter(messages)))
                self._stop_waiting(client, granted[-1])
            first = self._next(in_use, served)
            places.publish(*((first[1], first[0].since) if first else (None, 0.0)))
        self.taken += len(granted)
        if not self._waiting:
            self._waited_since = None
        elif self._waited_since is None:
            self._waited_since = time.monotonic()
        if next_worker is not None:
            places.wake(next_worker)
        self._listen()
        return granted

    def _next(self, in_use: Counter[bytes], served: dict[bytes, float]) -> tuple[Waiting, bytes] | None:
        """The first of the clients that wait here."""
        waiting = [
            (rank(key, next(iter(messages.values())), in_use, served), key) for key, messages in self._waiting.items()
        ]
        return min(waiting, default=None)

    def _stop_waiting(self, client: bytes, granted: Callable[[], None]) -> None:
        messages = self._waiting[client]
        del messages[granted]
        if not messages:
            del self._waiting[client]

    # Woken by other workers.

    def _listen(self) -> None:
        """Watch the wake-up descriptor and the timer while messages wait."""
        wakeup = self._places.wakeup
        if wakeup is None:
            return
        loop = asyncio.get_running_loop()
        if self._waiting:
            if not self._listening:
                self._listening = True
                loop.add_reader(wakeup, self._woken)
            self._timer = self._timer or loop.call_later(LOOK, self._look)
            return
        if self._listening:
            self._listening = False
            loop.remove_reader(wakeup)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _woken(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._places.wakeup or 0)
        self._call(self._serve())

    def _look(self) -> None:
        self._timer = None
        self._call(self._serve())
