"""The file that names the running daemon (proxsmtpd(8), -p).

It is locked (fcntl(2)) while the daemon runs. A lock cannot be stale: a file of a killed daemon is replaced, a file
of a running daemon never. A write lock means that the daemon runs; a read lock means that it was told to stop and
finishes its transactions. The next daemon waits only for a daemon with a read lock.

The file appears whole: it is written under another name, then linked or renamed into its place. That is when the
daemon is ready, or before the rights are dropped where User may make no file in the folder. Its mode and owner stay
when it is taken over.
"""

from __future__ import annotations

import fcntl
import logging
import os
import stat
import time
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

TOLD_TO_STOP = 3.0
"""Seconds from the signal, which `kill` does not wait for, to the read lock: it may be reading its file anew."""
_POLL = 0.05
_MODE = 0o644


class PidFileError(Exception):
    """Another daemon uses this file."""


class PidFile:
    """An empty path, or a file that cannot be had: nothing is written. 1.10 runs without it, too."""

    def __init__(self, path: str | None, told_to_stop: float = TOLD_TO_STOP) -> None:
        """Lock the file if it is there. Raises PidFileError where a daemon has it that does not stop.

        Where one has it that does, `wait` must be called before anything is written.
        """
        self._path = Path(path).absolute() if path else None
        self._file: int | None = None
        """The file in its place: ours since `write`, before that a dead daemon's."""
        self._written = False
        self._holder = ""
        """The process that has the file and stops."""
        end = time.monotonic() + told_to_stop
        while not self._lock():
            if self._is_stopping():
                return
            if time.monotonic() >= end:
                self._give_up("runs with it: stop that one first")
            time.sleep(_POLL)

    @property
    def holder(self) -> str:
        """The process id of a daemon that stops and is waited for; empty: there is none."""
        return self._holder

    def wait(self, seconds: float) -> None:
        """Until that daemon has ended. Raises PidFileError when it has not within this time."""
        end = time.monotonic() + seconds
        while self._holder and not self._lock():
            if time.monotonic() >= end:
                self._give_up("was told to stop and still runs: try again, or `kill -9` it")
            time.sleep(_POLL)
        self._holder = ""

    def user_may_write(self, uid: int, gid: int) -> bool:
        """Whether this user may make files in the folder, as far as its owner and mode tell."""
        if self._path is None:
            return True
        with suppress(OSError):
            folder = self._path.parent.stat()
            shift = 6 if uid == folder.st_uid else 3 if gid == folder.st_gid else 0
            return folder.st_mode >> shift & 3 == 3
        return True  # no folder, no file

    def write(self) -> None:
        """The process that calls is the daemon. The second call does nothing. Raises PidFileError."""
        if self._path is None or self._written:
            return
        try:
            while not self._put_in_place(self._path):
                if not self._lock():
                    self._give_up("has taken it in the meantime: give each daemon its own")
        except OSError as error:
            log.error("couldn't open pid file: %s: %s", self._path, error.strerror)  # noqa: TRY400  (no traceback: one line)
            self._path = None
            self.close()
            return
        log.debug("wrote pid file: %s", self._path)

    def stopping(self) -> None:
        """The daemon accepts no more clients: the next daemon may wait for its end."""
        if self._file is not None and self._written:
            with suppress(OSError):
                fcntl.lockf(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def remove(self) -> None:
        """The daemon ends. Where the folder is not ours any more, the file is left empty. Idempotent."""
        if self._file is None or self._path is None or not self._written:
            self.close()
            return
        with suppress(OSError):
            if self._in_place(self._path, self._file):
                try:
                    self._path.unlink()
                except OSError:
                    os.ftruncate(self._file, 0)
        log.debug("removed pid file: %s", self._path)
        self.close()

    def close(self) -> None:
        """Close it in a worker; the lock of the master stays. Idempotent."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _lock(self) -> bool:
        """Lock what is there. True: it is ours, or there is nothing. False: a live daemon has it."""
        self.close()
        while self._path is not None:
            try:
                # As root in a folder of somebody else: follow no link, and touch no file that has another name.
                file = os.open(self._path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                return self._folder_is_there(self._path)
            except OSError as error:
                return self._do_without(error.strerror or str(error))
            self._file = file
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                return self._do_without("it is no plain file")
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            if self._in_place(self._path, file):
                return True
            self.close()  # a daemon that ended has removed it meanwhile
        return True

    def _folder_is_there(self, path: Path) -> bool:
        return True if path.parent.is_dir() else self._do_without(os.strerror(2))

    def _do_without(self, reason: str) -> bool:
        log.error("couldn't open pid file: %s: %s", self._path, reason)
        self.close()
        self._path = None
        return True

    def _is_stopping(self) -> bool:
        """Whether the daemon that uses the file has a read lock (then another read lock is possible)."""
        if self._file is None:
            return False
        try:
            fcntl.lockf(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        fcntl.lockf(self._file, fcntl.LOCK_UN)  # two that wait must not bar each other's write lock
        self._holder = self._content()
        return True

    def _content(self) -> str:
        if self._file is None:
            return ""
        return os.pread(self._file, 20, 0).decode("ascii", "replace").strip() or "of another time"

    def _give_up(self, why: str) -> None:
        holder = self._content()
        self.close()
        raise PidFileError(f"pid file {self._path}: the daemon {holder} {why}") from None

    @staticmethod
    def _in_place(path: Path, file: int) -> bool:
        with suppress(OSError):
            return os.path.samestat(path.stat(follow_symlinks=False), os.fstat(file))
        return False

    def _put_in_place(self, path: Path) -> bool:
        """False: a file has come into its place since we looked."""
        old, new = self._file, path.with_name(f".{path.name}.{os.getpid()}")
        with suppress(FileNotFoundError):
            new.unlink()  # of a process with our id, long ago
        file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
        try:
            if old is not None:
                status = os.fstat(old)
                os.fchmod(file, stat.S_IMODE(status.st_mode))
                with suppress(OSError):
                    os.fchown(file, status.st_uid, status.st_gid)
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(file, f"{os.getpid()}\n".encode())
            if old is not None:
                new.rename(path)
            else:
                path.hardlink_to(new)
                new.unlink()
        except FileExistsError:
            new.unlink()
            os.close(file)
            return False
        except BaseException:
            with suppress(OSError):
                new.unlink()
            os.close(file)
            raise
        self.close()
        self._file, self._written = file, True
        return True
