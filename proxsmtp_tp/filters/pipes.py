"""Pipes between us and a child."""

from __future__ import annotations

import fcntl
import os

READ_SIZE = 64 * 1024
"""Octets read at once: the capacity of a pipe (pipe(7)). Larger pipes and reads were measured and are not faster."""


class Pipes:
    """The pipes of a child that is to be started, before it owns them: our ends, which do not block, and its ends.

    Raises OSError if the system has no more descriptors; then none is left open.
    """

    def __init__(self, *, piped: bool) -> None:
        self.ours: list[int] = []
        """Standard input and output if `piped`, then standard error."""
        self.theirs: list[int] = []
        try:
            if piped:
                self._add(write=True)
                self._add(write=False)
            self._add(write=False)
        except OSError:
            self.close()
            raise

    def _add(self, *, write: bool) -> None:
        reading, writing = _pipe()
        ours, theirs = (writing, reading) if write else (reading, writing)
        self.ours.append(ours)
        self.theirs.append(theirs)
        os.set_blocking(ours, False)

    def close_theirs(self) -> None:
        """The child has them. Idempotent."""
        for descriptor in self.theirs:
            os.close(descriptor)
        self.theirs.clear()

    def close(self) -> None:
        """Close all."""
        for descriptor in self.ours:
            os.close(descriptor)
        self.ours.clear()
        self.close_theirs()


def _pipe() -> tuple[int, int]:
    """A pipe with no end among 0, 1 and 2, also if the daemon was started with one of those closed."""
    reading, writing = os.pipe()
    if reading > 2 and writing > 2:
        return reading, writing
    ends = []
    for end in (reading, writing):
        if end > 2:
            ends.append(end)
        else:
            ends.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3))
            os.close(end)
    return ends[0], ends[1]


def read(descriptor: int) -> bytes | None:
    """What can be read now: b"" at the end, None if there is nothing now."""
    try:
        return os.read(descriptor, READ_SIZE)
    except BlockingIOError:
        return None
