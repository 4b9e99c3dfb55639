"""The last failures of filters, and when one last worked: for `status` and `doctor`, in shared memory.

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
"""Entries of each worker: a probe reads its own entry within a second, and the last few failures show a cause."""
TEXT_MAX = 400
"""Octets of the reason: the longest last line of a filter that makes a reply (512 octets) is of use only in part."""

_LAST = struct.Struct("=dQ")  # when it worked last (0: never), how many entries were written
_NUMBER = struct.Struct("=Q")
_ENTRY = struct.Struct(f"=d?64sH{TEXT_MAX}s")  # when, own code, peer, octets of the text, the text
_ENTRY_SIZE = _NUMBER.size + _ENTRY.size
_ROW_SIZE = _LAST.size + ENTRIES * _ENTRY_SIZE


class RecentFailures:
    """One row for each worker."""

    def __init__(self, workers: int) -> None:
        view = memoryview(mmap.mmap(-1, workers * (1 + _ROW_SIZE)))
        self._used, self._rows = view[:workers], view[workers:]  # a page that nobody reads takes no memory

    def worked(self, worker: int) -> None:
        """It worked. Only that worker may call this."""
        start = self._start(worker)
        _, written = _LAST.unpack_from(self._rows, start)
        _LAST.pack_into(self._rows, start, time.monotonic(), written)

    def failed(self, worker: int, peer: str, reason: str, *, coded: bool = False) -> None:
        """It failed. `peer`: for which client, or to which server. `coded`: a filter refused, with its own SMTP code.

        Only that worker may call this.
        """
        start = self._start(worker)
        when, written = _LAST.unpack_from(self._rows, start)
        place = start + _LAST.size + written % ENTRIES * _ENTRY_SIZE
        text = reason.encode("utf-8", "backslashreplace")[:TEXT_MAX]
        _NUMBER.pack_into(self._rows, place, 0)
        entry = (time.monotonic(), coded, peer.encode("ascii", "replace"), len(text), text)
        _ENTRY.pack_into(self._rows, place + _NUMBER.size, *entry)
        _NUMBER.pack_into(self._rows, place, written + 1)
        _LAST.pack_into(self._rows, start, when, written + 1)

    def report(self) -> dict[str, Any]:
        """Of all workers: `worked`, seconds since it worked (None: never), and `failed`, newest first.

        Each of `failed` has `seconds` (ago), `peer`, `coded` and `reason`.
        """
        now = time.monotonic()
        starts = [worker * _ROW_SIZE for worker, used in enumerate(self._used) if used]
        worked = max((_LAST.unpack_from(self._rows, start)[0] for start in starts), default=0.0)
        places = (p for start in starts for p in range(start + _LAST.size, start + _ROW_SIZE, _ENTRY_SIZE))
        found = [entry for place in places if (entry := self._entry(place, now)) is not None]
        newest = sorted(found, key=itemgetter(0, 1), reverse=True)[:ENTRIES]
        return {"worked": round(now - worked, 3) if worked else None, "failed": [entry for *_, entry in newest]}

    def _start(self, worker: int) -> int:
        self._used[worker] = 1
        return worker * _ROW_SIZE

    def _entry(self, place: int, now: float) -> tuple[float, int, dict[str, Any]] | None:
        """When it was written, its number, and what `report` shows."""
        (before,) = _NUMBER.unpack_from(self._rows, place)
        when, coded, peer, size, text = _ENTRY.unpack_from(self._rows, place + _NUMBER.size)
        if not before or (before,) != _NUMBER.unpack_from(self._rows, place):
            return None
        shown = {
            "seconds": round(now - when, 3),
            "peer": peer.rstrip(b"\0").decode("ascii", "replace"),
            "coded": coded,
            "reason": text[:size].decode("utf-8", "replace"),
        }
        return when, before, shown
