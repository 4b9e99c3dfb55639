"""The filter run of a connection's message, and the reading back of the judged message.

Here the callbacks of a filter enter the connection: a bug in one ends it, with 421.

message text ──▶ filter       stored as it arrives, judged when it is complete
judged message ──▶ session    read back in chunks, one in a loop iteration, while the server reads them;
                              the end goes with the last one, so that most messages are one packet
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from proxsmtp_tp.filters.callbacks import callback
from proxsmtp_tp.filters.interface import FilterRequest
from proxsmtp_tp.session import events

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from proxsmtp_tp.filters.interface import Filter, FilterRun
    from proxsmtp_tp.filters.verdict import Verdict
    from proxsmtp_tp.net.measuring import FilterTimes
    from proxsmtp_tp.session import effects

CHUNK = 65536
"""Octets of the judged message read at a time: what a loop iteration may spend on one connection."""


class JudgingOwner(Protocol):
    """The connection whose messages are judged."""

    name: str
    trace_id: str
    client_ip: str
    server_ip: str
    local_ip: str
    client_port: int
    server_port: int

    @property
    def server_is_full(self) -> bool:
        """Whether the server does not read fast enough."""

    def feed(self, event: events.Event) -> None:
        """Feed one event to the session."""

    def filter_waits(self) -> None:
        """The current message waits for a place for its filter, or for the next one of the chain."""

    def filter_started(self) -> None:
        """The filter of the current message runs, or the next one of the chain."""

    def failed(self, error: Exception) -> None:
        """A bug: end the connection."""


class Judging:
    """The filtering of one connection's messages, one after the other. `judge` is the filter, or None.

    `remember` is told the client and the verdict of each message.
    """

    __slots__ = (
        "_filter", "_loop", "_owner", "_reading", "_remember", "_times", "run",
    )  # fmt: skip

    def __init__(
        self,
        owner: JudgingOwner,
        judge: Filter | None,
        loop: asyncio.AbstractEventLoop,
        remember: Callable[[str, Verdict], None],
        times: FilterTimes,
    ) -> None:
        self._times = times
        self._remember = remember
        self._owner = owner
        self._filter = judge
        self._loop = loop
        self.run: FilterRun | None = None
        """The run that gets the text; None: there is none."""
        self._reading = False

    def start(self, effect: effects.StartFilter) -> None:
        """Begin to judge a message."""
        owner = self._owner
        request = FilterRequest(
            connection=owner.name,
            envelope=effect.envelope,
            client=owner.client_ip,
            server=owner.server_ip,
            local=owner.local_ip,
            helo=effect.helo,
            remote=effect.remote,
            remote_helo=effect.remote_helo,
            trace_id=owner.trace_id,
            authenticated=effect.authenticated,
            login=effect.login,
            tls=effect.tls,
            client_port=owner.client_port,
            server_port=owner.server_port,
        )
        if self._filter is None:
            raise RuntimeError("the session asks for a filter that is not configured")
        self._times.begin()
        self.run = self._filter.start(request, self)

    def write(self, text: bytes) -> None:
        """The next piece of the message."""
        if self.run is not None:
            self.run.write(text)

    def finish(self) -> None:
        """The message is complete."""
        if self.run is not None:
            self._times.complete(self._loop.time())
            self.run.finish()

    def release(self) -> None:
        """The verdict and the judged message are not needed any more. Idempotent."""
        run, self.run = self.run, None
        self._reading = False
        if run is not None:
            self._times.left(self._loop.time())
            run.abort()
            run.close()

    def waited(self) -> float | None:
        """Seconds that the latest message has waited for places of its filters; None: no filter got it whole, or this
        was asked before.
        """
        return self._times.take_waited(self._loop.time())

    # The judged message.

    def read_back(self) -> None:
        """The message passed: feed it to the session, as fast as the server reads it."""
        self._reading = True
        self._loop.call_soon(self._pump)

    def server_ready(self) -> None:
        """The server reads again."""
        if self._reading:
            self._loop.call_soon(self._pump)

    def stop_reading(self) -> None:
        """The connection to the server has ended."""
        self._reading = False

    @callback
    def _pump(self) -> None:
        """Feed the next chunk, if the server reads."""
        owner = self._owner
        if not self._reading or owner.server_is_full or self.run is None:
            return
        try:
            chunk = self.run.read(CHUNK)
            more = self.run.read(CHUNK) if 0 < len(chunk) < CHUNK else chunk
        except OSError as error:
            self._reading = False
            owner.feed(events.MessageUnreadable(str(error)))
            return
        if not chunk:
            self._reading = False
            owner.feed(events.MessageEnd())
        elif more:
            owner.feed(events.MessageChunk(chunk if more is chunk else chunk + more))
            self._loop.call_soon(self._pump)
        else:
            self._reading = False
            owner.feed(events.MessageChunk(chunk, last=True))

    # FilterOwner.

    def filter_waits(self) -> None:
        """The message waits for a place."""
        self._times.waits(self._loop.time())
        self._owner.filter_waits()

    def filter_started(self) -> None:
        """The filter has a place and runs."""
        self._times.started(self._loop.time())
        self._owner.filter_started()

    @callback
    def filter_verdict(self, verdict: Verdict) -> None:
        """Feed the verdict to the session, which decides."""
        self._times.verdict(self._loop.time())
        self._remember(self._owner.client_ip, verdict.monitored or verdict)
        self._owner.feed(events.FilterVerdict(verdict))

    def filter_failed(self, error: Exception) -> None:
        """A bug in a callback of the filter."""
        self._owner.failed(error)

    def failed(self, error: Exception) -> None:
        """A bug in a callback of this object."""
        self._owner.failed(error)
