"""Storage for the bytes of a message.

`Spool` stores what a client or a filter writes: first in memory, then in a file in TempDirectory that has no name
(O_TMPFILE, or mkstemp and unlink), so that nothing is left if the process is killed. `MessageFile` is the file that
EMAIL names: mode 0600, an unpredictable name, removed on close; if the process is killed before that, see
`ownership`. A command may replace the file by rename, so it is opened again by name. It must then be a regular
file: a symbolic link could reveal a file that only the daemon may read (open(2), O_NOFOLLOW), and a FIFO would
block.

Both raise OSError for a full disk or an unusable directory; the caller makes a verdict of it. Reading gives exactly
`size` octets or raises OSError: a message that became shorter must not be sent as if it were complete.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from proxsmtp_tp.filters.ownership import Ownership
    from proxsmtp_tp.filters.spool_space import SpoolSpace

MEMORY_LIMIT = 256 * 1024
"""Octets of one message that are kept in memory: most mail is smaller, and 64 messages of this size are 16 MiB."""


class _Reading:
    """The common part for reading: exactly `size` octets of an open file."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self.size = 0
        self._left = 0

    @property
    def left(self) -> int:
        """Octets that have not been read yet."""
        return self._left

    def read(self, size: int) -> bytes:
        """The next octets, at most `size`; b"" at the end. OSError if the file has become shorter."""
        if self._file is None or not self._left:
            return b""
        data = self._file.read(min(size, self._left))
        if not data:
            raise OSError(errno.EIO, "the message became shorter after it was judged")
        self._left -= len(data)
        return data

    def at(self, start: int, size: int) -> bytes:
        """The octets from `start` on, fewer only at the end. Call it only when the text can be read. What `read` gives
        next stays the same. OSError if the file has become shorter.
        """
        size = max(0, min(size, self.size - start))
        data = os.pread(self._file.fileno(), size, start) if self._file is not None else b""
        if len(data) < size:
            raise OSError(errno.EIO, "the message became shorter after it was judged")
        return data

    def close(self) -> None:
        """Free memory, descriptor and file. Idempotent."""
        file, self._file = self._file, None
        self._left = 0
        if file is not None:
            with suppress(OSError):  # the disk is full, but the data is not needed any more
                file.close()


class Spool(_Reading):
    """Stores octets in the order of writing. `size` counts them; after each `complete` they can be read once."""

    def __init__(self, space: SpoolSpace) -> None:
        super().__init__()
        self._space = space
        self._taken = 0
        self._memory = bytearray()

    def write(self, data: bytes) -> None:
        """Append. Raises OSError if the disk is full or the directory unusable, SpoolFullError at a limit."""
        space, octets = self._space, len(data)
        in_memory = self._file is None and self.size + octets <= MEMORY_LIMIT and space.has_memory(octets)
        if in_memory:
            space.take(octets)
        else:
            space.take_on_disk(octets)
        self._taken += octets
        if in_memory:
            space.memory += octets
            self._memory += data
        else:
            self._on_disk().write(data)
        self.size += octets

    def _on_disk(self) -> IO[bytes]:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._space.directory)  # noqa: SIM115  (closed by close)
            self._file.write(self._memory)
            self._forget_memory()
        return self._file

    def _forget_memory(self) -> None:
        self._space.memory -= len(self._memory)
        self._memory = bytearray()

    def complete(self) -> None:
        """Writing is complete: read from the beginning. Raises OSError if the last octets cannot be written."""
        if self._file is not None:
            self._file.seek(0)
        self._left = self.size

    def read(self, size: int) -> bytes:
        """The next octets, at most `size`; b"" at the end. OSError if the file has become shorter."""
        if not self._memory:
            return super().read(size)
        start = self.size - self._left
        data = bytes(memoryview(self._memory)[start : start + min(size, self._left)])
        self._left -= len(data)
        return data

    def at(self, start: int, size: int) -> bytes:
        """As that of a file, also from memory."""
        if self._file is not None:
            return super().at(start, size)
        return bytes(memoryview(self._memory)[start : start + size])

    def close(self) -> None:
        """Free memory and file. Idempotent."""
        super().close()
        self._forget_memory()
        taken, self._taken = self._taken, 0
        self._space.give_back(taken)


class MessageFile(_Reading):
    """A file with a name, made when first needed. `size` counts written octets; after `reopen` it is the file's
    size.
    """

    def __init__(self, space: SpoolSpace, ownership: Ownership) -> None:
        super().__init__()
        self._space = space
        self._taken = 0
        self.name = ""
        """Its path, after the first `write` or `complete`."""
        self._ownership = ownership
        self._path: Path | None = None

    def write(self, data: bytes) -> None:
        """Append. Raises OSError if the disk is full or the directory unusable, SpoolFullError at a limit."""
        self._space.take_on_disk(len(data))
        self._taken += len(data)
        self._make().write(data)
        self.size += len(data)

    def complete(self) -> None:
        """Writing is complete: the name may be used. Raises OSError if the last octets cannot be written."""
        file, self._file = self._make(), None
        file.close()

    def _make(self) -> IO[bytes]:
        if self._file is None:
            descriptor, self.name = tempfile.mkstemp(prefix=self._ownership.prefix(), dir=self._space.directory)
            self._path = Path(self.name)
            self._file = os.fdopen(descriptor, "wb")
        return self._file

    def reopen(self) -> None:
        """Open the file that has the name now, and remove the name. Raises OSError if it is no regular file."""
        descriptor = os.open(self.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "not a regular file", self.name)
        self._file = os.fdopen(descriptor, "rb")
        self.size = self._left = status.st_size
        self._space.give_back(self._taken - self.size)
        self._taken = self.size
        self._unlink()

    def close(self) -> None:
        """Free the descriptor, and remove the file. Idempotent."""
        super().close()
        self._unlink()
        taken, self._taken = self._taken, 0
        self._space.give_back(taken)

    def _unlink(self) -> None:
        path, self._path = self._path, None
        if path is not None:
            with suppress(OSError):  # the command has removed it, or replaced it with a directory
                path.unlink()
