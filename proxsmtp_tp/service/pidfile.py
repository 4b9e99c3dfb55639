"""The file that names the running daemon (proxsmtpd(8), -p).

It is locked (fcntl(2)) while the daemon runs. The kernel releases the lock when the process ends, so the file of a
killed daemon is replaced, and the file of a running daemon never. A write lock means that the daemon runs; a read lock
means that it was told to stop and finishes its transactions. The next daemon waits only for a daemon with a read lock.

The file is never seen incomplete: it is written under another name, then linked or renamed. This happens when the
daemon is ready; or before privileges are dropped, if User may make no file in the folder. If the file of a killed
daemon is reused, its mode and owner stay.
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
"""Seconds that a daemon may take from the signal to the read lock, because it may be reloading. `kill` does not
wait."""
_POLL = 0.05
_MODE = 0o644


class PidFileError(Exception):
    """Another daemon uses this file."""


class PidFile:
    """The pid file of this process. Without a path, or if the file cannot be used, nothing is written, as in 1.10."""

    def __init__(self, path: str | None, told_to_stop: float = TOLD_TO_STOP) -> None:
        """Lock the file if it exists. Raises PidFileError if a daemon uses it that was not told to stop.

        If a daemon uses it that is stopping, call `wait` before anything is written.
        """
        self._path = Path(path).absolute() if path else None
        self._file: int | None = None
        """The open file: ours since `write`, before that one of a dead daemon."""
        self._written = False
        self._holder = ""
        """The process id of a daemon that uses the file and is stopping."""
        end = time.monotonic() + told_to_stop
        while not self._lock():
            if self._is_stopping():
                return
            if time.monotonic() >= end:
                self._give_up("runs with it: stop that one first")
            time.sleep(_POLL)

    @property
    def holder(self) -> str:
        """The process id of a stopping daemon for which `wait` waits; empty: there is none."""
        return self._holder

    def wait(self, seconds: float) -> None:
        """Wait until that daemon has ended. Raises PidFileError if it has not ended within this time."""
        end = time.monotonic() + seconds
        while self._holder and not self._lock():
            if time.monotonic() >= end:
                self._give_up("was told to stop and still runs: try again, or `kill -9` it")
            time.sleep(_POLL)
        self._holder = ""

    def user_may_write(self, uid: int, gid: int) -> bool:
        """Whether this user may make files in the folder, by its owner and mode."""
        if self._path is None:
            return True
        with suppress(OSError):
            folder = self._path.parent.stat()
            shift = 6 if uid == folder.st_uid else 3 if gid == folder.st_gid else 0
            return folder.st_mode >> shift & 3 == 3
        return True  # no folder, no file

    def write(self) -> None:
        """Write the id of the calling process. The second call does nothing. Raises PidFileError."""
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
        """The daemon ends. If we may no longer remove a file in the folder, it is made empty. Idempotent."""
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
        """Lock the file. True: we have it, or there is none. False: a running daemon has it."""
        self.close()
        while self._path is not None:
            try:
                # As root in the folder of another user: follow no link, and change no file that has another name.
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
        fcntl.lockf(self._file, fcntl.LOCK_UN)  # otherwise two waiting daemons would block each other's write lock
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
        """Link or rename the new file to `path`. False: another file has appeared there."""
        old, new = self._file, path.with_name(f".{path.name}.{os.getpid()}")
        with suppress(FileNotFoundError):
            new.unlink()  # left by an earlier process with our id
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
