"""The file that names the running daemon (proxsmtpd(8), -p).

Opened while the rights to do so are there, written when the daemon is ready, removed at its end. Locked
(fcntl(2)) as long as the daemon lives: a lock cannot be stale, so a file that a killed daemon left is taken
over and a live daemon's never is.
"""

from __future__ import annotations

import fcntl
import logging
import os
import stat
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)


class PidFileError(Exception):
    """Another daemon lives in this file."""


class PidFile:
    """An empty path, or a file that cannot be had: nothing is written. 1.10 runs without it, too."""

    def __init__(self, path: str | None) -> None:
        """Open and lock. Raises PidFileError where a live daemon has the file."""
        self._path = Path(path).absolute() if path else None
        self._file: int | None = None
        if self._path is None:
            return
        try:
            # As root in a folder of somebody else: follow no link, and touch no file that has another name.
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        except OSError as error:
            log.error("couldn't open pid file: %s: %s", self._path, error.strerror)  # noqa: TRY400  (no traceback: one line)
            return
        self._file = file
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            log.error("couldn't open pid file: %s: it is no plain file", self._path)
            self.close()
            return
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(file, 20, 0).decode("ascii", "replace").strip()
            self.close()
            raise PidFileError(
                f"pid file {self._path}: the daemon {holder} runs with it: stop that one first"
            ) from None

    def write(self) -> None:
        """The process that calls is the daemon."""
        if self._file is None:
            return
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)
        log.debug("wrote pid file: %s", self._path)

    def remove(self) -> None:
        """The daemon ends. Where the folder is not ours any more, the file is left empty. Idempotent."""
        if self._file is None or self._path is None:
            return
        with suppress(OSError):
            os.ftruncate(self._file, 0)
            if os.path.samestat(self._path.stat(follow_symlinks=False), os.fstat(self._file)):
                self._path.unlink()
        log.debug("removed pid file: %s", self._path)
        self.close()

    def close(self) -> None:
        """A worker has no use for it; the lock is the master's and stays."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
