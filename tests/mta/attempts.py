"""Sends one message for each form, to a server or through a proxy, and finds out which envelope arrived."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.mta.sink import Arrived

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.mta.sink import Sink

PLAIN_SENDER = b":<sender@plain.example>"
PLAIN_RECIPIENT = b":<recipient@plain.example>"
"""Used where the server refuses the form, so that the other half of the envelope is still seen."""

CLIENTS = 6
"""Connections at once: enough that a server's waiting costs no time, few enough for a small machine."""


@dataclass
class Attempt:
    """One form: the replies to MAIL and RCPT with it (b"" where the connection ended), and what arrived, if it did."""

    form: bytes
    mail: bytes
    rcpt: bytes
    taken: bytes
    arrived: Arrived | None = None


def try_forms(port: int, forms: Sequence[bytes], sink: Sink, label: str, quiet: float) -> list[Attempt]:
    """Send a message for each form; wait until all that the server took are here, or none came for `quiet` seconds."""
    with ThreadPoolExecutor(CLIENTS) as pool:
        tried = list(pool.map(lambda n: _try(port, forms[n], _mark(label, n)), range(len(forms))))
    marks = {_mark(label, n) for n, one in enumerate(tried) if one.taken[:1] == b"2"}
    missing = marks
    while missing and len(left := sink.wait(missing, quiet)) < len(missing):
        missing = left
    for n, one in enumerate(tried):
        one.arrived = sink.arrived.get(_mark(label, n))
    return tried


def _mark(label: str, number: int) -> bytes:
    return f"{label}-{number}".encode()


def _try(port: int, form: bytes, mark: bytes) -> Attempt:
    tried = Attempt(form, b"", b"", b"")
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 60) as link, link.makefile("rb") as replies:

        def say(line: bytes) -> bytes:
            link.sendall(line + b"\r\n")
            return reply()

        def reply() -> bytes:
            while (line := replies.readline())[3:4] == b"-":
                pass
            return line.rstrip()

        reply()
        say(b"EHLO client.example")
        utf8 = b"" if form.isascii() else b" SMTPUTF8"
        tried.mail = say(b"MAIL FROM" + form + utf8)
        if tried.mail[:1] != b"2" and utf8:
            tried.mail = say(b"MAIL FROM" + form)  # some servers know no SMTPUTF8, and take the octets
        if tried.mail[:1] != b"2" and say(b"MAIL FROM" + PLAIN_SENDER + utf8)[:1] != b"2":
            say(b"MAIL FROM" + PLAIN_SENDER)
        tried.rcpt = say(b"RCPT TO" + form)
        if tried.rcpt[:1] != b"2":
            say(b"RCPT TO" + PLAIN_RECIPIENT)
        if say(b"DATA")[:1] == b"3":
            tried.taken = say(b"X-Form: " + mark + b"\r\n\r\ntext\r\n.")
        say(b"QUIT")
    return tried
