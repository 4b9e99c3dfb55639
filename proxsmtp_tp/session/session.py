"""The one door to a dialogue: `feed` an event, perform the effects.

TRANSITIONS says for every phase and every event what happens; a pair that is missing is a bug of the driver, and is
raised as one. After each event the client's waiting lines are looked at again, since a reply may have set them free.

One `feed` does a bounded amount of work, however much a peer has sent at once (the constants
PER_FEED in client and server). `more` says that something is left: the driver feeds Continue
after other connections had their turn.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.session import client, events, message, server, timing
from proxsmtp_tp.session.dialogue import Dialogue
from proxsmtp_tp.session.state import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxsmtp_tp.session.effects import Effect
    from proxsmtp_tp.session.options import Options
    from proxsmtp_tp.smtp.replies import Reply

Handler = "Callable[[Dialogue, Any], None]"


def _ignore(_d: Dialogue, _event: object) -> None:
    """Too late to matter."""


_ANY_PHASE: dict[type, Any] = {
    events.ServerData: server.data,
    events.Continue: server.go_on,
    events.ServerClosed: server.closed,
    events.FilterVerdict: _ignore,
    events.MessageChunk: _ignore,
    events.MessageEnd: _ignore,
    events.MessageUnreadable: _ignore,
    events.MessageTimedOut: _ignore,
    events.DeadlinePassed: timing.deadline_passed,
    events.KeepAlive: _ignore,
    events.WindDown: timing.wind_down,
    events.Shutdown: timing.shutdown,
    events.ClientData: client.client_data,
    events.ClientFull: client.client_full,
    events.ClientClosed: client.closed,
}

TRANSITIONS: dict[Phase, dict[type, Callable[[Dialogue, Any], None]]] = {
    Phase.GREETING: _ANY_PHASE | {events.Connected: server.connected, events.ConnectFailed: server.connect_failed},
    Phase.COMMAND: _ANY_PHASE,
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
        events.MessageTimedOut: timing.message_timed_out,
        events.KeepAlive: timing.keep_alive,
    },
    Phase.SKIPPING: _ANY_PHASE
    | {
        events.ClientClosed: client.closed_in_text,
        events.MessageTimedOut: timing.message_timed_out,
    },
    Phase.ENDED: dict.fromkeys([*_ANY_PHASE, events.Connected, events.ConnectFailed], _ignore),
}


class Session:
    """One connection. Not reusable; after CloseClient every event is ignored."""

    def __init__(self, options: Options, *, client_ip: str, local_ip: str, clock: Callable[[], str]) -> None:
        """`client_ip` who connected, `local_ip` where to (%l); `clock` gives the date of RFC 5322 section 3.3."""
        self._d = Dialogue(options, client=client_ip, local=local_ip, clock=clock)

    def feed(self, event: events.Event) -> list[Effect]:
        """What to do about an event, in order. KeyError: the driver fed what can not happen in this phase."""
        d, flow = self._d, self._d.flow
        if type(event) is events.ClientClosed and flow.lines_left:
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
        """End a connection that must not be relayed at all, before anything was said."""
        d = self._d
        d.server_gone = True
        d.log(f"client={d.client}: {reason}", logging.WARNING)
        d.end(reply)
        return d.take_effects()

    @property
    def more(self) -> bool:
        """The last `feed` left something that can be acted on now: feed Continue."""
        d = self._d
        return (d.flow.lines_left or d.flow.replies_left) and d.phase is not Phase.ENDED

    @property
    def waiting_reply_octets(self) -> int:
        """Octets of the server that wait to be acted on: the driver stops reading when they grow."""
        return len(self._d.replies)

    @property
    def waiting_octets(self) -> int:
        """Octets of the client that wait to be acted on: the driver stops reading when they grow."""
        return len(self._d.lines)

    @property
    def idle(self) -> bool:
        """Nothing of a transaction is going on."""
        d = self._d
        return d.phase is not Phase.ENDED and d.envelope.sender is None and d.message is None

    @property
    def ended(self) -> bool:
        """Every effect has been given."""
        return self._d.phase is Phase.ENDED
