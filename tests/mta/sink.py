"""A server that accepts everything and stores the envelope of each message, byte for byte."""

from __future__ import annotations

import socketserver
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from proxsmtp_tp.lab.network import Host

MARK = b"x-form:"
"""The header by which a message is found again."""

OFFERED = b"250-sink.example\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-SIZE\r\n250 PIPELINING\r\n"
_FIXED = {b"DATA": b"354 go\r\n", b"QUIT": b"221 bye\r\n", b"EHLO": OFFERED}


@dataclass
class Arrived:
    """One message: the arguments of MAIL and RCPT as they came, and the text."""

    sender: bytes
    recipients: list[bytes] = field(default_factory=list)
    text: bytes = b""

    @property
    def mark(self) -> bytes:
        """The value of its X-Form, or b""."""
        for line in self.text.split(b"\n"):
            if line.lower().startswith(MARK):
                return line[len(MARK) :].strip()
        return b""


class _Session(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(b"220 sink.example ESMTP\r\n")
        message = Arrived(b"")
        for line in cast("BinaryIO", self.rfile):
            verb = line[:4].upper()
            if verb == b"MAIL":
                message = Arrived(line[5:].rstrip(b"\r\n"))
            elif verb == b"RCPT":
                message.recipients.append(line[5:].rstrip(b"\r\n"))
            self.wfile.write(_FIXED.get(verb, b"250 ok\r\n"))
            if verb == b"DATA":
                message.text = b"".join(self._text())
                sink = cast("Sink", self.server)
                sink.take(message)
                self.wfile.write(sink.reply(message))
            elif verb == b"QUIT":
                return

    def _text(self) -> Iterator[bytes]:
        for line in cast("BinaryIO", self.rfile):
            if line == b".\r\n":
                return
            yield line


class Sink(socketserver.ThreadingTCPServer):
    """Listens on 127.0.0.1 and a port that the kernel chooses (`port`), or where it is told, until `stop`.

    `reply` makes what it says to a message that it took.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, host: Host | None = None, address: str = "127.0.0.1", port: int = 0,
        reply: Callable[[Arrived], bytes] = lambda _: b"250 taken\r\n",
    ) -> None:  # fmt: skip
        super().__init__((address, port), _Session, bind_and_activate=host is None)
        if host is not None:
            self.socket.close()
            self.socket = host.listen(address, port)
        self.reply = reply
        self.port = int(self.socket.getsockname()[1])
        self.arrived: dict[bytes, Arrived] = {}
        self.all: list[Arrived] = []
        """Every message, in the order in which they came; also bounces, and what came twice."""
        self._changed = threading.Condition()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def take(self, message: Arrived) -> None:
        """A whole message; bounces have no mark, and are ignored."""
        with self._changed:
            self.all.append(message)
            if message.mark and message.mark not in self.arrived:
                self.arrived[message.mark] = message
                self._changed.notify_all()

    def wait(self, marks: set[bytes], seconds: float) -> set[bytes]:
        """Until messages with all these marks are here; those that are not."""
        end = time.monotonic() + seconds
        with self._changed:
            while missing := marks - self.arrived.keys():
                if not self._changed.wait(max(end - time.monotonic(), 0)):
                    break
            return missing

    def stop(self) -> None:
        """Take no more connections."""
        self.shutdown()
        self.server_close()


@contextmanager
def serving(sink: Sink) -> Iterator[Sink]:
    """Stop it at the end."""
    try:
        yield sink
    finally:
        sink.stop()
