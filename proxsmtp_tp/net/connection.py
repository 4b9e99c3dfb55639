"""One client and its server: performs what the session decides. The only module that writes to a peer.

It handles bytes, back-pressure and time, never SMTP. A side that is slow stops the reading from the other side:

    client ──▶ server                the client is not read while the server is full, or its lines wait for replies
    server ──▶ client                the server is not read while the client is full, or its own replies wait
    client ──▶ client                a client that does not read its replies is not read, and its commands are not
    handled judged message ──▶ server        is read back only as fast as the server reads it

Effects are performed in order without awaiting anything, so that no event can come in between. An error in here or in
the session is a bug: it is logged with its traceback and ends this one connection with 421.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.net.deadlines import NEVER, Deadlines
from proxsmtp_tp.net.dialling import DialError
from proxsmtp_tp.net.judging import Judging
from proxsmtp_tp.net.measuring import FilterTimes, count_crash
from proxsmtp_tp.net.original_destination import Endpoint, NoDestinationError, endpoint
from proxsmtp_tp.net.reporting import Reporting
from proxsmtp_tp.net.serving import is_served
from proxsmtp_tp.net.session_row import ShownSession
from proxsmtp_tp.net.sides import ClientSide, ServerSide, keep_reading, reset, was_reset
from proxsmtp_tp.net.upstream import Upstream
from proxsmtp_tp.session import effects, events
from proxsmtp_tp.session.record import Trace
from proxsmtp_tp.session.session import Session
from proxsmtp_tp.session.state import Wait
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.telemetry import metrics
from proxsmtp_tp.telemetry.facts import Refusal, SessionEnd, Transaction
from proxsmtp_tp.telemetry.sessions import SessionPhase

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxsmtp_tp.net.context import WorkerContext

log = logging.getLogger(__name__)

BACKLOG_LIMIT = 65536
"""Octets of a peer that may wait before it is not read any more: enough for any group of commands."""


def rfc5322_date() -> str:
    """The current date in local time (RFC 5322 section 3.3)."""
    return formatdate(localtime=True)


class Connection:
    """Lives from accept until both sides are closed."""

    def __init__(
        self,
        context: WorkerContext,
        sock: socket.socket,
        names: tuple[str, str],
        finished: Callable[[Connection], None],
    ) -> None:
        """`names`: what log lines begin with, as 1.10 forms it, and the trace id. `finished` is called when both sides
        are closed, perhaps more than once. OSError: the client is gone.
        """
        self._context = context
        self._on_finished = finished
        self.name, self.trace_id = names
        self.loop = context.loop
        self._sock = sock
        peer = sock.getpeername()
        self._peer = endpoint(peer) if sock.family != socket.AF_UNIX else None
        own = endpoint(sock.getsockname()).ip if self._peer else ""
        self.client_ip = self._peer.ip if self._peer else ""
        self.server_ip = ""
        self.session = Session(
            context.options,
            client_ip=self.client_ip,
            local_ip=own,
            clock=rfc5322_date,
            trace=Trace(self.trace_id, self.loop.time),
        )
        self._limits = context.client_limits.enter(self.client_ip, self.trace_id)
        self.session.use_limits(self._limits)
        self.session.use_bypass(context.bypassed)
        self._reporting = Reporting(context, self, self._peer.port if self._peer else 0)
        self.follow()
        self._upstream = Upstream(context, sock, self._peer)
        self._client: Any = None
        self._server: Any = None
        self._client_paused = False
        self._server_paused = False
        self._client_is_full = False
        self._continuing = False
        self._client_finished = False
        self._crashed = False
        self._closing = False
        self.server_is_full = False
        self._judging = Judging(self, context.filter, context.loop, context.remember, FilterTimes(context.metrics))
        self._dialling: asyncio.Task[None] | None = None
        now = self.loop.time()
        self._times = Deadlines(context.settings, context.limits, now)
        self._shown = ShownSession(context.sessions, self, self._peer, now)

    # The connection begins.

    async def open(self) -> None:
        """Make the client's transport, and connect to its server. Raises nothing."""
        try:
            if self._peer:
                self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self.loop.connect_accepted_socket(lambda: ClientSide(self), self._sock)
        except OSError as error:
            text = f"client={self.client_ip}: the client closed the connection before it was served: {error}"
            self._reporting.say(logging.INFO, text)
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
        """The client's transport is ready: find out its destination."""
        self._reporting.say(logging.INFO, f"accepted connection from: {self._peer or 'a unix socket'}")
        if self._context.ending is not None:  # it was accepted just before the worker began to drain
            self.feed(events.WindDown(self._context.ending))
            if self.session.ended:
                return
        if not is_served(self._context.settings, self.client_ip):
            self._perform(self.session.refuse(answers.CLIENT_NOT_SERVED, "refused: its address is not in Clients"))
            return
        try:
            destination = self._upstream.destination()
        except NoDestinationError as error:
            self._perform(self.session.refuse(error.reply, str(error)))
            return
        self._perform(self.session.check_limits(destination.ip))
        if self.session.ended:
            return
        self._dialling = self.loop.create_task(self._dial(destination), name=f"dial {self.name}")
        self._dialling.add_done_callback(self._dialled)

    @property
    def opened(self) -> bool:
        """Whether the client's transport is ready, so that events can be fed."""
        return self._client is not None or self._closing

    async def _dial(self, destination: Endpoint) -> None:
        began = self.loop.time()
        try:
            sock, self.server_ip = await self._upstream.dial(destination)
        except DialError as error:
            if not self.session.ended:
                self._context.unreachable.failed(self._upstream.name(destination))
            self.feed(events.ConnectFailed(str(error)))
            return
        if self.session.ended:
            sock.close()
            return
        try:
            self._upstream.refuse_a_loop()
        except NoDestinationError as error:
            sock.close()
            self._perform(self.session.refuse(error.reply, str(error)))
            return
        self._context.unreachable.reached(self._upstream.name(destination))
        self._context.metrics.observe(metrics.SERVER_CONNECT, self.loop.time() - began)
        # Shielded: if the client closes while the transport is being made, server_made closes it.
        # Not create_connection: uvloop gives that one's socket to its transport only after connection_made, and a
        # transport that is aborted there would leave a socket that closes somebody else's descriptor later on.
        await asyncio.shield(self.loop.connect_accepted_socket(lambda: ServerSide(self), sock))

    def client_made(self, transport: Any) -> None:
        """The client's transport is ready; its first bytes may follow at once."""
        self._client = transport

    def server_made(self, transport: Any) -> None:
        """The upstream connection is ready; its greeting may follow at once."""
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

    def follow(self) -> None:
        """Trace this session, or no longer, as it is wanted now."""
        tracing = self._context.tracing
        self._reporting.traced = tracing.follows(self.client_ip)
        self.session.trace(tracing.wants(self.client_ip))

    # Events.

    def feed(self, event: events.Event) -> None:
        """Feed one event to the session, and perform its effects."""
        if self._crashed:
            return
        try:
            self._perform(self.session.feed(event))
            self._balance()
        except Exception as error:  # noqa: BLE001  (a bug must cost one connection, not the worker)
            self._crash(error)

    def _continue(self) -> None:
        """Other connections were served: handle what the last feed left."""
        self._continuing = False
        if self.session.more:
            self.feed(events.Continue())
            self._maybe_finished()

    def client_data(self, data: bytes) -> None:
        """Bytes from the client; after the end they are discarded."""
        if not self._closing:
            self._times.octets += len(data)
            self.feed(events.ClientData(data))

    def client_eof(self) -> None:
        """The client has closed its sending half."""
        self._client_finished = True
        if self._closing:
            self._client.close()
        else:
            self.feed(events.ClientClosed(half=True))

    def client_lost(self) -> None:
        """The client's connection has ended."""
        self._client = None
        self._closing = True
        self.feed(events.ClientClosed(half=False))
        self._maybe_finished()

    def server_data(self, data: bytes) -> None:
        """Bytes from the server."""
        self._upstream.answered()
        self.feed(events.ServerData(data))

    def server_eof(self) -> None:
        """The server has closed its sending half: it can answer nothing more, so nothing more is sent to it."""
        if self._server is not None:
            self._server.abort()

    def server_lost(self) -> None:
        """The server's connection has ended."""
        self._server = None
        self.server_is_full = False  # no more callbacks come: what the client still sends must be read
        self._judging.stop_reading()
        self.feed(events.ServerClosed())
        self._maybe_finished()

    def _crash(self, error: BaseException) -> None:
        """An internal error: the session gets no more events, and the connection ends."""
        text = f"client={self.client_ip}: internal error: closing"
        self._reporting.say(logging.ERROR, text, essential=True, error=error)
        self._crashed = True
        self._judging.release()
        if self._dialling is not None:
            self._dialling.cancel()
        if self._server is not None:
            self._server.abort()
        if self._client is not None and not self._closing:
            count_crash(self._context.metrics)
            self._client.write(answers.INTERNAL_ERROR.traced(self.trace_id).wire)
            self._close_client(effects.CloseClient())
        self._maybe_finished()

    def filter_started(self) -> None:
        """The filter of the current message runs from now on."""
        self._shown.filtering = True
        if self._times.wait is Wait.VERDICT:
            self._shown.enter(SessionPhase.FILTER, self.loop.time())

    # Effects.

    def _perform(self, todo: list[effects.Effect]) -> None:
        if measured := self.session.measured:
            words = self._context.metrics.words
            for index in measured:
                words[index] += 1
            measured.clear()
        for effect in todo:
            _PERFORMERS[type(effect)](self, effect)

    def _send_client(self, effect: effects.SendClient) -> None:
        if self._client is not None:
            self._client.write(effect.data)

    def _send_server(self, effect: effects.SendServer) -> None:
        if self._server is not None:
            self._server.write(effect.data)

    def _close_client(self, effect: effects.CloseClient) -> None:
        """Close after the last reply, reading on meanwhile: unread bytes would turn the close into a reset."""
        self._closing = True
        self._times.linger(self.loop.time(), hurry=self._context.ending is not None)
        self._shown.enter(SessionPhase.CLOSING, self.loop.time())
        client = self._client
        if client is None:
            self._maybe_finished()
        elif effect.reset:
            reset(self._sock)
            client.abort()
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

    def _filter_data(self, effect: effects.FilterData) -> None:
        self._judging.write(effect.text)

    def _filter_finish(self, _effect: effects.FilterFinish) -> None:
        self._judging.finish()

    def _filter_abort(self, _effect: effects.FilterAbort) -> None:
        self._judging.release()

    def _start_filter(self, effect: effects.StartFilter) -> None:
        self._shown.filtering = False
        self._judging.start(effect)

    def _read_message(self, _effect: effects.ReadMessage) -> None:
        self._judging.read_back()

    def _set_deadline(self, effect: effects.Deadline) -> None:
        if self._closing:
            return
        now = self.loop.time()
        if effect.wait is not self._times.wait:
            self._shown.wait(effect.wait, now)
        self._times.arm(effect.wait, now)

    def _message_clock(self, effect: effects.MessageClock) -> None:
        if effect.running:
            self._shown.messages += 1
            self._times.message_begins(self.loop.time())
        else:
            self._times.message_ends()

    def _count(self, effect: effects.Count) -> None:
        self._context.admission.counters.count(self._context.worker, effect.counter)

    def _log(self, effect: effects.Log) -> None:
        self._reporting.log(effect)

    def _report_refusal(self, effect: Refusal) -> None:
        self._reporting.refusal(effect)

    def _report_transaction(self, effect: Transaction) -> None:
        self._reporting.transaction(effect)

    def _report_end(self, effect: SessionEnd) -> None:
        self._reporting.session_end(effect)

    # Back-pressure.

    def _balance(self) -> None:
        """After each event: start or stop reading each side, and schedule Continue if the session left input."""
        self.balance_client()
        self._balance_server()
        if self.session.more and not self._continuing:
            self._continuing = True
            self.loop.call_soon(self._continue)

    def balance_client(self) -> None:
        """Start or stop reading the client."""
        hold = not self._closing and (
            self.server_is_full or self._client_is_full or self.session.waiting_octets > BACKLOG_LIMIT
        )
        if hold is not self._client_paused and self._client is not None:
            self._client_paused = hold
            keep_reading(self._client, not hold)
            if hold:
                self._times.hold_text(self.loop.time())
            else:
                self._times.release_text(self.loop.time())

    def _balance_server(self) -> None:
        """Start or stop reading the server."""
        hold = self._client_is_full or self.session.waiting_reply_octets > BACKLOG_LIMIT
        if hold is not self._server_paused and self._server is not None:
            self._server_paused = hold
            keep_reading(self._server, not hold)

    def server_full(self, full: bool) -> None:
        """The server does not read fast enough, or reads again."""
        self.server_is_full = full
        self.balance_client()
        if not full:
            self._judging.server_ready()

    def client_full(self, full: bool) -> None:
        """The client does not read, or reads again. Called within a write: the session gets its event afterwards."""
        self._client_is_full = full
        self.loop.call_soon(self._tell_client_full)

    def _tell_client_full(self) -> None:
        self.feed(events.ClientFull(self._client_is_full))

    # Time.

    def tick(self, now: float) -> None:
        """Called about once a second."""
        unheard = self._client_paused or self._client_finished
        if unheard and self._client is not None and was_reset(self._sock):
            self._client.abort()  # client_lost follows, and ends the filter
            return
        if self._shown.tick():
            self.feed(events.Shutdown(by_administrator=True))
        times = self._times
        if now >= times.step:
            times.step = NEVER
            if self._closing:
                self._abort()
                return
            self._overdue()
        for event in times.passed(now):
            self.feed(event)

    def _overdue(self) -> None:
        """The step's deadline has passed. If the client is not read at the moment, the server is the slow side."""
        wait = self._times.wait
        self.feed(events.DeadlinePassed(Wait.SENDING if wait is Wait.TEXT and self.server_is_full else wait))

    # The connection ends.

    def _abort(self) -> None:
        for transport in (self._client, self._server):
            if transport is not None:
                transport.abort()

    def _maybe_finished(self) -> None:
        over = self.session.ended or self._crashed
        if over and self._client is None and self._server is None and self._dialling is None:
            self._finished()

    def _finished(self) -> None:
        self._judging.release()
        self._upstream.forget()
        self._limits.leave()
        self._shown.end()
        self._on_finished(self)


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
    effects.Count: Connection._count,  # noqa: SLF001
    effects.Log: Connection._log,  # noqa: SLF001
    Refusal: Connection._report_refusal,  # noqa: SLF001
    Transaction: Connection._report_transaction,  # noqa: SLF001
    SessionEnd: Connection._report_end,  # noqa: SLF001
}
