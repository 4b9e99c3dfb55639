"""The two legs of a connection: client and server in TLS.

Each is the owner of its transport (`sides`), and the transport of the connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from proxsmtp_tp.net.sides import ClientOwner, ServerOwner
from proxsmtp_tp.net.tls_leg import Leg
from proxsmtp_tp.session import events
from proxsmtp_tp.tls.facts import Side

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from proxsmtp_tp.net.deadlines import Deadlines
    from proxsmtp_tp.net.tls_stream import TlsStream
    from proxsmtp_tp.session.session import Session


class TlsOwner(ClientOwner, ServerOwner, Protocol):
    """The connection."""

    loop: asyncio.AbstractEventLoop
    times: Deadlines
    session: Session
    name: str
    server_ip: str
    server_port: int
    client: Any
    server: Any
    closing: bool

    def client_eof(self, *, clean: bool = True) -> None:
        """The client has closed its sending half; not `clean`: without close_notify, so somebody on the way may have
        closed it."""

    def client_finishes(self) -> None:
        """The client has closed its sending half; nothing more is to be done about it."""

    def server_speaks(self) -> None:
        """The server has sent something that the session does not see."""

    def feed(self, event: events.Event) -> None:
        """Feed one event to the session."""

    def tls_broken(self, side: str, reason: str) -> None:
        """TLS of a side (`client`, `server`) has failed after its handshake."""

    def failed(self, error: BaseException) -> None:
        """A bug: end the connection."""


class _ConnectionLeg(Leg):
    """What both have in common."""

    def __init__(self, transport: Any, stream: TlsStream, owner: TlsOwner, started: Callable[[], None]) -> None:
        super().__init__(transport, stream, owner.loop)
        self._owner = owner
        self._started = started

    def handshaken(self) -> None:
        """The handshake is complete."""
        self._started()

    def failed(self, error: Exception) -> None:
        """A bug: end the connection."""
        self._owner.failed(error)


class ClientLeg(_ConnectionLeg):
    """TLS with the client."""

    def client_made(self, transport: asyncio.BaseTransport) -> None:
        """It was made long ago."""

    def client_data(self, data: bytes) -> None:
        """Octets from the transport."""
        self.received(data)

    def client_eof(self) -> None:
        """A FIN from the transport."""
        self.fin()

    def client_lost(self) -> None:
        """The transport is closed."""
        self._owner.client_lost()

    def client_full(self, full: bool) -> None:
        """The client does not read fast enough, or reads again."""
        self._owner.client_full(full)

    def plain(self, data: bytes) -> None:
        """The client sent these octets in TLS."""
        self._owner.client_data(data)

    def finished(self, *, clean: bool) -> None:
        """The client sends no more."""
        self._owner.client_eof(clean=clean)

    def broken(self, reason: str, *, rejected: bool) -> None:
        """TLS has failed: for the session the client is lost."""
        owner = self._owner
        if self.stream.handshaking:
            owner.feed(events.TlsFailed(Side.CLIENT, reason, rejected=rejected))
        elif not owner.closing:
            owner.tls_broken("client", reason)
            owner.feed(events.ClientClosed(half=False))


class ServerLeg(_ConnectionLeg):
    """TLS with the server."""

    def server_made(self, transport: asyncio.BaseTransport) -> None:
        """It was made long ago."""

    def server_data(self, data: bytes) -> None:
        """Octets from the transport."""
        self.received(data)

    def server_eof(self) -> None:
        """A FIN from the transport, which is closed now."""
        self.fin()

    def server_lost(self) -> None:
        """The transport is closed."""
        if self.stream.handshaking and not self._owner.session.ended:
            self.fin()
        self._owner.server_lost()

    def server_full(self, full: bool) -> None:
        """The server does not read fast enough, or reads again."""
        self._owner.server_full(full)

    def plain(self, data: bytes) -> None:
        """The server sent these octets in TLS."""
        self._owner.server_data(data)

    def finished(self, *, clean: bool) -> None:
        """The server sends no more: it can answer nothing more."""
        _ = clean
        self._owner.server_eof()

    def broken(self, reason: str, *, rejected: bool) -> None:
        """TLS has failed: nothing more can be answered."""
        _ = rejected  # that is what a client does
        owner = self._owner
        if self.stream.handshaking:
            owner.feed(events.TlsFailed(Side.SERVER, reason))
        else:
            owner.tls_broken("server", reason)
            owner.server_eof()
