"""The beginning of a connection: the client's transport, its destination, and the connection to its server.

No server is dialled for a client that Clients does not allow, that has no valid destination, or that is over a limit
(`client_limits`).
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Protocol, cast

from proxsmtp_tp.filters.callbacks import callback
from proxsmtp_tp.net.dialling import DialError, Dialled
from proxsmtp_tp.net.original_destination import NoDestinationError
from proxsmtp_tp.net.serving import configured_port, is_served
from proxsmtp_tp.net.sides import ClientOwner, ClientSide, ServerOwner, ServerSide, make_transport
from proxsmtp_tp.session import events
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.telemetry import metrics

if TYPE_CHECKING:
    import asyncio
    import socket

    from proxsmtp_tp.net.context import WorkerContext
    from proxsmtp_tp.net.original_destination import Endpoint
    from proxsmtp_tp.net.reporting import Reporting
    from proxsmtp_tp.net.upstream import Upstream
    from proxsmtp_tp.session.effects import Effect
    from proxsmtp_tp.session.session import Session
    from proxsmtp_tp.telemetry.metrics import WorkerMetrics


class _AcceptedSide(ClientSide):
    """The client's side of a connection that begins."""

    __slots__ = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        cast("OpeningOwner", self.owner).client_opened()


class OpeningOwner(ClientOwner, ServerOwner, Protocol):
    """The connection, which also gets the events of both transports."""

    name: str
    client_ip: str
    server_ip: str
    server_port: int
    session: Session
    reporting: Reporting
    metrics: WorkerMetrics
    quiet: bool
    """It is one of doctor: what happens is not counted."""

    def client_opened(self) -> None:
        """After `client_made`: the session can begin."""

    def feed(self, event: events.Event) -> None:
        """Feed one event to the session."""

    def perform(self, todo: list[Effect]) -> None:
        """Perform the effects of the session."""

    def dialled(self) -> None:
        """Connecting to the server has succeeded, failed or was cancelled."""

    def failed(self, error: BaseException) -> None:
        """A bug: end the connection."""


class Opening:
    """The beginning of one connection. `client` is the accepted socket; `peer` is None if it came by a unix socket."""

    __slots__ = ("_began", "_client", "_context", "_owner", "_peer", "_upstream", "dialling", "seconds")

    def __init__(
        self,
        owner: OpeningOwner,
        context: WorkerContext,
        upstream: Upstream,
        client: socket.socket,
        peer: Endpoint | None,
    ) -> None:
        self._owner = owner
        self._context = context
        self._upstream = upstream
        self._client = client
        self._peer = peer
        self._began = 0.0
        self.dialling = False
        """Whether the connection to the server is being made."""
        self.seconds: float | None = None
        """How long it took to connect to the server; None: there is no connection."""

    def cancel(self) -> None:
        """Do not connect to the server any more. Idempotent."""
        if self.dialling and self.seconds is None:
            self.dialling = False
            self._upstream.cancel()

    def take_over(self) -> bool:
        """Make the client's transport; `client_made` follows. False: the client is gone, and its socket is closed."""
        owner = self._owner
        try:
            make_transport(self._context.loop, partial(_AcceptedSide, owner), self._client)
        except OSError as error:
            text = f"client={owner.client_ip}: the client closed the connection before it was served: {error}"
            owner.reporting.say(logging.INFO, text)
            self._client.close()
            return False
        return True

    @callback
    def find_server(self) -> None:
        """The client's transport is ready: find out its destination, and connect to it."""
        owner = self._owner
        owner.reporting.say(logging.INFO, f"accepted connection from: {self._peer or 'a unix socket'}")
        if self._context.ending is not None:  # it was accepted just before the worker began to drain
            owner.feed(events.WindDown(self._context.ending))
            if owner.session.ended:
                return
        if not is_served(self._context.settings, owner.client_ip):
            owner.perform(owner.session.refuse(answers.CLIENT_NOT_SERVED, "refused: its address is not in Clients"))
            return
        try:
            destination = self._upstream.destination()
        except NoDestinationError as error:
            self._refuse(error)
            return
        owner.perform(owner.session.check_limits(destination.ip))
        if owner.session.ended:
            return
        self.dialling = True
        self._began = self._context.loop.time()
        self._upstream.dial(destination, partial(self._dialled, destination))

    @callback
    def _dialled(self, destination: Endpoint, found: Dialled) -> None:
        owner, context = self._owner, self._context
        if isinstance(found, Exception):
            self.dialling = False
            if not isinstance(found, DialError):
                owner.failed(found)
                return
            if not owner.session.ended and not owner.quiet:
                context.unreachable.failed(self._upstream.name(destination))
            owner.feed(events.ConnectFailed(str(found)))
            owner.dialled()
            return
        sock, owner.server_ip = found
        if owner.session.ended:
            self._give_up(sock)
            return
        try:
            self._connected(destination, sock)
        except NoDestinationError as error:
            self._refuse(error)
            self._give_up(sock)
        except BaseException:
            self.dialling = False
            sock.close()
            raise

    def _connected(self, destination: Endpoint, sock: socket.socket) -> None:
        owner, context = self._owner, self._context
        owner.server_port = destination.port or configured_port(context.settings)
        self._upstream.refuse_a_loop()
        context.unreachable.reached(self._upstream.name(destination))
        self.seconds = context.loop.time() - self._began
        owner.metrics.observe(metrics.SERVER_CONNECT, self.seconds)
        # Not create_connection: with it, uvloop gives the socket to the transport only after connection_made. A
        # transport that is aborted in there would leave a socket object that later closes another socket's descriptor.
        make_transport(context.loop, partial(ServerSide, owner), sock)

    def _give_up(self, sock: socket.socket) -> None:
        self.dialling = False
        sock.close()
        self._owner.dialled()

    def _refuse(self, error: NoDestinationError) -> None:
        self._owner.perform(self._owner.session.refuse(error.reply, str(error)))

    def failed(self, error: Exception) -> None:
        """A bug in a callback of this object."""
        self._owner.failed(error)
