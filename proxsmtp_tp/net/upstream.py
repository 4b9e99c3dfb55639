"""The destination of one client, and the connection to it. Loops are refused.

A connection that was made by this proxy, by any worker, is recognised by its two end points in the shared table
(`admission`): before dialling, and again when the dialled socket has an end point of its own.

Diagnostics: NoDestinationError if the destination must not be dialled, dialling.DialError if it cannot be reached.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.config.addresses import InetAddress
from proxsmtp_tp.config.settings import TransparentProxy
from proxsmtp_tp.net import dialling
from proxsmtp_tp.net.original_destination import (
    Endpoint,
    Ends,
    NoDestinationError,
    endpoint,
    ends,
    original_destination,
    with_scope,
)
from proxsmtp_tp.net.source_port import Source

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Callable

    from proxsmtp_tp.net.context import WorkerContext

_ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (what connect(2) makes of "any address")


class Upstream:
    """The upstream connection of one client. `client` is its socket; `peer` is None if it came by a unix socket."""

    __slots__ = (
        "_came", "_client", "_context", "_dialled", "_full", "_home", "_known", "_name", "_peer", "_resolving",
        "_running", "_silence",
    )  # fmt: skip

    def __init__(
        self,
        context: WorkerContext,
        client: socket.socket,
        peer: Endpoint | None,
        names: tuple[tuple[Any, ...] | None, tuple[Any, ...] | None],
    ) -> None:
        """`names`: of the client's socket, as accept(2) and getsockname(2) say them."""
        came_from, name = names
        self._context = context
        self._client = client
        self._peer = peer
        self._full = context.settings.transparent_proxy is TransparentProxy.FULL
        scoped = came_from is not None and len(came_from) > 3 and came_from[3]
        self._home = with_scope(came_from) if came_from is not None and scoped else peer
        self._name = name
        self._known: Ends | None = None
        self._running: dialling.Dialling | None = None
        self._resolving: asyncio.Task[list[Endpoint | str]] | None = None
        self._silence: ExitStack | None = None
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
        destination = original_destination(
            self._client, self._context.listening_ports, self._ends(), self._context.destinations
        )
        if self._full:
            self._came = (self._context.admission.add_client(self._context.worker, self._peer, destination),)
        return destination

    def name(self, destination: Endpoint) -> str:
        """The server as `status` shows it: its address, or what OutAddress says."""
        if home := self._loopback_server():
            return str(home)
        return str(destination) if destination.ip else str(self._context.settings.out_address)

    def dial(self, destination: Endpoint, done: Callable[[dialling.Dialled], None]) -> None:
        """Connect to the server. `done` gets the socket, and the server's IP address or path, or DialError, or a bug;
        perhaps before this returns, and not after `cancel`.
        """
        try:
            targets = self._targets(destination)
        except dialling.DialError as error:
            done(error)
            return
        if targets is not None:
            self._begin(targets, destination, done)
            return
        context = self._context
        if context.settings.out_address is None:
            raise RuntimeError("there is no name to look up")
        self._resolving = context.loop.create_task(dialling.candidates(context.settings.out_address))
        self._resolving.add_done_callback(partial(self._resolved, destination, done))

    def cancel(self) -> None:
        """Do not connect to the server any more. Idempotent."""
        resolving, self._resolving = self._resolving, None
        if resolving is not None:
            resolving.cancel()
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
        self._end_silence()

    def _resolved(
        self,
        destination: Endpoint,
        done: Callable[[dialling.Dialled], None],
        task: asyncio.Task[list[Endpoint | str]],
    ) -> None:
        if self._resolving is None or task.cancelled():
            return
        self._resolving = None
        error = task.exception()
        if error is None:
            self._begin(task.result(), destination, done)
        else:
            done(error if isinstance(error, Exception) else RuntimeError(f"the look-up has ended: {error!r}"))

    def _begin(
        self, targets: list[Endpoint | str], destination: Endpoint, done: Callable[[dialling.Dialled], None]
    ) -> None:
        context = self._context
        source = client_ip = None
        if self._peer and self._full:
            client_ip = self._peer.ip
            source = Source(client_ip, context.admission.is_client, context.source_ports)
        if context.refusals.enabled:
            self._silence = ExitStack()
            self._silence.enter_context(context.refusals.while_silent(context.loop, destination, client_ip))

        def decided(found: dialling.Dialled) -> None:
            self._running = None
            self._end_silence()
            if isinstance(found, dialling.DialError):
                for target in found.unreachable:
                    context.watch.failed(target, client_ip)
            elif isinstance(found, tuple):
                context.watch.reached(destination, client_ip)
                found = found[0], found[1] or str(targets[0])
            done(found)

        self._running = dialling.Dialling(targets, context.waiting, source, self._remember, decided)
        self._running.begin()

    def _end_silence(self) -> None:
        silence, self._silence = self._silence, None
        if silence is not None:
            silence.close()

    def refuse_a_loop(self) -> None:
        """Raise NoDestinationError if the client is this proxy itself."""
        if self._peer is None:
            return
        own, before = self._ends()
        dialled = (own,) if before is None or before == own else (own, before)
        if any(self._context.admission.is_upstream(self._peer, destination) for destination in dialled):
            raise NoDestinationError(f"connection from {self._peer} was made by this proxy: that would be a loop")

    def _ends(self) -> Ends:
        """What the kernel knows of the client's connection. It does not change: it is asked once."""
        if self._known is None:
            self._known = ends(self._client, self._name)
        return self._known

    def answered(self) -> bool:
        """The server has sent something. So it is not this proxy, which sends nothing before its own server does.

        From now on a client with the same end points is no loop: it uses the same port by chance. True: `forget` would
        do nothing, so this object is not needed any more.
        """
        if self._dialled:
            self._drop(self._dialled)
            self._dialled = ()
            self._known = self._name = None  # no loop is looked for any more
        return not self._came

    def forget(self) -> None:
        """The connection has ended, or was not established."""
        self._drop(self._dialled + self._came)
        self._dialled = self._came = ()

    def _drop(self, handles: tuple[int, ...]) -> None:
        for handle in handles:
            self._context.admission.forget(self._context.worker, handle)

    def _targets(self, destination: Endpoint) -> list[Endpoint | str] | None:
        """What to try, in order. None: the name of OutAddress must be looked up. Raises DialError."""
        settings = self._context.settings
        if settings.transparent:
            return [destination]
        if settings.out_address is None:
            raise dialling.DialError("no OutAddress is configured")
        if settings.loopback:
            if home := self._loopback_server():
                return [home]
            raise dialling.DialError("a client on a unix socket has no address to connect back to")
        known = dialling.literal(settings.out_address)
        return None if known is None else [known]

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
