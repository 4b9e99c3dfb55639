"""The entry point to a dialogue: `feed` an event, then perform the effects.

TRANSITIONS names the handler for every phase and event. A missing pair is a bug of the driver and raises KeyError.
After each event the client's waiting lines are looked at again, because a reply may allow the next command.

One `feed` does a limited amount of work, however much a peer has sent (the constants PER_FEED in `client` and
`server`). If `more` is true, input is left: the driver feeds Continue after other connections were served.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from proxsmtp_tp.session import (
    client,
    encrypting,
    events,
    limiting,
    message,
    passing,
    server,
    starttls,
    timing,
    wrapped,
)
from proxsmtp_tp.session.dialogue import Dialogue
from proxsmtp_tp.session.measuring import REFUSED, limited
from proxsmtp_tp.session.record import Trace
from proxsmtp_tp.session.state import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxsmtp_tp.session.effects import Effect
    from proxsmtp_tp.session.limits import ClientLimits, HandshakePlace, Rejections
    from proxsmtp_tp.session.options import Options
    from proxsmtp_tp.smtp.envelope import Envelope
    from proxsmtp_tp.smtp.replies import Reply
    from proxsmtp_tp.tls.facts import Legs

Handler = "Callable[[Dialogue, Any], None]"


def _ignore(_d: Dialogue, _event: object) -> None:
    """The event comes too late and has no effect."""


_ANY_PHASE: Final[dict[type, Any]] = {
    events.ServerData: server.data,
    events.Continue: server.go_on,
    events.ServerClosed: server.closed,
    events.FilterVerdict: _ignore,
    events.MessageChunk: _ignore,
    events.MessageEnd: _ignore,
    events.MessageUnreadable: _ignore,
    events.MessageTimedOut: _ignore,
    events.AnswerLate: _ignore,
    events.DeadlinePassed: timing.deadline_passed,
    events.KeepAlive: _ignore,
    events.WindDown: timing.wind_down,
    events.Shutdown: timing.shutdown,
    events.ClientData: client.client_data,
    events.ClientFull: client.client_full,
    events.ClientClosed: client.closed,
}

_OF_TLS: Final = (
    events.TlsaFound,
    events.ClientHelloSeen,
    events.ClientHelloFailed,
    events.TlsStarted,
    events.TlsFailed,
    events.PassingEnded,
)

TRANSITIONS: Final[dict[Phase, dict[type, Callable[[Dialogue, Any], None]]]] = {
    Phase.GREETING: _ANY_PHASE | {events.Connected: server.connected, events.ConnectFailed: server.connect_failed},
    Phase.COMMAND: _ANY_PHASE | {events.TlsaFound: encrypting.tlsa_found},
    Phase.AUTH: _ANY_PHASE,
    Phase.DATA: _ANY_PHASE
    | {
        events.ClientClosed: client.closed_in_text,
        events.FilterVerdict: message.verdict,
        events.MessageTimedOut: timing.message_timed_out,
        events.KeepAlive: timing.keep_alive,
    },
    Phase.SETTLING: _ANY_PHASE
    | {
        events.ClientClosed: client.closed_settling,
        events.FilterVerdict: message.verdict,
        events.MessageChunk: message.chunk,
        events.MessageEnd: message.chunks_end,
        events.MessageUnreadable: message.unreadable,
        events.AnswerLate: message.answer_late,
        events.MessageTimedOut: timing.message_timed_out,
        events.KeepAlive: timing.keep_alive,
    },
    Phase.SKIPPING: _ANY_PHASE
    | {
        events.ClientClosed: client.closed_in_text,
        events.MessageTimedOut: timing.message_timed_out,
    },
    Phase.STARTING_TLS: _ANY_PHASE
    | {
        events.ClientData: starttls.client_in_clear,
        events.ClientClosed: starttls.client_closed,
        events.ServerData: starttls.server_in_clear,
        events.ServerClosed: starttls.server_closed,
        events.ClientHelloSeen: starttls.hello,
        events.ClientHelloFailed: starttls.no_hello,
        events.TlsStarted: starttls.started,
        events.TlsFailed: starttls.failed,
    },
    Phase.ENCRYPTING: _ANY_PHASE
    | {
        events.ServerData: starttls.server_in_clear,
        events.TlsStarted: encrypting.encrypted,
        events.TlsFailed: encrypting.not_encrypted,
    },
    Phase.PASSING: _ANY_PHASE
    | {
        events.ClientData: _ignore,
        events.ServerData: _ignore,
        events.ClientClosed: passing.peer_lost,
        events.ServerClosed: passing.peer_lost,
        events.PassingEnded: passing.ended,
    },
    Phase.ENDED: dict.fromkeys([*_ANY_PHASE, events.Connected, events.ConnectFailed, *_OF_TLS], _ignore)
    | {events.PassingEnded: passing.ended},
}


class Session:
    """The session of one connection. Not reusable; after CloseClient every event is ignored."""

    __slots__ = ("_d",)

    def __init__(
        self, options: Options, *, client_ip: str, local_ip: str, clock: Callable[[], str], trace: Trace | None = None
    ) -> None:
        """`client_ip` connected to `local_ip` (%l); `clock` returns the date as RFC 5322 section 3.3 writes it.

        `trace`: without it there is no id, and durations are 0.
        """
        self._d = Dialogue(options, client=client_ip, local=local_ip, clock=clock, trace=trace or Trace())

    def feed(self, event: events.Event) -> list[Effect]:
        """Handle an event; return the effects in order. KeyError: the event cannot happen in this phase."""
        d, flow = self._d, self._d.flow
        if flow.lines_left and type(event) is events.ClientClosed:
            flow.client_closing = event
        else:
            TRANSITIONS[d.phase][type(event)](d, event)
        client.pump(d)
        if flow.client_closing is not None and not flow.lines_left:
            closed, flow.client_closing = flow.client_closing, None
            TRANSITIONS[d.phase][events.ClientClosed](d, closed)
            client.pump(d)
        return d.take_effects()

    def refuse(self, reply: Reply, reason: str) -> list[Effect]:
        """End a connection that must not be relayed, with `reply` in place of a greeting."""
        d = self._d
        d.server_gone = True
        d.record.measured.append(REFUSED)
        d.log(f"client={d.client}: {reason}", logging.WARNING)
        d.end(reply)
        return d.take_effects()

    def trace(self, on: bool) -> None:
        """Log the whole dialogue from now on, or no longer; secrets and message text are left out."""
        self._d.tracing.on = on

    def use_limits(self, limits: ClientLimits) -> None:
        """The limits of the client; without this call it has none."""
        self._d.refusals.limits = limits

    def use_bypass(self, bypass: Callable[[], bool]) -> None:
        """`bypass` tells at each DATA whether the filter is bypassed; without this call it never is."""
        self._d.data.bypass = bypass

    def use_handshakes(self, place: HandshakePlace) -> None:
        """How STARTTLS takes a place for its handshakes; without this call they are not limited."""
        self._d.tls.place = place

    def use_rejections(self, rejections: Rejections | None) -> None:
        """What is known of the client where TlsRejected is pass. None, or without this call: it is fail."""
        self._d.tls.rejections = rejections

    def expect_port(self, port: int) -> None:
        """The port of the server, before it is dialled: on one of TlsWrapped no reply is given in clear, not even a
        refusal.
        """
        wrapped.expect(self._d, port)

    def check_limits(self, server_ip: str) -> list[Effect]:
        """Before the server is dialled: end the connection if the client is locked or over a limit of connections.

        `server_ip` is the original destination; "" where the configuration says where mail goes.
        """
        d = self._d
        reply = limiting.at_greeting(d, server_ip)
        if reply is not None:
            d.server_gone = True
            d.record.measured.append(limited(reply))
            d.end(reply)
        return d.take_effects()

    @property
    def envelope(self) -> list[bytes]:
        """The addresses of the transaction, for the log: where they are hidden, replies must not show them either."""
        envelope = self._d.envelope
        return [*filter(None, (envelope.sender,)), *envelope.recipients]

    @property
    def measured(self) -> list[int]:
        """The counters (`telemetry.metrics`) that grew since the driver cleared this list. It counts them before it
        performs the effects, so that no peer has got a reply that is not counted.
        """
        return self._d.record.measured

    @property
    def more(self) -> bool:
        """Whether the last `feed` left input that can be handled now: then feed Continue."""
        d = self._d
        return (d.flow.lines_left or d.flow.replies_left) and d.phase is not Phase.ENDED

    @property
    def waiting_reply_octets(self) -> int:
        """Octets from the server that were not handled yet: the driver stops reading when they grow."""
        return len(self._d.replies)

    @property
    def waiting_octets(self) -> int:
        """Octets from the client that were not handled yet: the driver stops reading when they grow."""
        return self._d.lines.left

    @property
    def introduced(self) -> tuple[bytes, Envelope]:
        """The name that the client gave in EHLO or HELO, and the envelope as the server has accepted it so far."""
        return self._d.helo, self._d.envelope

    @property
    def legs(self) -> Legs:
        """What is known of TLS on both legs."""
        return self._d.tls.legs

    @property
    def passed_by(self) -> str:
        """The Tls line by which the client's TLS passes, not judged; "": it does not."""
        return self._d.tls.rule if self._d.tls.passed else ""

    @property
    def tls_action(self) -> str:
        """What TLS is used for, as counters name it (`telemetry.tls_outcomes`)."""
        return self._d.tls.action

    @property
    def idle(self) -> bool:
        """Whether no transaction is running."""
        d = self._d
        return d.phase is not Phase.ENDED and d.envelope.sender is None and d.message is None

    @property
    def ended(self) -> bool:
        """Whether the connection has ended: there are no more effects."""
        return self._d.phase is Phase.ENDED
