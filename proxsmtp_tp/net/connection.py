"""One client, one server: performs what the session decides. The only module that writes to a peer.

Knows bytes, back-pressure and time, never SMTP. Whoever can not take more stops the reading from the other side:

    client ──▶ server or filter      the client is not read while either is full, or while its lines wait for replies
    server ──▶ client                the server is not read while the client is full
    judged message ──▶ server        is read back only as fast as the server takes it

Effects are performed in order without awaiting anything, so that no event can come in between. An error in here or in
the session is a bug: it is logged with its traceback and ends this one connection with 421.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.config.addresses import InetAddress
from proxsmtp_tp.filters.interface import FilterRequest
from proxsmtp_tp.net import dialling
from proxsmtp_tp.net.original_destination import (
    Endpoint,
    NoDestinationError,
    before_redirect,
    endpoint,
    original_destination,
)
from proxsmtp_tp.session import effects, events
from proxsmtp_tp.session.session import Session
from proxsmtp_tp.session.state import Reason, Wait
from proxsmtp_tp.smtp import answers

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxsmtp_tp.filters.interface import FilterRun
    from proxsmtp_tp.filters.verdict import Verdict
    from proxsmtp_tp.net.proxy import Proxy

log = logging.getLogger(__name__)

CHUNK = 65536
"""Octets of the judged message read at a time: what a loop iteration may spend on one connection."""

BACKLOG_LIMIT = 65536
"""Octets of the client that may wait for a reply before it is not read any more: room for any group of commands."""

LINGER = 5.0
"""Seconds for a last reply to reach a client that still sends: closing at once would reset the connection under it."""

DRAINING_LINGER = 1.0
"""The same when the daemon ends: an idle client that does not read its 421 shall not hold up a restart."""

NEVER = float("inf")

_ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (what connect(2) makes of "any host": nobody listens here)


def rfc5322_date() -> str:
    """The date of now in local time (RFC 5322 section 3.3)."""
    return formatdate(localtime=True)


class ClientSide(asyncio.Protocol):
    """The client's transport, in asyncio's words."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.connection.client_made(transport)

    def data_received(self, data: bytes) -> None:
        self.connection.client_data(data)

    def eof_received(self) -> bool:
        self.connection.client_eof()
        return True  # our last reply may still be heard

    def connection_lost(self, _exc: Exception | None) -> None:
        self.connection.client_lost()

    def pause_writing(self) -> None:
        self.connection.hold_server()

    def resume_writing(self) -> None:
        self.connection.release_server()


