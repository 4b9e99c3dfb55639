"""The daemon in the background: the process that was started ends when the daemon is ready, or says why it is not."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress

from proxsmtp_tp.config.reader import printable

log = logging.getLogger(__name__)


class Starter:
    """The process that waits until the daemon is ready, if there is one."""

    def __init__(self, descriptor: int | None) -> None:
        """`descriptor`: the end of a pipe that `wait_for` reads; None: no process waits."""
        self._descriptor = descriptor

    def ready(self) -> None:
        """It may end with exit code 0."""
        self._tell(b"\0")

    def failed(self, text: str) -> None:
        """Log why the daemon cannot start; the waiting process says it too, and ends with 1."""
        log.critical("%s", text)
        self._tell(text.encode("utf-8", "backslashreplace"))

    def close(self) -> None:
        """Idempotent. Without `ready` or `failed` before it, the daemon has ended."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _tell(self, data: bytes) -> None:
        if self._descriptor is not None:
            with suppress(OSError):
                os.write(self._descriptor, data)
        self.close()


def wait_for(child: int, out: int, name: str) -> int:
    """In the process that was started: wait until the daemon `child` has written to the pipe `out` that it is ready, or
    why not. Returns the exit code.
    """
    said = b""
    while more := os.read(out, 4096):
        said += more
    if said == b"\0":
        return 0
    os.waitpid(child, 0)
    print(
        f"{name}: {printable(said.decode('utf-8', 'replace')) or 'the daemon ended while it started'}", file=sys.stderr
    )
    return 1


def detach() -> None:
    """As daemon(3): a session of its own, no terminal, and / as working directory."""
    os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    os.close(null)
