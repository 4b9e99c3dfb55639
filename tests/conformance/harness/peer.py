"""One side of a connection, as a script wants it: lines, exact bytes, the end, silence."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Self

LIMIT = 20.0
"""Seconds to wait for what a script expects: it is there in milliseconds, or never; the rest is for a busy machine."""


class Peer:
    """One end of a connection: what comes is kept until the script asks for it."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.waiting = b""
        self.ended = False
        self.closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        """Send all; if the peer has closed, the next expectation fails."""
        with suppress(OSError):
            self.socket.sendall(data)

    def line(self) -> bytes:
        """The next line with its line end; what there is of it where the connection ends or nothing more comes."""
        while b"\n" not in self.waiting and self._more():
            pass
        line, newline, self.waiting = self.waiting.partition(b"\n")
        return line + newline

    def exactly(self, size: int) -> bytes:
        """The next bytes; fewer where no more come."""
        while len(self.waiting) < size and self._more():
            pass
        data, self.waiting = self.waiting[:size], self.waiting[size:]
        return data

    def rest(self) -> bytes:
        """Everything until the connection ends."""
        while self._more():
            pass
        data, self.waiting = self.waiting, b""
        return data

    def quiet(self, seconds: float) -> bool:
        """Whether nothing comes for that long."""
        return not self.waiting and not self._more(seconds) and not self.ended

    def close(self, *, abort: bool = False) -> None:
        """Close; `abort` by a reset."""
        if abort:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()
        self.closed = True

    def finish(self) -> None:
        """Say that nothing more will come from here, and go on reading."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def hear(self) -> str:
        """The last line of a whole reply, without its line end; "" at the end of the connection."""
        line = self.line()
        while line[3:4] == b"-":
            line = self.line()
        return line.decode("utf-8", "backslashreplace").rstrip("\r\n")

    def say(self, text: str) -> str:
        """Send a line, or several, and read the reply."""
        self.send(text.encode("utf-8") + b"\r\n")
        return self.hear()

    def _more(self, limit: float = LIMIT) -> bool:
        if self.ended or self.closed:
            return False
        self.socket.settimeout(limit)
        try:
            data = self.socket.recv(65536)
        except TimeoutError:
            return False
        except OSError:
            data = b""
        self.ended = not data
        self.waiting += data
        return bool(data)
