"""Servers that could not be reached lately, for `status`: a few places for each worker, in memory that all share.

A worker writes only its own places, without a lock, and frees one when it reaches the server again. The last word of a
place, the time of the last failure, is written last and makes the place valid. Times are seconds of CLOCK_MONOTONIC.
"""

from __future__ import annotations

import mmap
import struct
import time
from typing import Any

PLACES = 8
"""Servers of each worker: those that failed last."""

RECENT = 120.0
"""Seconds for which a failure is shown: another worker may have reached the server since."""

_TIME = struct.Struct("=d")
_PLACE = struct.Struct("=dQ64s")  # first failure, failures, address and port
_SIZE = _TIME.size + _PLACE.size


class Unreachable:
    """The places of all workers."""

    def __init__(self, workers: int) -> None:
        self._places = memoryview(mmap.mmap(-1, workers * PLACES * _SIZE))

    def of(self, worker: int) -> WorkerUnreachable:
        """The places of one worker."""
        return WorkerUnreachable(self._places[worker * PLACES * _SIZE : (worker + 1) * PLACES * _SIZE])

    def clear(self, worker: int) -> None:
        """The worker is dead: its entries are kept until they are too old."""
        self.of(worker).forget(time.monotonic() - RECENT)

    def report(self, workers: int) -> list[dict[str, Any]]:
        """The servers, the longest unreachable first: `server`, `seconds` since the first failure, `failures`."""
        now = time.monotonic()
        found: dict[str, tuple[float, int]] = {}
        for start in range(0, workers * PLACES * _SIZE, _SIZE):
            (last,) = _TIME.unpack_from(self._places, start)
            if last and now - last < RECENT:
                first, failures, server = _PLACE.unpack_from(self._places, start + _TIME.size)
                name = server.rstrip(b"\0").decode("ascii", "replace")
                since, number = found.get(name, (now, 0))
                found[name] = min(since, first), number + failures
        return [
            {"server": name, "seconds": round(now - since), "failures": number}
            for name, (since, number) in sorted(found.items(), key=lambda each: each[1])
        ]


class WorkerUnreachable:
    """The places of one worker, for that worker."""

    def __init__(self, places: memoryview) -> None:
        self._places = places
        self._known: dict[str, int] = {}

    def failed(self, server: str) -> None:
        """The server (address and port) could not be reached."""
        place = self._known.get(server)
        now = time.monotonic()
        if place is None:
            place = min(range(PLACES), key=lambda each: float(_TIME.unpack_from(self._places, each * _SIZE)[0]))
            self._known = {name: where for name, where in self._known.items() if where != place}
            self._known[server] = place
            first, failures = now, 0
        else:
            first, failures, _ = _PLACE.unpack_from(self._places, place * _SIZE + _TIME.size)
        _TIME.pack_into(self._places, place * _SIZE, 0.0)
        _PLACE.pack_into(self._places, place * _SIZE + _TIME.size, first, failures + 1, server.encode()[:64])
        _TIME.pack_into(self._places, place * _SIZE, now)

    def reached(self, server: str) -> None:
        """The server was reached."""
        if self._known and (place := self._known.pop(server, None)) is not None:
            _TIME.pack_into(self._places, place * _SIZE, 0.0)

    def forget(self, before: float) -> None:
        """Free the places of servers that failed last before that time."""
        for place in range(PLACES):
            if _TIME.unpack_from(self._places, place * _SIZE)[0] < before:
                _TIME.pack_into(self._places, place * _SIZE, 0.0)
