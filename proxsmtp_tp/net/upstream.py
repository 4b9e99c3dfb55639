"""The destination of one client, and the connection to it. Loops are refused.

A connection that was made by this proxy, by any worker, is recognised by its two end points in the shared table
(`admission`): before dialling, and again when the dialled socket has an end point of its own.

Diagnostics: NoDestinationError if the destination must not be dialled, dialling.DialError if it cannot be reached.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxsmtp_tp.config.addresses import InetAddress
from proxsmtp_tp.config.settings import TransparentProxy
from proxsmtp_tp.net import dialling
from proxsmtp_tp.net.original_destination import (
    Endpoint,
    NoDestinationError,
    before_redirect,
    endpoint,
    original_destination,
    own_name,
    with_scope,
)
from proxsmtp_tp.net.source_port import Source

if TYPE_CHECKING:
    import socket

    from proxsmtp_tp.net.context import WorkerContext

_ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (what connect(2) makes of "any address")


class Upstream:
    """The upstream connection of one client. `client` is its socket; `peer` is None if it came by a unix socket."""

    __slots__ = (
        "_came", "_client", "_context", "_dialled", "_full", "_home", "_peer",
    )  # fmt: skip

    def __init__(self, context: WorkerContext, client: socket.socket, peer: Endpoint | None) -> None:
        self._context = context
        self._client = client
        self._peer = peer
        self._full = context.settings.transparent_proxy is TransparentProxy.FULL
        home = with_scope(client.getpeername()) if peer else None
        self._home = peer if home == peer else home
        self._came: tuple[int, ...] = ()
        """Handles in the table of all workers: of the client's connection. `_dialled`: of ours."""
        self._dialled: tuple[int, ...] = ()

    def destination(self) -> Endpoint:
        """The original destination; empty where the configuration says where to go. Raises NoDestinationError."""
        self.refuse_a_loop()
        if not self._context.settings.transparent:
            return Endpoint("", 0)
        if not self._peer:
            raise NoDestinationError("a connection through a unix socket has no original destination")
        destination = original_destination(self._client, self._context.listening_ports)
        if self._full:
            self._came = (self._context.admission.add_client(self._context.worker, self._peer, destination),)
        return destination

    def name(self, destination: Endpoint) -> str:
        """The server as `status` shows it: its address, or what OutAddress says."""
        if home := self._loopback_server():
            return str(home)
        return str(destination) if destination.ip else str(self._context.settings.out_address)

    async def dial(self, destination: Endpoint) -> tuple[socket.socket, str]:
        """Connect to the server: the socket, and its IP address or path. Raises DialError."""
        targets = await self._targets(destination)
        source = client_ip = None
        if self._peer and self._full:
            client_ip = self._peer.ip
            source = Source(client_ip, self._context.admission.is_client)
        with self._context.refusals.while_silent(self._context.loop, destination, client_ip):
            try:
                sock, server = await dialling.dial(
                    targets,
                    source=source,
                    time_out=self._context.settings.connect_time_out,
                    started=self._remember,
                )
            except dialling.DialError as error:
                for target in error.unreachable:
                    self._context.watch.failed(target, client_ip)
                raise
        self._context.watch.reached(destination, client_ip)
        return sock, server or str(targets[0])

    def refuse_a_loop(self) -> None:
        """Raise NoDestinationError if the client is this proxy itself."""
        if self._peer is None:
            return
        own = own_name(self._client)
        dialled = {own, before_redirect(self._client, own) or own}
        if any(self._context.admission.is_upstream(self._peer, destination) for destination in dialled):
            raise NoDestinationError(f"connection from {self._peer} was made by this proxy: that would be a loop")

    def answered(self) -> None:
        """The server has sent something. So it is not this proxy, which sends nothing before its own server does.

        From now on a client with the same end points is no loop: it uses the same port by chance.
        """
        if self._dialled:
            self._drop(self._dialled)
            self._dialled = ()

    def forget(self) -> None:
        """The connection has ended, or was not established."""
        self._drop(self._dialled + self._came)
        self._dialled = self._came = ()

    def _drop(self, handles: tuple[int, ...]) -> None:
        for handle in handles:
            self._context.admission.forget(self._context.worker, handle)

    async def _targets(self, destination: Endpoint) -> list[Endpoint | str]:
        settings = self._context.settings
        if settings.transparent:
            return [destination]
        if settings.out_address is None:
            raise dialling.DialError("no OutAddress is configured")
        if settings.loopback:
            if home := self._loopback_server():
                return [home]
            raise dialling.DialError("a client on a unix socket has no address to connect back to")
        return await dialling.candidates(settings.out_address)

    def _loopback_server(self) -> Endpoint | None:
        """In loopback mode: the client's own host. None: another mode, or a client without an address."""
        settings = self._context.settings
        if settings.loopback and isinstance(settings.out_address, InetAddress) and self._home:
            return self._home._replace(port=settings.out_address.port)
        return None

    def _remember(self, sock: socket.socket, target: Endpoint | str) -> None:
        if isinstance(target, str):
            return
        theirs = Endpoint(_ANY_HOST.get(target.ip, target.ip), target.port)
        own = endpoint(sock.getsockname())
        self._dialled += (self._context.admission.add_upstream(self._context.worker, own, theirs),)
