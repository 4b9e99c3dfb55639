"""A lock between processes that the kernel releases when its process ends: a POSIX record lock on a memory file."""

from __future__ import annotations

import fcntl
import os
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType


class RecordLock:
    """Made before fork; each process may then use it (fcntl(2)). Not for threads of one process."""

    def __init__(self) -> None:
        self._file = os.memfd_create("lock")
        weakref.finalize(self, os.close, self._file)

    def __enter__(self) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_EX)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN)
