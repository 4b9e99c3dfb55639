"""The beginning of a connection: the client's transport, its destination, and the connection to its server.

No server is dialled for a client that Clients does not allow, that has no valid destination, or that is over a limit
(`client_limits`).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Protocol

from proxsmtp_tp.filters.callbacks import callback
from proxsmtp_tp.net.dialling import DialError
from proxsmtp_tp.net.original_destination import NoDestinationError
from proxsmtp_tp.net.serving import is_served
from proxsmtp_tp.net.sides import ClientOwner, ClientSide, ServerOwner, ServerSide
from proxsmtp_tp.session import events
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.telemetry import metrics

if TYPE_CHECKING:
    from proxsmtp_tp.net.context import WorkerContext
    from proxsmtp_tp.net.original_destination import Endpoint
    from proxsmtp_tp.net.reporting import Reporting
    from proxsmtp_tp.net.upstream import Upstream
    from proxsmtp_tp.session.effects import Effect
    from proxsmtp_tp.session.session import Session
    from proxsmtp_tp.telemetry.metrics import WorkerMetrics


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

    __slots__ = (
        "_client", "_context", "_dialling", "_owner", "_peer", "_upstream", "seconds",
    )  # fmt: skip

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
        self._dialling: asyncio.Task[None] | None = None
        self.seconds: float | None = None
        """How long it took to connect to the server; None: there is no connection."""

    @property
    def dialling(self) -> bool:
        """Whether the connection to the server is being made."""
        return self._dialling is not None

    def cancel(self) -> None:
        """Do not connect to the server any more. Idempotent."""
        if self._dialling is not None:
            self._dialling.cancel()

    async def take_over(self) -> bool:
        """Make the client's transport. False: the client is gone, and its socket is closed."""
        owner = self._owner
        try:
            if self._peer:
                self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._context.loop.connect_accepted_socket(lambda: ClientSide(owner), self._client)
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
        self._dialling = self._context.loop.create_task(self._dial(destination), name=f"dial {owner.name}")
        self._dialling.add_done_callback(self._dialled)

    async def _dial(self, destination: Endpoint) -> None:
        owner, context = self._owner, self._context
        began = context.loop.time()
        try:
            sock, owner.server_ip = await self._upstream.dial(destination)
            owner.server_port = sock.getpeername()[1] if sock.family != socket.AF_UNIX else 0
        except DialError as error:
            if not owner.session.ended and not owner.quiet:
                context.unreachable.failed(self._upstream.name(destination))
            owner.feed(events.ConnectFailed(str(error)))
            return
        if owner.session.ended:
            sock.close()
            return
        try:
            self._upstream.refuse_a_loop()
        except NoDestinationError as loop:
            sock.close()
            self._refuse(loop)
            return
        context.unreachable.reached(self._upstream.name(destination))
        self.seconds = context.loop.time() - began
        owner.metrics.observe(metrics.SERVER_CONNECT, self.seconds)
        # Shielded: if the client closes while the transport is being made, server_made closes it.
        # Not create_connection: with it, uvloop gives the socket to the transport only after connection_made. A
        # transport that is aborted in there would leave a socket object that later closes another socket's descriptor.
        await asyncio.shield(context.loop.connect_accepted_socket(lambda: ServerSide(owner), sock))

    def _refuse(self, error: NoDestinationError) -> None:
        self._owner.perform(self._owner.session.refuse(error.reply, str(error)))

    def _dialled(self, task: asyncio.Task[None]) -> None:
        self._dialling = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._owner.failed(error)
        self._owner.dialled()

    def failed(self, error: Exception) -> None:
        """A bug in a callback of this object."""
        self._owner.failed(error)
