"""One worker's part of the proxy: accepts clients, checks their deadlines, drains at the end.

All workers accept from the same listening sockets. If another worker has fewer connections, a worker waits 2 ms before
it accepts the next client: so a burst is spread over the cores, and a worker that hangs delays no client for longer.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.config.addresses import client_of_address
from proxsmtp_tp.filters.table import make_filter
from proxsmtp_tp.net.client_limits import WorkerLimits
from proxsmtp_tp.net.connection import Connection
from proxsmtp_tp.net.context import WorkerContext
from proxsmtp_tp.net.deadlines import NEVER, limits_of
from proxsmtp_tp.net.dialling import Waiting
from proxsmtp_tp.net.floods import Floods
from proxsmtp_tp.net.log_limit import LogLimit
from proxsmtp_tp.net.measuring import count_turned_away
from proxsmtp_tp.net.refusals import Refusals
from proxsmtp_tp.net.reporting import event_log
from proxsmtp_tp.net.serving import server_port, session_options, turned_away
from proxsmtp_tp.net.tracing import Tracing
from proxsmtp_tp.net.watching import Watch
from proxsmtp_tp.session import events
from proxsmtp_tp.session.state import Reason
from proxsmtp_tp.telemetry import addresses
from proxsmtp_tp.telemetry.counters import Counter
from proxsmtp_tp.telemetry.forms import FORMS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxsmtp_tp.config.settings import Settings
    from proxsmtp_tp.net.admission import Admission
    from proxsmtp_tp.net.tls_worker import WorkerTls

log = logging.getLogger(__name__)

TICK = 1.0
"""Seconds between checks of the deadlines, which are minutes long. A check takes the same time however often a deadline
was set."""

SLICE = 0.004
"""Seconds of work for many connections before the event loop runs again. A connection that ends takes a tenth of a
millisecond, and thousands may end at once."""

YIELD = 0.002
"""Seconds that a busier worker waits before it accepts a client."""

ACCEPT_PAUSE = 0.1
"""Seconds to wait when no descriptor is free for a client: a connection that ends frees some."""


class Proxy:
    """What a worker runs. Made inside its event loop."""

    def __init__(
        self,
        settings: Settings,
        listeners: Sequence[socket.socket],
        admission: Admission,
        worker: int,
        *,
        tls: WorkerTls | None = None,
    ) -> None:
        """`worker` is the row in the tables. `tls`: not None if there are Tls lines."""
        self.context = _context(settings, listeners, admission, worker, tls)
        self._loop = self.context.loop
        self._admission = admission
        self._worker = worker
        self._listeners = list(listeners)
        self._connections: dict[Connection, None] = {}
        """In the order in which they came."""
        self._names = itertools.count(1)
        self._trace_ids = admission.trace_ids.of(worker)
        self._floods = Floods(admission, worker)
        self._untold: deque[tuple[Connection, events.Event]] = deque()
        self._draining_until = NEVER
        self._done = self._loop.create_future()
        self._on_finished = self._finished  # bound once, not for each connection

    async def run(self) -> None:
        """Serve until drained or stopped."""
        for listener in self._listeners:
            self._listen(listener)
        try:
            while not self._done.done():
                due = self._loop.time() + TICK
                await asyncio.wait([self._done], timeout=TICK)
                if not self._done.done():
                    self.context.admission.loop_lag.late(self.context.worker, self._loop.time() - due)
                await self._tick()
        finally:
            self._floods.look(at_end=True)
            self._tell_left_out(all_of_them=True)
            if self.context.events is not None:
                self.context.events.close()
            self.context.watch.close()
            self.context.waiting.close()
            self.context.source_ports.close()
            if self.context.filter is not None:
                self.context.filter.close()

    def drain(self, reason: Reason) -> None:
        """Accept no more clients; `run` returns when every connection has ended, after DrainTimeOut at the latest.

        RELOAD: accepted connections may finish one transaction and send QUIT. STOP, also after RELOAD: only running
        transactions may finish; the time limit stays the same.
        """
        if self.context.ending in {reason, Reason.STOP}:
            return
        if self.context.ending is None:
            self._draining_until = self._loop.time() + self.context.settings.drain_time_out
            self._stop_listening()
        self.context.ending = reason
        self._tell(events.WindDown(reason))

    def stop(self) -> None:
        """End every connection now, each with its 421."""
        self.context.ending = Reason.STOP
        self._draining_until = NEVER  # lingering closes have their own limit
        self._stop_listening()
        self._tell(events.Shutdown())

    def _tell(self, event: events.Event) -> None:
        """Feed an event to all connections, SLICE seconds at a time. One that is not opened yet gets it later."""
        running = bool(self._untold)
        self._untold += [(connection, event) for connection in self._connections if connection.opened]
        if not running:
            self._tell_some()
        self._maybe_done()

    def _tell_some(self) -> None:
        until = time.monotonic() + SLICE
        while self._untold:
            connection, event = self._untold.popleft()
            connection.feed(event)
            if self._untold and time.monotonic() >= until:
                self._loop.call_soon(self._tell_some)
                return

    # Accepting.

    def _listen(self, listener: socket.socket) -> None:
        if self.context.ending is None:
            self._loop.add_reader(listener.fileno(), self._accept, listener)

    def _stop_listening(self) -> None:
        self.context.watch.close()
        for listener in self._listeners:
            self._loop.remove_reader(listener.fileno())
        self._listeners.clear()  # the caller of `Proxy` may close them now

    def _rest(self, listener: socket.socket, seconds: float) -> None:
        self._loop.remove_reader(listener.fileno())
        self._loop.call_later(seconds, self._wake, listener)

    def _wake(self, listener: socket.socket) -> None:
        self._listen(listener)
        self._accept(listener, willing=True)

    def _accept(self, listener: socket.socket, willing: bool = False) -> None:
        if self.context.ending is not None:
            return
        if not willing and self._admission.busier_than_others(self._worker):
            self._rest(listener, YIELD)
            return
        try:
            sock, peer = listener.accept()
        except (BlockingIOError, InterruptedError):
            return  # another worker was quicker
        except OSError as error:
            if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}:
                log.warning("can not accept: %s: raise LimitNOFILE, or lower MaxConnections", error.strerror)
                self._rest(listener, ACCEPT_PAUSE)
            return  # the client closed the connection before it was accepted
        address = peer[0] if isinstance(peer, tuple) else ""  # of a unix socket it is a path
        client = client_of_address(address)
        if not self._admission.try_enter(self._worker, client):
            self._turn_away(sock, client)
            return
        self._serve((sock, peer), client)

    def _turn_away(self, sock: socket.socket, client: str) -> None:
        full = self._admission.full
        if full:
            self._floods.full()
        else:
            self._floods.too_many(client)
        answer = turned_away(full=full)
        count_turned_away(self.context.metrics, full=full)
        settings = self.context.settings
        in_clear = not settings.tls_wrapped or server_port(settings, sock) not in settings.tls_wrapped
        try:
            if in_clear:
                sock.send(answer.wire, socket.MSG_DONTWAIT)  # an empty send buffer has space for a line
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it is gone already
        sock.close()

    def _serve(self, accepted: tuple[socket.socket, Any], client: str) -> None:
        name = f"{self._worker:X}{next(self._names) & 0xFFFFF:05X}"
        try:
            connection = Connection(self.context, accepted, (name, self._trace_ids.new()), self._on_finished)
        except OSError:
            accepted[0].close()
            self._admission.leave(self._worker, client)
            return
        if client:
            connection.share = self._admission.add_share(self._worker, client), client
        self._connections[connection] = None
        connection.open()

    # Ending.

    def _finished(self, connection: Connection) -> None:
        """Both sides of the connection are closed. Idempotent."""
        if connection in self._connections:
            del self._connections[connection]
            handle, client = connection.share or (None, "")
            if handle is not None:
                self._admission.forget(self._worker, handle)
            self._admission.leave(self._worker, client)
            self._maybe_done()

    def _maybe_done(self) -> None:
        if self.context.ending is not None and not self._connections and not self._done.done():
            self._done.set_result(None)

    async def _tick(self) -> None:
        now = self._loop.time()
        if now >= self._draining_until:
            self.stop()
        until = time.monotonic() + SLICE
        tracing = self.context.tracing.look()
        if self.context.events is not None:
            self.context.events.look()
        for connection in list(self._connections):
            if tracing:
                connection.follow()
            connection.tick(now)
            if time.monotonic() >= until:
                await asyncio.sleep(0)
                until = time.monotonic() + SLICE
        self._floods.look()
        self._tell_left_out()

    def _tell_left_out(self, *, all_of_them: bool = False) -> None:
        for line in self.context.log_limit.summaries(self._loop.time(), all_of_them=all_of_them):
            log.warning("%s", line)


def _context(
    settings: Settings, listeners: Sequence[socket.socket], admission: Admission, worker: int, tls: WorkerTls | None
) -> WorkerContext:
    """What the connections of this worker share."""
    loop, refusals = asyncio.get_running_loop(), Refusals(settings)

    def count(counter: Counter) -> None:
        admission.counters.count(worker, counter)

    return WorkerContext(
        settings=settings,
        loop=loop,
        admission=admission,
        worker=worker,
        listening_ports=frozenset(int(sock.getsockname()[1]) for sock in listeners if sock.family != socket.AF_UNIX),
        options=session_options(settings),
        limits=limits_of(settings),
        filter=make_filter(
            settings,
            admission.tally(worker),
            admission.places(worker),
            lambda name: admission.chain_places(name, worker),
        ),
        log_limit=LogLimit(),
        refusals=refusals,
        tracing=Tracing(admission.switches),
        sessions=admission.sessions.of(worker),
        form=FORMS[settings.log_format.value](addresses.current()),
        events=event_log(settings, lambda: count(Counter.EVENTS_LOST)),
        metrics=admission.metrics.of(worker),
        waiting=Waiting(loop, settings.connect_time_out),
        recent=admission.recent_messages.of(worker),
        unreachable=admission.unreachable.of(worker),
        watch=Watch(refusals, admission, worker, settings.connect_time_out),
        client_limits=WorkerLimits(settings, admission.clients, worker, count),
        tls=tls,
    )
