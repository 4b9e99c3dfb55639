"""An embedded MX that stores and reports what it gets: `python -m proxsmtp_tp.lab.mx --listen ADDRESS ...`.

aiosmtpd does the SMTP. What happens is written to standard output as one JSON object a line, in order, each
at the moment when it happens (the shapes are the dataclasses below, with "event" before their fields):

    ready     it listens on all addresses now
    connect   a client came: the address and port that the server sees, and its own address
    command   EHLO, MAIL, RCPT, RSET or QUIT as the server understood it; no line is written for DATA itself
    tls       the handshake after STARTTLS is done (with --certificate): the version
    message   a message, byte for byte, with its envelope and the reply it got
    close     the connection ended

`Journal` reads these lines, also while the server writes them.

Guarantees: a message is reported before its 250 is sent. Its content is exact: dots are unstuffed, nothing else is
changed; in JSON it is Latin-1 text, one character for each byte. 8BITMIME and SMTPUTF8 are accepted, DSN parameters are
not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import ssl
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar

from aiosmtpd.smtp import SMTP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from aiosmtpd.smtp import Envelope, Session

LINE_LIMIT = 1 << 20
"""Bytes in a line of a message. RFC 5321 asks for 1000; mail with longer lines exists, and is to be shown."""
SIZE_LIMIT = 64 << 20
"""Bytes in a message: more than anything the lab sends, so that a broken client cannot use up the memory."""
POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Connected:
    """A client came. `peer` and `local` are IP literals."""

    event: ClassVar = "connect"
    connection: int
    peer: str
    port: int
    local: str


@dataclass(frozen=True, slots=True)
class Commanded:
    """A command other than DATA, as the server understood it: "RCPT TO:<bob@example.net>"."""

    event: ClassVar = "command"
    connection: int
    line: str


@dataclass(frozen=True, slots=True)
class Secured:
    """TLS has begun; `version` as in "TLSv1.3"."""

    event: ClassVar = "tls"
    connection: int
    version: str


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message. `content` is Latin-1 text, one character a byte; `sender` is "" for the null sender."""

    event: ClassVar = "message"
    connection: int
    peer: str
    helo: str
    sender: str
    recipients: list[str]
    content: str
    reply: str

    @property
    def octets(self) -> bytes:
        """The message byte for byte."""
        return self.content.encode("latin-1")


@dataclass(frozen=True, slots=True)
class Closed:
    """The connection ended."""

    event: ClassVar = "close"
    connection: int


Event = Connected | Commanded | Secured | Arrived | Closed
_KINDS: dict[str, type[Event]] = {kind.event: kind for kind in (Connected, Commanded, Secured, Arrived, Closed)}


