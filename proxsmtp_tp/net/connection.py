"""One client and its server: performs what the session decides. The only module that writes to a peer.

It handles bytes and time, never SMTP. Its parts: `opening` (the beginning), `back_pressure` (which side is read),
`judging` (the message at the filter), `deadlines`, `reporting` (the log), `session_row` (what `sessions` shows).

Effects are performed in order without awaiting anything, so that no event can come in between. An error in here or in
the session is a bug: it is logged with its traceback and ends this one connection with 421.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from proxsmtp_tp.filters.callbacks import callback
from proxsmtp_tp.net.back_pressure import BackPressure
from proxsmtp_tp.net.deadlines import NEVER, Deadlines
from proxsmtp_tp.net.doctor_sessions import is_of_doctor
from proxsmtp_tp.net.handshake_limits import Place
from proxsmtp_tp.net.judging import Judging
from proxsmtp_tp.net.measuring import FilterTimes, count_crash
from proxsmtp_tp.net.opening import Opening
from proxsmtp_tp.net.original_destination import endpoint
from proxsmtp_tp.net.reporting import Reporting
from proxsmtp_tp.net.serving import server_port
from proxsmtp_tp.net.session_row import ShownSession
from proxsmtp_tp.net.sides import reset, was_reset
from proxsmtp_tp.net.tls_connection import ConnectionTls
from proxsmtp_tp.net.upstream import Upstream
from proxsmtp_tp.session import effects, events, measuring
from proxsmtp_tp.session.record import Trace
from proxsmtp_tp.session.session import Session
from proxsmtp_tp.session.state import Wait
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.telemetry import dates
from proxsmtp_tp.telemetry.facts import LimitHit, LimitRefusal, Refusal, SessionEnd, Transaction

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from proxsmtp_tp.net.context import WorkerContext


def rfc5322_date() -> str:
    """The current date in local time (RFC 5322 section 3.3)."""
    return dates.date(time.time())


class Connection:
    """Lives from accept until both sides are closed."""

    __slots__ = (
        "_client_finished", "_connect_seconds", "_connection_tls", "_context", "_continuing", "_crashed", "_judging",
        "_limits", "_measured", "_on_finished", "_opening", "_peer", "_place", "_pressure", "_shown", "_sock",
        "_upstream", "_words", "client", "client_ip", "client_port", "closing", "local_ip", "loop", "metrics", "name",
        "quiet", "reporting", "server", "server_ip", "server_port", "session", "share", "times", "trace_id",
    )  # fmt: skip

    def __init__(
        self,
        context: WorkerContext,
        accepted: tuple[socket.socket, Any],
        names: tuple[str, str],
        finished: Callable[[Connection], None],
    ) -> None:
        """`accepted`: what accept(2) returned. `names`: the id at the beginning of log lines, as in 1.10, and the trace
        id. `finished` is called when both sides are closed, perhaps more than once. Raises OSError.
        """
        sock, came_from = accepted
        self._context = context
        self._on_finished = finished
        self.name, self.trace_id = names
        self.loop = context.loop
        self._sock = sock
        # Not sock.family, which makes an Enum: only a unix socket has a name that is no tuple.
        name = sock.getsockname() if isinstance(came_from, tuple) else None
        self._peer = endpoint(came_from) if name is not None else None
        self.local_ip = sys.intern(endpoint(name).ip) if name is not None else ""  # one for all sessions
        self.client_ip = self._peer.ip if self._peer else ""
        self.client_port = self._peer.port if self._peer else 0
        self.server_ip = ""
        self.server_port = 0
        self.share: tuple[int, str] | None = None
        """Its handle in the table of all workers, and the client that it is counted for."""
        self.client: Any = None
        self.server: Any = None
        self._continuing = self._client_finished = self._crashed = self.closing = False
        self._connect_seconds: float | None = None
        self._judging: Judging | None = None
        """None: no filter was asked yet."""
        self._connection_tls: ConnectionTls | None = None
        self.quiet = is_of_doctor(context.admission.switches, sock, self._peer, self.local_ip)
        self.metrics = context.unmeasured if self.quiet else context.metrics
        self._begin_session()
        upstream = Upstream(context, sock, self._peer, (came_from, name) if name is not None else (None, None))
        self._upstream: Upstream | None = upstream
        self._opening: Opening | None = Opening(self, context, upstream, sock, self._peer)
        """None: the server's transport is made, and an idle session needs less memory."""

    def _begin_session(self) -> None:
        """Make the session and what belongs to it."""
        context, now = self._context, self.loop.time()
        trace = Trace(self.trace_id, context.ticks)
        self.session = session = Session(
            context.options, client_ip=self.client_ip, local_ip=self.local_ip, clock=rfc5322_date, trace=trace
        )
        if context.settings.tls_wrapped:
            session.expect_port(server_port(context.settings, self._sock))
        self._measured, self._words = session.measured, self.metrics.words
        self._limits = context.client_limits.enter(self.client_ip, self.trace_id)
        session.use_limits(self._limits)
        session.use_bypass(context.bypass)
        self.reporting = Reporting(context, self, self.client_port, quiet=self.quiet)
        self._follow()
        self._place: Place | None = None
        if context.tls is not None:
            self._place = Place(context.tls.handshakes, self.client_ip)
            session.use_handshakes(self._place)
            session.use_rejections(context.tls.rejections_of(self.client_ip))
        self._pressure = BackPressure(self)
        self.times = Deadlines(context.settings, context.limits, now)
        self._shown = ShownSession(context.sessions, self, self._peer, now)

    # The connection begins.

    def open(self) -> None:
        """Make the client's transport, and then connect to its server. Raises nothing."""
        if self._opening is not None and not self._opening.take_over():
            self._finished()

    @property
    def opened(self) -> bool:
        """Whether the client's transport is ready, so that events can be fed."""
        return self.client is not None or self.closing

    def client_made(self, transport: Any) -> None:
        """The client's transport is ready; its first bytes may follow at once."""
        self.client = transport

    def client_opened(self) -> None:
        """The client's transport is ready: connect to its server."""
        if self._peer is not None and self.client.get_extra_info("peername") is None:
            self.client.abort()  # the client is gone: no server is dialled for it
        elif self._opening is not None and not self.closing:
            self._opening.find_server()

    def server_made(self, transport: Any) -> None:
        """The upstream connection is ready; its greeting may follow at once."""
        self.server = transport
        if self._opening is not None:
            self._connect_seconds = self._opening.seconds
        if self.session.ended:
            transport.abort()
        else:
            self.feed(events.Connected(self.server_ip, self.server_port))
        self._opening = None
        self.dialled()

    def dialled(self) -> None:
        """Connecting to the server has succeeded, failed or was cancelled."""
        self._maybe_finished()

    @callback
    def follow(self) -> None:
        """Begin or end to trace this session, as the master has set it."""
        self._follow()

    def _follow(self) -> None:
        tracing = self._context.tracing
        self.reporting.traced = tracing.follows(self.client_ip)
        self.session.trace(tracing.wants(self.client_ip))

    @property
    def judging(self) -> Judging:
        """The messages at the filter. Made with the first message: an idle session needs less memory without it."""
        if self._judging is None:
            context = self._context
            self._judging = Judging(self, context.filter, context.loop, context.remember, FilterTimes(self.metrics))
        return self._judging

    # Events.

    def feed(self, event: events.Event) -> None:
        """Feed one event to the session, and perform its effects."""
        if self._crashed:
            return
        try:  # without the decorator `callback`, which would take a microsecond for each event
            session = self.session
            self.perform(session.feed(event))
            self._pressure.balance()
            if session.more and not self._continuing:
                self._continuing = True
                self.loop.call_soon(self._continue)
        except Exception as error:  # noqa: BLE001  (a bug must cost one connection, not the worker)
            self.failed(error)

    def _continue(self) -> None:
        """Other connections were served: handle what the last feed left."""
        self._continuing = False
        if self.session.more:
            self.feed(events.Continue())
            self._maybe_finished()

    def client_data(self, data: bytes) -> None:
        """Bytes from the client; after the end of the session they are discarded."""
        if not self.closing:
            self.times.octets += len(data)
            self.feed(events.ClientData(data))

    def client_eof(self, *, clean: bool = True) -> None:
        """The client has closed its sending half. Not `clean`: it did so without close_notify of TLS, so its connection
        counts as lost."""
        self._client_finished = True
        if self.closing:
            self.client.close()
        else:
            self.feed(events.ClientClosed(half=clean))

    def client_finishes(self) -> None:
        """The client of a passed connection has closed its sending half."""
        self._client_finished = True

    def tls_broken(self, side: str, reason: str) -> None:
        """TLS of a side has failed after its handshake."""
        text = f"client={self.client_ip}, server={self.server_ip}: TLS with the {side} has failed: {reason}"
        self.reporting.say(logging.WARNING, text)
        self.metrics.count(measuring.tls(side, self.session.tls_action, "broken"))

    def client_lost(self) -> None:
        """The client's connection has ended."""
        self.client = None
        self.closing = True
        self.feed(events.ClientClosed(half=False))
        self._maybe_finished()

    def server_data(self, data: bytes) -> None:
        """Bytes from the server."""
        self.server_speaks()
        self.feed(events.ServerData(data))

    def server_speaks(self) -> None:
        """The server has sent something: it is not this proxy."""
        if self._upstream is not None and self._upstream.answered():
            self._upstream = None  # an idle session needs less memory without it

    def server_eof(self) -> None:
        """The server has closed its sending half: it can answer nothing more, so nothing more is sent to it."""
        if self.server is not None:
            self.server.abort()

    def server_lost(self) -> None:
        """The server's connection has ended."""
        self.server = None
        self._pressure.server_is_full = False  # no more callbacks come: what the client still sends must be read
        if self._judging is not None:
            self._judging.stop_reading()
        self.feed(events.ServerClosed())
        self._maybe_finished()

    def server_full(self, full: bool) -> None:
        """The server does not read fast enough, or reads again."""
        self._pressure.server_full(full)
        if not full and self._judging is not None:
            self._judging.server_ready()

    @property
    def server_is_full(self) -> bool:
        """Whether the server does not read fast enough."""
        return self._pressure.server_is_full

    def client_full(self, full: bool) -> None:
        """The client does not read, or reads again. Called within a write: the session gets its event afterwards."""
        self._pressure.client_is_full = full
        self.loop.call_soon(self._tell_client_full)

    def _tell_client_full(self) -> None:
        self.feed(events.ClientFull(self._pressure.client_is_full))

    def filter_waits(self) -> None:
        """The current message waits for a place for a filter from now on."""
        self._shown.filter_waits(self.loop.time())

    def filter_started(self) -> None:
        """A filter of the current message runs from now on."""
        self._shown.filter_started(self.loop.time())

    def failed(self, error: BaseException) -> None:
        """A bug, here, in the session or in the filter: the session gets no more events, and the connection ends."""
        if self._crashed:
            return
        self._crashed = True
        text = f"client={self.client_ip}: internal error: closing"
        self.reporting.say(logging.ERROR, text, essential=True, error=error)
        self._cancel_dialling()
        if self.server is not None:
            self.server.abort()
        if self.client is not None and not self.closing:
            count_crash(self.metrics)
            self.client.write(answers.INTERNAL_ERROR.traced(self.trace_id).wire)
            self._close_client(effects.CloseClient())
        self._release_filter()
        self._maybe_finished()

    def complete(self, facts: Transaction) -> None:
        """A transaction has ended: add what only this connection knows. Once for each transaction."""
        facts.port = self.server_port
        facts.seconds.connect = self._connect_seconds
        facts.seconds.wait = self._judging.waited() if self._judging is not None else None

    # Effects.

    def perform(self, todo: list[effects.Effect]) -> None:
        if measured := self._measured:
            words = self._words
            for index in measured:
                words[index] += 1
            measured.clear()
        for effect in todo:
            # The three of nearly every event; the table has all others.
            if isinstance(effect, effects.Deadline):
                self._set_deadline(effect)
            elif isinstance(effect, effects.SendServer):
                if self.server is not None:
                    self.server.write(effect.data)
            elif isinstance(effect, effects.SendClient):
                if self.client is not None:
                    self.client.write(effect.data)
            else:
                _PERFORMERS[type(effect)](self, effect)

    def _close_client(self, effect: effects.CloseClient) -> None:
        """Close after the last reply, and read until then: with unread bytes the kernel would send a reset."""
        self.closing = True
        self.times.linger(self.loop.time(), hurry=self._context.ending is not None)
        self._shown.closing(self.loop.time())
        client = self.client
        if client is None:
            self._maybe_finished()
        elif effect.reset:
            reset(self._sock)
            client.abort()
        elif self._client_finished:
            client.close()
        else:
            self._pressure.release_client()
            client.write_eof()

    def _close_server(self, effect: effects.CloseServer) -> None:
        self._cancel_dialling()
        if self.server is not None:
            if effect.abort:
                self.server.abort()
            else:
                self.server.close()

    def _tls(self) -> ConnectionTls:
        if self._connection_tls is None:
            if self._context.tls is None:
                raise RuntimeError("the session starts TLS without a TLS policy")
            self._connection_tls = ConnectionTls(self, self._context.tls)
        return self._connection_tls

    def _start_filter(self, effect: effects.StartFilter) -> None:
        self._shown.judging_begins()
        self.judging.start(effect)

    def _set_deadline(self, effect: effects.Deadline) -> None:
        if self.closing:
            return
        now = self.loop.time()
        self._shown.wait(effect.wait, now)
        self.times.arm(effect.wait, now)

    def _filter_finish(self, _effect: effects.FilterFinish) -> None:
        self.times.message_complete(self.loop.time())
        if self._judging is not None:
            self._judging.finish()

    def _filter_data(self, effect: effects.FilterData) -> None:
        if self._judging is not None:
            self._judging.write(effect.text)

    def _read_message(self, _effect: effects.ReadMessage) -> None:
        if self._judging is not None:
            self._judging.read_back()

    def _release_filter(self, _effect: effects.FilterAbort | None = None) -> None:
        if self._judging is not None:
            self._judging.release()

    def _message_clock(self, effect: effects.MessageClock) -> None:
        if effect.running:
            self._shown.message_begins()
            self.times.message_begins(self.loop.time())
        else:
            self.times.message_ends()

    def _count(self, effect: effects.Count) -> None:
        if not self.quiet:
            self._context.admission.counters.count(self._context.worker, effect.counter)

    # Time.

    @callback
    def tick(self, now: float) -> None:
        """Called about once a second."""
        unheard = self._pressure.client_paused or self._client_finished
        if unheard and self.client is not None and was_reset(self._sock):
            self.client.abort()  # client_lost follows, and ends the filter
            return
        if self._shown.tick():
            self.feed(events.Shutdown(by_administrator=True))
        times = self.times
        if now >= times.step:
            times.step = NEVER
            if self.closing:
                self._abort()
                return
            self._overdue()
        for event in times.passed(now):
            self.feed(event)

    def _overdue(self) -> None:
        """The deadline of the current step has passed. If the client is not being read, the server is the slow side."""
        wait = self.times.wait
        self.feed(events.DeadlinePassed(Wait.SENDING if wait is Wait.TEXT and self.server_is_full else wait))

    # The connection ends.

    def _cancel_dialling(self) -> None:
        if self._opening is not None:
            self._opening.cancel()

    def _abort(self) -> None:
        for transport in (self.client, self.server):
            if transport is not None:
                transport.abort()

    def _maybe_finished(self) -> None:
        over = self.session.ended or self._crashed
        dialling = self._opening is not None and self._opening.dialling
        if over and self.client is None and self.server is None and not dialling:
            self._finished()

    def _finished(self) -> None:
        self._release_filter()
        if self._upstream is not None:
            self._upstream.forget()
        self._limits.leave()
        if self._place is not None:
            self._place.end()
        if self._connection_tls is not None:
            self._connection_tls.close()
        self._shown.end()
        self._on_finished(self)