class ServerSide(asyncio.Protocol):
    """The server's transport, in asyncio's words."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.connection.server_made(transport)

    def data_received(self, data: bytes) -> None:
        self.connection.feed(events.ServerData(data))

    def eof_received(self) -> None:
        self.connection.server_eof()

    def connection_lost(self, _exc: Exception | None) -> None:
        self.connection.server_lost()

    def pause_writing(self) -> None:
        self.connection.server_full(True)

    def resume_writing(self) -> None:
        self.connection.server_full(False)


class Connection:
    """Lives from accept until both sides are closed; also the FilterOwner of its message."""

    def __init__(self, proxy: Proxy, sock: socket.socket, name: str) -> None:
        self.proxy = proxy
        self.name = name
        self.loop = proxy.loop
        self._sock = sock
        peer = sock.getpeername()
        self._peer = endpoint(peer) if sock.family != socket.AF_UNIX else None
        own = endpoint(sock.getsockname()).ip if self._peer else ""
        self.client_ip = self._peer.ip if self._peer else ""
        self.server_ip = ""
        self.session = Session(proxy.options, client_ip=self.client_ip, local_ip=own, clock=rfc5322_date)
        self._client: Any = None
        self._server: Any = None
        self._client_paused = False
        self._client_finished = False
        self._crashed = False
        self._closing = False
        self._server_is_full = False
        self._filter_is_full = False
        self._run: FilterRun | None = None
        self._reading_message = False
        self._upstreams: list[int] = []
        self._dialling: asyncio.Task[None] | None = None
        now = self.loop.time()
        self._wait = Wait.NOTHING
        self._deadline = NEVER
        self._message_deadline = NEVER
        self._keep_alive_at = NEVER
        self._session_deadline = now + proxy.settings.session_time_out
        self._winding_down = False

    # Beginning.

    async def open(self) -> None:
        """Take the client over, and connect to its server. Raises nothing."""
        try:
            if self._peer:
                self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self.loop.connect_accepted_socket(lambda: ClientSide(self), self._sock)
        except OSError as error:
            log.info("%s: client=%s: gone before it was served: %s", self.name, self.client_ip, error)
            self._sock.close()
            self._finished()
            return
        if self._closing:
            return
        try:
            self._go_on()
        except Exception as error:  # noqa: BLE001  (a bug must cost one connection, not the worker)
            self._crash(error)

    def _go_on(self) -> None:
        """The client is there: find out where it wants to go."""
        log.info("%s: accepted connection from: %s", self.name, self._peer or "a unix socket")
        if self.proxy.ending is not None:  # it was accepted just before
            self.feed(events.WindDown(self.proxy.ending))
            if self.session.ended:
                return
        if not self._welcome():
            self._perform(self.session.refuse(answers.CLIENT_NOT_SERVED, "not served: not one of Clients"))
            return
        try:
            destination = self._destination()
        except NoDestinationError as error:
            self._perform(self.session.refuse(answers.NO_DESTINATION, str(error)))
            return
        self._dialling = self.loop.create_task(self._dial(destination), name=f"dial {self.name}")
        self._dialling.add_done_callback(self._dialled)

    def _welcome(self) -> bool:
        """Whether Clients lets this client in; a unix socket is guarded by its folder instead."""
        clients = self.proxy.settings.clients
        if not clients or not self._peer:
            return True
        address = ipaddress.ip_address(self._peer.ip)
        return any(address in network for network in clients)

    @property
    def opened(self) -> bool:
        """The client has been taken over: there is somebody to tell what happens."""
        return self._client is not None or self._closing

    def _destination(self) -> Endpoint:
        """The original destination; empty where the configuration says where to go. Raises NoDestinationError."""
        if self._came_out_of_us():
            raise NoDestinationError(f"connection from {self._peer} came out of this proxy: that would be a loop")
        if not self.proxy.settings.transparent:
            return Endpoint("", 0)
        if not self._peer:
            raise NoDestinationError("a connection through a unix socket has no original destination")
        return original_destination(self._sock, self.proxy.listening_ports)

    def _came_out_of_us(self) -> bool:
        """Whether the client is ourselves: asked for the address it has, and for the one that it had dialled."""
        if self._peer is None:
            return False
        own = endpoint(self._sock.getsockname())
        dialled = {own, before_redirect(self._sock, own) or own}
        return any(self.proxy.admission.is_upstream(self._peer, destination) for destination in dialled)

    async def _dial(self, destination: Endpoint) -> None:
        settings = self.proxy.settings
        try:
            targets = await self._targets(destination)
            sock, server = await dialling.dial(
                targets,
                source=self.client_ip if self.proxy.from_client else None,
                time_out=settings.connect_time_out,
                started=self._remember_upstream,
            )
        except dialling.DialError as error:
            self.feed(events.ConnectFailed(str(error)))
            return
        if self.session.ended:
            sock.close()
            return
        if self._came_out_of_us():
            sock.close()
            reason = f"connection from {self._peer} came out of this proxy: that would be a loop"
            self._perform(self.session.refuse(answers.NO_DESTINATION, reason))
            return
        self.server_ip = server or str(targets[0])
        # Shielded: a transport that is half made when the client goes would never be closed (server_made closes it).
        # Not create_connection: uvloop gives that one's socket to its transport only after connection_made, and a
        # transport that is aborted there would leave a socket that closes somebody else's descriptor later on.
        await asyncio.shield(self.loop.connect_accepted_socket(lambda: ServerSide(self), sock))

    def client_made(self, transport: Any) -> None:
        """The client is ours; its first bytes may follow at once."""
        self._client = transport

    def server_made(self, transport: Any) -> None:
        """The upstream connection stands; its greeting may follow at once."""
        self._server = transport
        if self.session.ended:
            transport.abort()
            return
        self.feed(events.Connected(self.server_ip))

    def _dialled(self, task: asyncio.Task[None]) -> None:
        self._dialling = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._crash(error)
        self._maybe_finished()

    async def _targets(self, destination: Endpoint) -> list[Endpoint | str]:
        settings = self.proxy.settings
        if settings.transparent:
            return [destination]
        if settings.out_address is None:
            raise dialling.DialError("no OutAddress is configured")
        if isinstance(settings.out_address, InetAddress) and settings.out_address.port_only:
            if not self._peer:
                raise dialling.DialError("a client on a unix socket has no address to connect back to")
            return [Endpoint(self.client_ip, settings.out_address.port)]
        return await dialling.candidates(settings.out_address)

    def _remember_upstream(self, sock: socket.socket, target: Endpoint | str) -> None:
        if isinstance(target, str):
            return
        theirs = Endpoint(_ANY_HOST.get(target.ip, target.ip), target.port)
        own = endpoint(sock.getsockname())
        self._upstreams.append(self.proxy.admission.add_upstream(self.proxy.worker, own, theirs))

    # What happens.

    def feed(self, event: events.Event) -> None:
        """One event for the session, and its effects performed."""
        if self._crashed:
            return
        try:
            self._perform(self.session.feed(event))
            self._balance_client()
        except Exception as error:  # noqa: BLE001  (a bug must cost one connection, not the worker)
            self._crash(error)

    def client_data(self, data: bytes) -> None:
        """Bytes from the client; what still comes after the end is read and forgotten."""
        if not self._closing:
            self.feed(events.ClientData(data))

    def client_eof(self) -> None:
        """The client has closed its sending half."""
        self._client_finished = True
        if self._closing:
            self._client.close()
        else:
            self.feed(events.ClientClosed(half=True))

    def client_lost(self) -> None:
        """The client's connection is gone."""
        self._client = None
        self._closing = True
        self.feed(events.ClientClosed(half=False))
        self._maybe_finished()

    def server_eof(self) -> None:
        """The server has closed its sending half: it can not answer what it has not got yet, so it does not get it."""
        if self._server is not None:
            self._server.abort()

    def server_lost(self) -> None:
        """The server's connection is gone."""
        self._server = None
        self._server_is_full = False  # nobody says so any more: what the client still sends must be read
        self._reading_message = False
        self.feed(events.ServerClosed())
        self._maybe_finished()

    def filter_verdict(self, verdict: Verdict) -> None:
        """FilterOwner."""
        self.feed(events.FilterVerdict(verdict))

    def _crash(self, error: BaseException) -> None:
        """The session is not to be relied on any more: it hears of nothing from now on."""
        log.error("%s: client=%s: internal error: closing", self.name, self.client_ip, exc_info=error)
        self._crashed = True
        self._release_run()
        self._reading_message = False
        if self._dialling is not None:
            self._dialling.cancel()
        if self._server is not None:
            self._server.abort()
        if self._client is not None and not self._closing:
            self._client.write(answers.INTERNAL_ERROR.wire)
            self._close_client(None)
        self._maybe_finished()

    # Effects.

    def _perform(self, todo: list[effects.Effect]) -> None:
        for effect in todo:
            _PERFORMERS[type(effect)](self, effect)

    def _send_client(self, effect: effects.SendClient) -> None:
        if self._client is not None:
            self._client.write(effect.data)

    def _send_server(self, effect: effects.SendServer) -> None:
        if self._server is not None:
            self._server.write(effect.data)

    def _close_client(self, _effect: effects.CloseClient | None) -> None:
        """Close after the last reply, reading on meanwhile: unread bytes would turn the close into a reset."""
        self._closing = True
        self._wait = Wait.NOTHING
        self._deadline = self.loop.time() + (LINGER if self.proxy.ending is None else DRAINING_LINGER)
        client = self._client
        if client is None:
            self._maybe_finished()
        elif self._client_finished:
            client.close()
        else:
            if self._client_paused:
                self._client_paused = False
                client.resume_reading()
            client.write_eof()

    def _close_server(self, effect: effects.CloseServer) -> None:
        if self._dialling is not None:
            self._dialling.cancel()
        if self._server is not None:
            if effect.abort:
                self._server.abort()
            else:
                self._server.close()

    def _start_filter(self, effect: effects.StartFilter) -> None:
        request = FilterRequest(
            connection=self.name,
            envelope=effect.envelope,
            client=self.client_ip,
            server=self.server_ip,
            helo=effect.helo,
            remote=effect.remote,
            remote_helo=effect.remote_helo,
        )
        if self.proxy.filter is None:
            raise RuntimeError("the session asks for a filter that is not configured")
        self._run = self.proxy.filter.start(request, self)

    def _filter_data(self, effect: effects.FilterData) -> None:
        if self._run is not None:
            self._run.write(effect.text)

    def _filter_finish(self, _effect: effects.FilterFinish) -> None:
        if self._run is not None:
            self._run.finish()

    def _filter_abort(self, _effect: effects.FilterAbort) -> None:
        self._release_run()

    def _release_run(self) -> None:
        run, self._run = self._run, None
        self._filter_is_full = False
        if run is not None:
            run.abort()
            run.close()

    def _read_message(self, _effect: effects.ReadMessage) -> None:
        self._reading_message = True
        self.loop.call_soon(self._pump_message)

    def _pump_message(self) -> None:
        """The next chunk of the judged message, if the server has room for it."""
        if not self._reading_message or self._server_is_full or self._run is None:
            return
        try:
            chunk = self._run.read(CHUNK)
        except OSError as error:
            self._reading_message = False
            self.feed(events.MessageUnreadable(str(error)))
            return
        if chunk:
            self.feed(events.MessageChunk(chunk))
            self.loop.call_soon(self._pump_message)
        else:
            self._reading_message = False
            self.feed(events.MessageEnd())

    def _set_deadline(self, effect: effects.Deadline) -> None:
        if self._closing:
            return
        self._wait = effect.wait
        self._deadline = self.loop.time() + self.proxy.limits[effect.wait]

    def _message_clock(self, effect: effects.MessageClock) -> None:
        now = self.loop.time()
        settings = self.proxy.settings
        self._message_deadline = now + settings.message_time_out if effect.running else NEVER
        self._keep_alive_at = now + settings.keep_alives if effect.running and settings.keep_alives else NEVER

    def _log(self, effect: effects.Log) -> None:
        log.log(effect.level, "%s: %s", self.name, effect.text)

    # Back-pressure.

    def _balance_client(self) -> None:
        """Read the client, or not."""
        hold = (
            self._server_is_full or self._filter_is_full or self.session.waiting_octets > BACKLOG_LIMIT
        ) and not self._closing
        if hold != self._client_paused and self._client is not None:
            self._client_paused = hold
            if hold:
                self._client.pause_reading()
            else:
                self._client.resume_reading()

    def server_full(self, full: bool) -> None:
        """The server takes no more for now, or again."""
        self._server_is_full = full
        self._balance_client()
        if not full and self._reading_message:
            self.loop.call_soon(self._pump_message)

    def pause_filter_input(self) -> None:
        """FilterOwner."""
        self._filter_is_full = True
        self._balance_client()

    def resume_filter_input(self) -> None:
        """FilterOwner."""
        self._filter_is_full = False
        self._balance_client()

    def hold_server(self) -> None:
        """The client takes no more for now: do not read the server."""
        if self._server is not None:
            self._server.pause_reading()

    def release_server(self) -> None:
        """The client takes more again."""
        if self._server is not None:
            self._server.resume_reading()

    # Time.

    def tick(self, now: float) -> None:
        """Called about once a second."""
        if now >= self._deadline:
            self._deadline = NEVER
            if self._closing:
                self._abort()
                return
            self._overdue(now)
        if now >= self._message_deadline:
            self._message_deadline = NEVER
            self.feed(events.MessageTimedOut())
        if now >= self._keep_alive_at:
            self._keep_alive_at = now + self.proxy.settings.keep_alives
            self.feed(events.KeepAlive())
        if now >= self._session_deadline:
            self._session_too_long(now)

    def _overdue(self, now: float) -> None:
        """What is waited for has not come. A client that is not read at the moment is not the one who is slow."""
        wait = self._wait
        if wait is Wait.TEXT and self._filter_is_full:  # the filter's own limit (FilterTimeout) runs
            self._deadline = now + self.proxy.limits[wait]
            return
        self.feed(events.DeadlinePassed(Wait.SENDING if wait is Wait.TEXT and self._server_is_full else wait))

    def _session_too_long(self, now: float) -> None:
        """SessionTimeOut: the running transaction may still end, unless it is one that never will."""
        if self._winding_down:
            self._session_deadline = NEVER
            self.feed(events.Shutdown())
            return
        self._winding_down = True
        self._session_deadline = now + self.proxy.settings.message_time_out + self.proxy.limits[Wait.FINAL]
        self.feed(events.WindDown(Reason.AGE))

    # The end.

    def _abort(self) -> None:
        for transport in (self._client, self._server):
            if transport is not None:
                transport.abort()

    def _maybe_finished(self) -> None:
        over = self.session.ended or self._crashed
        if over and self._client is None and self._server is None and self._dialling is None:
            self._finished()

    def _finished(self) -> None:
        self._release_run()
        for handle in self._upstreams:
            self.proxy.admission.remove_upstream(self.proxy.worker, handle)
        self._upstreams.clear()
        self.proxy.finished(self)


_PERFORMERS: dict[type, Callable[[Connection, Any], None]] = {
    effects.SendClient: Connection._send_client,  # noqa: SLF001  (the class's own table)
    effects.SendServer: Connection._send_server,  # noqa: SLF001
    effects.CloseClient: Connection._close_client,  # noqa: SLF001
    effects.CloseServer: Connection._close_server,  # noqa: SLF001
    effects.StartFilter: Connection._start_filter,  # noqa: SLF001
    effects.FilterData: Connection._filter_data,  # noqa: SLF001
    effects.FilterFinish: Connection._filter_finish,  # noqa: SLF001
    effects.FilterAbort: Connection._filter_abort,  # noqa: SLF001
    effects.ReadMessage: Connection._read_message,  # noqa: SLF001
    effects.Deadline: Connection._set_deadline,  # noqa: SLF001
    effects.MessageClock: Connection._message_clock,  # noqa: SLF001
    effects.Log: Connection._log,  # noqa: SLF001
}
