"""The messages that filters kept last, and when a message passed last: for `status` and `doctor`, in shared memory.

Made by the master before the first fork. A worker writes only its own row, without a lock: first the number 0, then the
entry, then its number. A reader that finds another number after the entry than before it drops the entry: it was
changed in the meantime. The row of a dead worker keeps its entries until the next worker of that row replaces them.

Times are seconds of CLOCK_MONOTONIC, which all processes of a host share.
"""

from __future__ import annotations

import mmap
import struct
import time
from operator import itemgetter
from typing import Any

ENTRIES = 8
"""For each worker: a probe reads its own entry within a second, and the last few failures name a cause."""
TEXT_MAX = 400
"""Octets of the reason: the longest last line of a filter that makes a reply (512 octets) is of use only in part."""

_PASSED = struct.Struct("=dQ")  # when a message passed last (0: none has), how many entries were written
_NUMBER = struct.Struct("=Q")
_ENTRY = struct.Struct(f"=d?46sH{TEXT_MAX}s")  # when, own code, client (INET6_ADDRSTRLEN), octets of the text, the text
_ENTRY_SIZE = _NUMBER.size + _ENTRY.size
_ROW_SIZE = _PASSED.size + ENTRIES * _ENTRY_SIZE


class RecentVerdicts:
    """One row for each worker."""

    def __init__(self, workers: int) -> None:
        view = memoryview(mmap.mmap(-1, workers * (1 + _ROW_SIZE)))
        self._used, self._rows = view[:workers], view[workers:]  # a page that nobody reads takes no memory

    def passed(self, worker: int) -> None:
        """A filter passed a message. Only that worker may call this."""
        start = self._start(worker)
        _, written = _PASSED.unpack_from(self._rows, start)
        _PASSED.pack_into(self._rows, start, time.monotonic(), written)

    def kept(self, worker: int, client: str, reason: str, *, coded: bool) -> None:
        """A filter did not pass a message of this client. `coded`: with an SMTP code of its own; otherwise it failed.

        Only that worker may call this.
        """
        start = self._start(worker)
        when, written = _PASSED.unpack_from(self._rows, start)
        place = start + _PASSED.size + written % ENTRIES * _ENTRY_SIZE
        text = reason.encode("utf-8", "backslashreplace")[:TEXT_MAX]
        _NUMBER.pack_into(self._rows, place, 0)
        entry = (time.monotonic(), coded, client.encode("ascii", "replace"), len(text), text)
        _ENTRY.pack_into(self._rows, place + _NUMBER.size, *entry)
        _NUMBER.pack_into(self._rows, place, written + 1)
        _PASSED.pack_into(self._rows, start, when, written + 1)

    def report(self) -> dict[str, Any]:
        """Of all workers: `passed`, seconds since a message passed (None: none has), and `kept`, newest first.

        Each of `kept` has `seconds` (ago), `client`, `coded` and `reason`.
        """
        now = time.monotonic()
        starts = [worker * _ROW_SIZE for worker, used in enumerate(self._used) if used]
        passed = max((_PASSED.unpack_from(self._rows, start)[0] for start in starts), default=0.0)
        places = (p for start in starts for p in range(start + _PASSED.size, start + _ROW_SIZE, _ENTRY_SIZE))
        found = [entry for place in places if (entry := self._entry(place, now)) is not None]
        newest = sorted(found, key=itemgetter(0, 1), reverse=True)[:ENTRIES]
        return {"passed": round(now - passed, 3) if passed else None, "kept": [entry for *_, entry in newest]}

    def _start(self, worker: int) -> int:
        self._used[worker] = 1
        return worker * _ROW_SIZE

    def _entry(self, place: int, now: float) -> tuple[float, int, dict[str, Any]] | None:
        """When it was written, its number, and what `report` shows."""
        (before,) = _NUMBER.unpack_from(self._rows, place)
        when, coded, client, size, text = _ENTRY.unpack_from(self._rows, place + _NUMBER.size)
        if not before or (before,) != _NUMBER.unpack_from(self._rows, place):
            return None
        shown = {
            "seconds": round(now - when, 3),
            "client": client.rstrip(b"\0").decode("ascii", "replace"),
            "coded": coded,
            "reason": text[:size].decode("utf-8", "replace"),
        }
        return when, before, shown
