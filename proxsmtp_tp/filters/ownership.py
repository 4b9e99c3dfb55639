"""Which message files in TempDirectory belong to a running worker. A starting worker removes those of killed workers.

Each worker has a random number, which is part of the names of its files (proxsmtpd.NUMBER.xxxxxxxx), and a lock on the
byte with that number in the directory itself (fcntl(2), open file description locks). The kernel releases the lock when
the process ends, and every process on this machine can see the lock, also from another container or PID namespace.
Unlike process ids, the numbers are not reused. So a file whose number is not locked has no owner.

Only regular files of our own user with such a name are removed. Files of other running instances, of proxsmtpd 1.10 and
of scripts are kept. If the file system has no such locks, the names have no number, and nothing is removed.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import secrets
import stat
import struct
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

_PREFIX = "proxsmtpd."
"""The prefix that proxsmtpd 1.10 uses: administrators have it in their tmpreaper rules."""
_NAME = re.compile(r"proxsmtpd\.([0-9a-f]{16})\.[a-z0-9_]{8}")
_NUMBER_BITS = 62
"""The number is the offset of a byte, so it must be a positive off_t."""

_FLOCK = "hhqqi"
"""struct flock (fcntl(2)): l_type, l_whence, l_start, l_len, l_pid (0 for these locks)."""


class Ownership:
    """The mark by which the files of one worker in `directory` are known as its own."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._descriptor: int | None = None
        self._prefix = _PREFIX

    def prefix(self) -> str:
        """The prefix for the name of a new file. Such a file is not removed before `close`, or the end of this
        process.
        """
        try:
            if not self._stands():
                self._make()
        except OSError:  # no directory (then no file can be made either), or one without locks
            self.close()
        return self._prefix

    def close(self) -> None:
        """Release the lock: there are no such files any more. Idempotent."""
        descriptor, self._descriptor = self._descriptor, None
        self._prefix = _PREFIX
        if descriptor is not None:
            os.close(descriptor)

    def _stands(self) -> bool:
        """Whether the lock is on the directory that has the name now: an administrator may have replaced it."""
        if self._descriptor is None:
            return False
        return os.path.samestat(Path(self._directory).stat(), os.fstat(self._descriptor))

    def _make(self) -> None:
        self.close()
        number = secrets.randbits(_NUMBER_BITS)
        self._descriptor = _open(self._directory)
        fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _lock(fcntl.F_RDLCK, number))
        self._prefix = f"{_PREFIX}{number:016x}."


def remove_abandoned(directory: str) -> int:
    """Remove the message files of workers that do not run any more; return how many. Errors of the directory are
    ignored.
    """
    removed = 0
    with suppress(OSError):
        descriptor = _open(directory)
        try:
            names = [match for match in map(_NAME.fullmatch, os.listdir(descriptor)) if match]  # noqa: PTH208  (its names)
            owned = {number: _is_owned(descriptor, int(number, 16)) for number in {name[1] for name in names}}
            for name in names:
                removed += not owned[name[1]] and _remove(descriptor, name[0])
        finally:
            os.close(descriptor)
    if removed:
        log.info("removed from %s: %d message files that a killed worker left behind", directory, removed)
    return removed


def _is_owned(directory: int, number: int) -> bool:
    """Whether a process holds the lock. Raises OSError if there are no such locks."""
    answer = fcntl.fcntl(directory, fcntl.F_OFD_GETLK, _lock(fcntl.F_WRLCK, number))
    return bool(struct.unpack_from(_FLOCK, answer)[0] != fcntl.F_UNLCK)


def _remove(directory: int, name: str) -> bool:
    with suppress(OSError):
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
            os.unlink(name, dir_fd=directory)
            return True
    return False


def _open(directory: str) -> int:
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _lock(kind: int, number: int) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, number, 1, 0)
