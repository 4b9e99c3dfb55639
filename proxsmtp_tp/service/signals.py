"""The signals of the master, received as bytes in a socket: they interrupt nothing, and poll(2) returns for them."""

from __future__ import annotations

import signal
import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD)


class SignalSocket:
    """One object in the master; the signals come while `receiving`."""

    def __init__(self) -> None:
        self._out, self._into = socket.socketpair()
        for end in (self._out, self._into):
            end.setblocking(False)

    def fileno(self) -> int:
        """To wait on."""
        return self._out.fileno()

    def read(self) -> bytes:
        """The numbers of the signals since the last call; a signal may be in it more than once."""
        with suppress(BlockingIOError):
            return self._out.recv(4096)
        return b""

    def close(self) -> None:
        """Close both ends, also in a worker. Idempotent."""
        self._out.close()
        self._into.close()

    @contextmanager
    def receiving(self) -> Iterator[None]:
        """Receive signals; afterwards the handlers are as before, and the socket is closed."""
        old = {number: signal.signal(number, _nothing) for number in SIGNALS}
        old_wakeup = signal.set_wakeup_fd(self._into.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(old_wakeup)
            for number, handler in old.items():
                signal.signal(number, handler)
            self.close()


def _nothing(*_: object) -> None:
    """Do nothing: the byte in the socket is enough."""
