"""The unix sockets of the master for commands on this host, and how a command reads the answer.

The file of a socket is made with its final mode. The master never waits for a client.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECONDS = 5.0
"""Seconds for request and answer. The master answers between two of its own steps, which are short."""
_PAUSE = 0.05  # seconds between two tries to connect


class UnixListener:
    """A socket of the master; closed until `listen`."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._path: Path | None = None

    def replace(self, path: Path, mode: int, waiting: int) -> None:
        """As `listen`, and first remove the socket of a killed daemon with our name."""
        path.unlink(missing_ok=True)
        self.listen(path, mode, waiting)

    def listen(self, path: Path, mode: int, waiting: int) -> None:
        """Listen at `path`, where no file is, with `waiting` clients in the queue. Raises OSError."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.setblocking(False)
            os.fchmod(listener.fileno(), mode)  # the file that bind makes gets this mode, without the bits of the umask
            before = os.umask(0o777 & ~mode)
            try:
                listener.bind(str(path))
            finally:
                os.umask(before)
            listener.listen(waiting)
        except OSError:
            listener.close()
            raise
        self._socket, self._path = listener, path

    def fileno(self) -> int | None:
        """To wait on; None while it is closed."""
        return self._socket.fileno() if self._socket is not None else None

    def accept(self) -> socket.socket | None:
        """The next client, as a socket that does not block; None: nobody waits."""
        if self._socket is None:
            return None
        try:
            client, _ = self._socket.accept()
        except OSError:
            return None
        client.setblocking(False)
        return client

    def answer_next(self, make: Callable[[], bytes]) -> bool:
        """Send the next client what `make` returns, as far as its socket takes it at once. False: nobody waits."""
        client = self.accept()
        if client is None:
            return False
        with client, suppress(OSError):
            client.send(make())
        return True

    def close(self, remove: bool = False) -> None:
        """Close; `remove` is for the master at its end. Idempotent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            if remove and self._path is not None:
                with suppress(OSError):  # the folder is gone, and the file with it
                    self._path.unlink()


def read_answer(path: Path, request: bytes = b"", most: float = float("inf"), seconds: float = SECONDS) -> bytes:
    """Connect, send the request, and read until the daemon closes the connection: in `seconds`, no more than `most`.

    More octets than `most` are an error, as is a daemon that does not answer: OSError.
    """
    end = time.monotonic() + seconds
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(seconds)
        _connect(client, path, end)
        if request:
            client.sendall(request)
        data = bytearray()
        while more := client.recv(1 << 16):
            data += more
            if len(data) > most:
                raise ConnectionError("the answer is too long")
            client.settimeout(max(0.001, end - time.monotonic()))
    return bytes(data)


def _connect(client: socket.socket, path: Path, end: float) -> None:
    """Connect. If the queue of the socket is full, connect(2) fails at once for a client with a timeout: try again."""
    while True:
        try:
            client.connect(str(path))
        except BlockingIOError:
            if time.monotonic() >= end:
                raise TimeoutError("the daemon is busy with other clients") from None
            time.sleep(_PAUSE)
        else:
            return
