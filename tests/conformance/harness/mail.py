"""A server that takes every message, and a client that sends one: for tests that are not about bytes."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.conformance.harness.peer import Peer

if TYPE_CHECKING:
    from collections.abc import Iterator


FILTER = """\
message=$(mktemp) || exit 1
trap 'rm -f "$message"' EXIT
cat >"$message"
if grep -q 'XJS\\*C4JDBQADN1' "$message"; then
    echo '550 Content Rejected: We do not like spam' >&2
    exit 1
fi
if grep -q '^X-Drop:' "$message"; then
    echo '250 Thank you' >&2
    exit 1
fi
sed "s/^Subject: /&[$SENDER to $RECIPIENTS from $CLIENT at $SERVER] /" "$message"
"""
"""As administrators of 1.10 have them; the subject tells what the environment was."""

MESSAGES = {
    "plain": "Subject: plain\r\n\r\nHello,\r\nhow are you?\r\n",
    "no body": "Subject: no body\r\n\r\n",
    "long header": f"Subject: long\r\nX-Long: {'word ' * 150}\r\n\tfolded\r\n\r\nbody\r\n",
    "umlauts": "Subject: umlauts\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGrüße aus Köln\r\n",
    "dots": "Subject: dots\r\n\r\n..\r\n..hidden\r\nnot. hidden.\r\n",
    "large": "Subject: large\r\n\r\n" + ("A" * 76 + "\r\n") * 8000,
    "spam": "Subject: spam\r\n\r\nXJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE\r\n",
    "dropped": "Subject: drop me\r\nX-Drop: yes\r\n\r\nbody\r\n",
}
"""What a client sends between DATA and the dot, dots doubled. The filter refuses one, and discards another."""


@dataclass
class Taken:
    """A message as the server got it: envelope lines, and the text on the wire with its end of data."""

    envelope: list[bytes] = field(default_factory=list)
    wire: bytes = b""


class Sink:
    """Takes every message of every connection to a listening socket."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._threads: list[threading.Thread] = []
        self.messages: list[Taken] = []

    def run(self) -> None:
        """Until the listening socket is shut down."""
        self._listener.settimeout(None)
        with suppress(OSError):
            while True:
                connection = self._listener.accept()[0]
                thread = threading.Thread(target=self._serve, args=(connection,))
                thread.start()
                self._threads.append(thread)
        for thread in self._threads:
            thread.join()

    def _serve(self, connection: socket.socket) -> None:
        with Peer(connection) as peer:
            peer.send(b"220 mx.example ESMTP\r\n")
            envelope: list[bytes] = []
            while line := peer.line():
                verb = line[:4].upper()
                if verb in {b"MAIL", b"RCPT"}:
                    envelope.append(line)
                elif verb == b"DATA":
                    peer.send(b"354 Go ahead\r\n")
                    if wire := _text(peer):
                        self.messages.append(Taken(envelope, wire))
                        envelope = []
                elif verb == b"RSET":
                    envelope = []
                peer.send(b"221 Bye\r\n" if verb == b"QUIT" else b"250 Ok\r\n")


def _text(peer: Peer) -> bytes:
    """A message with its end of data; b"" where the connection ends before it."""
    wire = b""
    while line := peer.line():
        wire += line
        if line == b".\r\n":
            return wire
    return b""


@contextmanager
def sink(listener: socket.socket) -> Iterator[Sink]:
    """A server on that socket, for the length of a with block."""
    server = Sink(listener)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def deliver(client: Peer, text: str = "Subject: test\r\n\r\nbody\r\n") -> str:
    """Send one message: the answer to its end, or to what was refused before."""
    with client:
        if not (answer := client.hear()).startswith("220 "):
            return answer
        for line in ("EHLO client.example", "MAIL FROM:<sender@client.example>", "RCPT TO:<rcpt@mx.example>"):
            if not (answer := client.say(line)).startswith("250 "):
                return answer
        if not (answer := client.say("DATA")).startswith("354 "):
            return answer
        answer = client.say(text + ".")
        client.say("QUIT")
        return answer
