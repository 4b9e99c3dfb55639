"""How many instructions a message takes in a session that has TLS on both legs: a part of `instructions`.

Client and server are objects of `ssl` in the same process, so what they take is in the count. The same two objects
without a proxy between them are counted apart, and subtracted. The handshakes are no part of the difference of a long
run and a short one, because a run is one session.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.dialogue import MESSAGES, SENT
from bench.tls_peers import certificate, client_context, material

if TYPE_CHECKING:
    from proxsmtp_tp.net.connection import Connection

_EHLO_REPLY = b"250-mx.example.net\r\n250-PIPELINING\r\n250-STARTTLS\r\n250 8BITMIME\r\n"
_TURNS = 10
"""Turns of the event loop in which a started task comes to its end."""


class _Peer:
    """Client or server: speaks TLS, once it has begun."""

    def __init__(self, context: ssl.SSLContext, *, server_side: bool) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self.incoming, self.outgoing, server_side=server_side, server_hostname=None if server_side else "mx.example"
        )

    def shake(self, data: bytes) -> bytes:
        """A step of the handshake."""
        self.incoming.write(data)
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()
        return self.outgoing.read()

    def say(self, text: bytes) -> bytes:
        """The octets of a text."""
        self._tls.write(text)
        return self.outgoing.read()

    def hear(self, data: bytes) -> None:
        """Read a text."""
        self.incoming.write(data)
        if not self._tls.read(65536):
            raise RuntimeError("the peer was told nothing")


class _Transport:
    """Keeps what is written for the peer."""

    def __init__(self, protocol: Any) -> None:
        self.protocol = protocol
        self.written = b""

    def take(self) -> bytes:
        """What was written since the last call."""
        data, self.written = self.written, b""
        return data

    def write(self, data: bytes) -> None:
        self.written += data

    def get_protocol(self) -> Any:
        return self.protocol

    def is_closing(self) -> bool:
        return False

    def write_eof(self) -> None:
        """As in a transport."""

    close = abort = pause_reading = resume_reading = write_eof


def _peers(folder: Path) -> tuple[_Peer, _Peer]:
    certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "both.pem")
    context.num_tickets = 0
    return _Peer(client_context(), server_side=False), _Peer(context, server_side=True)


def peers(dialogues: int) -> None:
    """The client and the server without anything between them."""
    with tempfile.TemporaryDirectory() as folder:
        client, server = _peers(Path(folder))
    said = client.shake(b"")
    while said:
        answer = server.shake(said)
        said = client.shake(answer) if answer else b""
    for _ in range(dialogues * MESSAGES):
        for command, reply in SENT:
            server.hear(client.say(command))
            client.hear(server.say(reply))


async def connection(dialogues: int) -> None:
    """A connection of a worker between the two."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        client, server = _peers(folder)
        tested = _connection(folder)
    await _begin_tls(tested, client, server)
    to_client, to_server = tested.client.transport, tested.server.transport
    from_client, from_server = to_client.protocol.data_received, to_server.protocol.data_received
    for _ in range(dialogues * MESSAGES):
        for command, reply in SENT:
            from_client(client.say(command))
            server.hear(to_server.take())
            from_server(server.say(reply))
            client.hear(to_client.take())


def _connection(folder: Path) -> Connection:
    """With its certificate in `folder`, and without sides."""
    from proxsmtp_tp.config.reader import parse_config  # noqa: PLC0415  (what is not measured is not imported)
    from proxsmtp_tp.net.admission import Admission  # noqa: PLC0415
    from proxsmtp_tp.net.connection import Connection  # noqa: PLC0415
    from proxsmtp_tp.net.proxy import Proxy  # noqa: PLC0415
    from proxsmtp_tp.net.tls_certificates import OwnCertificate, WorkerKeys  # noqa: PLC0415
    from proxsmtp_tp.net.tls_rejections import TlsRejections  # noqa: PLC0415
    from proxsmtp_tp.net.tls_worker import make_worker_tls  # noqa: PLC0415

    lines = b"Listen: 127.0.0.1:10025\nOutAddress: 127.0.0.1:10026\nTls: terminate\n"
    settings = parse_config(lines, "bench").settings
    keys = WorkerKeys((OwnCertificate(material(folder)),))
    tls = make_worker_tls(settings, keys, TlsRejections())
    proxy = Proxy(settings, [], Admission(1000, 1), 0, tls=tls)
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        return Connection(proxy.context, listener.accept(), ("000001", "0000000000001"), lambda _: None)


async def _begin_tls(tested: Connection, client: _Peer, server: _Peer) -> None:
    """From the beginning of the session to its EHLO in TLS."""
    from proxsmtp_tp.net.sides import ClientSide, ServerSide  # noqa: PLC0415

    to_client, to_server = _Transport(ClientSide(tested)), _Transport(ServerSide(tested))
    from_client, from_server = to_client.protocol.data_received, to_server.protocol.data_received
    tested.client_made(to_client)
    tested.server_ip, tested.server_port = "198.51.100.25", 25
    tested.server_made(to_server)
    from_server(b"220 mx.example.net ESMTP\r\n")
    from_client(b"EHLO client.example.org\r\n")
    from_server(_EHLO_REPLY)
    from_client(b"STARTTLS\r\n")
    from_server(b"220 go\r\n")
    to_client.take()
    to_server.take()
    from_client(client.shake(b""))
    for _ in range(_TURNS):
        await asyncio.sleep(0)
        if data := to_server.take():
            from_server(server.shake(data))
        if data := to_client.take():
            from_client(client.shake(data))
    from_client(client.say(b"EHLO client.example.org\r\n"))
    server.hear(to_server.take())
    from_server(server.say(_EHLO_REPLY))
    client.hear(to_client.take())
