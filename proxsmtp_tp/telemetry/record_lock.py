"""A lock between processes that the kernel releases when its process ends: a POSIX record lock on a memory file."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from proxsmtp_tp.telemetry.descriptor import Descriptor

if TYPE_CHECKING:
    from types import TracebackType


class RecordLock:
    """Made before fork; each process may then use it (fcntl(2)). Not for threads of one process."""

    def __init__(self) -> None:
        self._file = os.memfd_create("lock")
        self._owned = Descriptor(self._file)

    def __enter__(self) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_EX)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN)