class Journal:
    """The events that an MX has written to its output file so far. Reads only whole lines; the file may still grow."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self.ready = False
        self.events: list[Event] = []

    def update(self) -> None:
        """Read new events."""
        with self._path.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            fields = json.loads(line)
            kind = fields.pop("event")
            if kind == "ready":
                self.ready = True
            else:
                self.events.append(_KINDS[kind](**fields))

    def wait(self, what: Callable[[Journal], bool], seconds: float) -> bool:
        """Read until `what` is true; False if it is not within `seconds`."""
        end = time.monotonic() + seconds
        while True:
            self.update()
            if what(self):
                return True
            if time.monotonic() > end:
                return False
            time.sleep(POLL_SECONDS)

    @property
    def messages(self) -> list[Arrived]:
        """The messages so far, in order of arrival."""
        return [event for event in self.events if isinstance(event, Arrived)]


class _Reporter:
    """aiosmtpd's handler: reports each step and accepts it. Names and signatures of its methods are aiosmtpd's."""

    def __init__(self, tell: Callable[[Event], None]) -> None:
        self._tell = tell
        self._messages = 0

    async def handle_EHLO(  # noqa: N802 - aiosmtpd looks hooks up by the verb
        self, server: _Server, session: Session, _envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        self._command(server, f"EHLO {hostname}")
        return responses

    def handle_STARTTLS(  # noqa: N802 - see above
        self, server: _Server, _session: Session, _envelope: Envelope
    ) -> bool:
        self._tell(Secured(server.number, server.transport.get_extra_info("ssl_object").version()))
        return True

    async def handle_MAIL(  # noqa: N802 - see above
        self, server: _Server, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        self._command(server, " ".join([f"MAIL FROM:<{_bare(address)}>", *options]))
        return "250 2.1.0 Sender ok"

    async def handle_RCPT(  # noqa: N802 - see above
        self, server: _Server, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        envelope.rcpt_tos.append(address)
        self._command(server, " ".join([f"RCPT TO:<{address}>", *options]))
        return "250 2.1.5 Recipient ok"

    async def handle_RSET(  # noqa: N802 - see above
        self, server: _Server, _session: Session, _envelope: Envelope
    ) -> str:
        self._command(server, "RSET")
        return "250 2.0.0 Ok"

    async def handle_QUIT(  # noqa: N802 - see above
        self, server: _Server, _session: Session, _envelope: Envelope
    ) -> str:
        self._command(server, "QUIT")
        return "221 2.0.0 Bye"

    async def handle_DATA(  # noqa: N802 - see above
        self, server: _Server, session: Session, envelope: Envelope
    ) -> str:
        self._messages += 1
        reply = f"250 2.0.0 Ok: kept as number {self._messages}"
        content = bytes(envelope.original_content or b"").decode("latin-1")
        sender, helo = _bare(envelope.mail_from or ""), session.host_name or ""
        self._tell(Arrived(server.number, session.peer[0], helo, sender, envelope.rcpt_tos, content, reply))
        return reply

    def _command(self, server: _Server, line: str) -> None:
        self._tell(Commanded(server.number, line))


class _Server(SMTP):  # type: ignore[misc]  # untyped for mypy
    """One connection: has a number, and reports when it begins and ends."""

    line_length_limit = LINE_LIMIT

    def __init__(
        self,
        handler: _Reporter,
        tell: Callable[[Event], None],
        number: int,
        name: str,
        tls: ssl.SSLContext | None,
    ) -> None:
        more = {"tls_context": tls, "enable_SMTPUTF8": True, "data_size_limit": SIZE_LIMIT}
        super().__init__(handler, hostname=name, ident="ESMTP", **more)
        self.number = number
        self._tell = tell

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Report the client before the greeting is sent."""
        if self.transport is None:  # not after STARTTLS
            peer, local = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
            self._tell(Connected(self.number, peer[0], peer[1], local[0]))
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Report that the connection has ended, for whatever reason."""
        super().connection_lost(error)
        self._tell(Closed(self.number))


def _bare(address: str) -> str:
    """The null sender as aiosmtpd gives it, and as everybody else writes it."""
    return "" if address == "<>" else address


def _tell(event: Event) -> None:
    print(json.dumps({"event": event.event, **asdict(event)}), flush=True)


async def serve(addresses: Iterable[str], port: int, name: str, tls: ssl.SSLContext | None = None) -> None:
    """Serve until TERM or INT, with STARTTLS if there is `tls`. Raises OSError where an address cannot be bound."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    handler = _Reporter(_tell)
    connections = 0

    def connection() -> _Server:
        nonlocal connections
        connections += 1
        return _Server(handler, _tell, connections, name, tls)

    servers = [await loop.create_server(connection, address, port) for address in addresses]
    print(json.dumps({"event": "ready"}), flush=True)
    await stopped.wait()
    for server in servers:
        server.close()


def main(arguments: list[str]) -> int:
    """Run the MX. Exit status 1 with the reason where it cannot listen."""
    parser = argparse.ArgumentParser(prog="python -m proxsmtp_tp.lab.mx", description="An MX that shows its mail.")
    parser.add_argument("--listen", action="append", required=True, metavar="ADDRESS", help="repeatable")
    parser.add_argument("--port", type=int, default=25)
    parser.add_argument("--name", default="mx.example.net", help="in the greeting")
    parser.add_argument("--certificate", metavar="FILE", help="for STARTTLS: the chain and its key (PEM)")
    options = parser.parse_args(arguments)
    tls = None
    try:
        if options.certificate:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(options.certificate)
        asyncio.run(serve(options.listen, options.port, options.name, tls))
    except OSError as error:
        print(f"mx: {os.strerror(error.errno) if error.errno else error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