_PERFORMERS: Final[dict[type, Callable[[Connection, Any], None]]] = {
    effects.CloseClient: Connection._close_client,  # noqa: SLF001  (the class's own table)
    effects.CloseServer: Connection._close_server,  # noqa: SLF001
    effects.PeekClientHello: lambda connection, effect: connection._tls().peek(effect),  # noqa: SLF001
    effects.LookUpTlsa: lambda connection, effect: connection._tls().look_up_server(effect),  # noqa: SLF001
    effects.StartServerTls: lambda connection, effect: connection._tls().start_server(effect),  # noqa: SLF001
    effects.StartClientTls: lambda connection, effect: connection._tls().start_client(effect),  # noqa: SLF001
    effects.RefuseTls: lambda connection, effect: connection._tls().refuse(effect),  # noqa: SLF001
    effects.PassTls: lambda connection, effect: connection._tls().pass_on(effect),  # noqa: SLF001
    effects.StartFilter: Connection._start_filter,  # noqa: SLF001
    effects.FilterData: Connection._filter_data,  # noqa: SLF001
    effects.FilterFinish: Connection._filter_finish,  # noqa: SLF001
    effects.FilterAbort: Connection._release_filter,  # noqa: SLF001
    effects.ReadMessage: Connection._read_message,  # noqa: SLF001
    effects.MessageClock: Connection._message_clock,  # noqa: SLF001
    effects.Count: Connection._count,  # noqa: SLF001
    effects.Log: lambda connection, effect: connection.reporting.log(effect),
    LimitHit: lambda connection, effect: connection.reporting.limit_hit(effect),
    LimitRefusal: lambda connection, effect: connection.reporting.limit_refusal(effect),
    Refusal: lambda connection, effect: connection.reporting.refusal(effect),
    Transaction: lambda connection, effect: connection.reporting.transaction(effect),
    SessionEnd: lambda connection, effect: connection.reporting.session_end(effect),
}
