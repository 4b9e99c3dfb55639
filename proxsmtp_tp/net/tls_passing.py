"""A passed TLS connection: both sides' octets go on as they come, while they are TLS records.

Nobody here can see what is in the records. But 220 to STARTTLS must not be a way to speak plain SMTP past the filter,
so each direction is checked for its whole life (`tls.records`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from proxsmtp_tp.filters.callbacks import callback
from proxsmtp_tp.net.sides import ClientOwner, ServerOwner
from proxsmtp_tp.session import events
from proxsmtp_tp.session.state import Wait
from proxsmtp_tp.tls.facts import Side
from proxsmtp_tp.tls.records import RecordChecker, RecordError

if TYPE_CHECKING:
    import asyncio

    from proxsmtp_tp.net.deadlines import Deadlines


class PassingOwner(ClientOwner, ServerOwner, Protocol):
    """The connection. The events of its transports come here first."""

    loop: asyncio.AbstractEventLoop
    times: Deadlines
    client: Any
    server: Any
    closing: bool

    def client_finishes(self) -> None:
        """The client has closed its sending half; nothing more is to be done about it."""

    def server_speaks(self) -> None:
        """The server has sent something that the session does not see."""

    def feed(self, event: events.Event) -> None:
        """Feed one event to the session."""

    def failed(self, error: BaseException) -> None:
        """A bug: end the connection."""


class Passing:
    """Owner of both transports while the client's TLS with the server is passed on."""

    def __init__(self, owner: PassingOwner, client: Any, server: Any) -> None:
        """`client` and `server` are the plain transports."""
        self._owner = owner
        self._client = client
        self._server = server
        self._from_client = RecordChecker(Side.CLIENT)
        self._from_server = RecordChecker(Side.SERVER)
        self._over = False
        self.client_full = owner.client_full
        self.server_full = owner.server_full

    def client_made(self, transport: asyncio.BaseTransport) -> None:
        """It was made long ago."""

    def server_made(self, transport: asyncio.BaseTransport) -> None:
        """It was made long ago."""

    @callback
    def client_data(self, data: bytes) -> None:
        """Octets of the client, from its ClientHello on."""
        self._pass_on(self._from_client, data, self._server)

    @callback
    def server_data(self, data: bytes) -> None:
        """Octets of the server."""
        self._owner.server_speaks()
        self._pass_on(self._from_server, data, self._client)

    def _pass_on(self, checker: RecordChecker, data: bytes, to: Any) -> None:
        if self._over or self._owner.closing:  # closing: what comes must not extend the time for that
            return
        try:
            checker.feed(data)
        except RecordError as error:
            self._end(error.reason)
            return
        to.write(data)
        self._owner.times.arm(Wait.PASSING, self._owner.loop.time())

    @callback
    def client_eof(self) -> None:
        """The client has closed its sending half: so does the server's side. The answer may still come."""
        self._owner.client_finishes()
        if not self._over and not self._server.is_closing():
            self._server.write_eof()
        elif self._owner.closing:
            self._client.close()

    @callback
    def server_eof(self) -> None:
        """The server has closed its sending half: its transport is closed, and `server_lost` follows."""

    @callback
    def client_lost(self) -> None:
        """The client's connection has ended."""
        self._owner.client = None
        self._end("")
        self._owner.client_lost()

    @callback
    def server_lost(self) -> None:
        """The server's connection has ended: what it sent has been written to the client."""
        self._owner.server = None
        self._end("")
        self._owner.server_lost()

    def _end(self, reason: str) -> None:
        if not self._over:
            self._over = True
            self._owner.feed(events.PassingEnded(self._from_client.octets, self._from_server.octets, reason))

    def failed(self, error: Exception) -> None:
        """A bug in a callback of this object."""
        self._owner.failed(error)
