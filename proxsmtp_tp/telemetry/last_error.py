"""The last line of the log that was an error, of any process of the daemon, for `status`.

One place in memory that all processes share, made by the master before the first fork. A process that logs an error
writes it there without a lock; a checksum shows whether two of them wrote at the same time.
"""

from __future__ import annotations

import logging
import mmap
import struct
import time
import zlib
from typing import Any

_HEAD = struct.Struct("=IdH")  # CRC-32 of the text, seconds since the epoch, length
_SIZE = 512

TEXT_MAX = _SIZE - _HEAD.size
"""Octets that are kept: the journal has the whole line."""


class LastError:
    """The place. `handler` writes to it."""

    def __init__(self) -> None:
        self._memory = memoryview(mmap.mmap(-1, _SIZE))

    def write(self, text: str, now: float) -> None:
        """An error was logged; `now` in seconds since the epoch."""
        data = text.encode("utf-8", "backslashreplace")[:TEXT_MAX]
        self._memory[: _HEAD.size + len(data)] = _HEAD.pack(zlib.crc32(data), now, len(data)) + data

    def report(self) -> dict[str, Any] | None:
        """`time` (seconds since the epoch) and `text`; None: there was none."""
        check, at, length = _HEAD.unpack_from(self._memory)
        data = bytes(self._memory[_HEAD.size : _HEAD.size + length])
        if not at or zlib.crc32(data) != check:
            return None
        return {"time": round(at), "text": data.decode("utf-8", "replace")}


class LastErrorHandler(logging.Handler):
    """Keeps the last line of level ERROR or above."""

    def __init__(self, last: LastError) -> None:
        super().__init__(logging.ERROR)
        self._last = last

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line. Nothing here fails: a record without a valid text is reported by the other handlers."""
        try:
            self._last.write(record.getMessage(), time.time())
        except (TypeError, ValueError):
            return
