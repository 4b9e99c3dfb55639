"""The standard input of a child: what it does not read now is queued."""

from __future__ import annotations

import fcntl
import os
import sys
import termios
from typing import TYPE_CHECKING

from proxsmtp_tp.filters.callbacks import callback

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

_NO_DESCRIPTOR = -1


class ChildInput:
    """The writing end of a pipe, which it closes. `taken` is called when the child has read some, or has closed its
    standard input; `failed` for a bug.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        descriptor: int,
        taken: Callable[[], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._loop = loop
        self._descriptor = descriptor
        self._taken = taken
        self.failed = failed
        """CallbackOwner."""
        self._queue = bytearray()
        self.stalled = False
        """Whether the child does not read the input that waits for it."""
        self._complete = False

    @property
    def queued(self) -> int:
        """Octets that are not in the pipe yet."""
        return len(self._queue)

    @property
    def open(self) -> bool:
        """False after the child has closed its standard input, or has got all of it."""
        return self._descriptor != _NO_DESCRIPTOR

    @property
    def unread(self) -> int:
        """Octets that the child has not read: those that are queued, and those in the pipe (pipe(7))."""
        if self._descriptor == _NO_DESCRIPTOR:
            return 0
        in_pipe = fcntl.ioctl(self._descriptor, termios.FIONREAD, bytes(4))
        return len(self._queue) + int.from_bytes(in_pipe, sys.byteorder)

    def write(self, data: bytes) -> None:
        """Write; after the child closed its standard input, what is written is dropped."""
        if self._descriptor == _NO_DESCRIPTOR:
            return
        if not self.stalled:
            written = self._try_write(data)
            if written == len(data) or not self.open:
                return
            data = data[written:]
            self.stalled = True
            self._loop.add_writer(self._descriptor, self._write_on)
        self._queue += data

    def complete(self) -> None:
        """Send end of file after the queued octets. Idempotent."""
        self._complete = True
        if not self.stalled:
            self.close()

    def _try_write(self, data: bytes | bytearray) -> int:
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:
            return 0
        except OSError:  # EPIPE: the child has closed its standard input
            self.close()
            return 0

    @callback
    def _write_on(self) -> None:
        del self._queue[: self._try_write(self._queue)]
        if not self._queue and self.stalled:
            self.stalled = False
            self._loop.remove_writer(self._descriptor)
            if self._complete:
                self.close()
        self._taken()

    def end(self) -> None:
        """Close it, and make no more calls. Idempotent."""
        self.close()
        self._taken = self.failed = _nothing  # no circle of objects is left for the garbage collector

    def close(self) -> None:
        """End of file now; what is queued is dropped. Idempotent."""
        descriptor, self._descriptor = self._descriptor, _NO_DESCRIPTOR
        if descriptor == _NO_DESCRIPTOR:
            return
        if self.stalled:
            self.stalled = False
            self._loop.remove_writer(descriptor)
        self._queue.clear()
        os.close(descriptor)


def _nothing(*_given: object) -> None:
    """Replaces a method of a child that has ended."""
