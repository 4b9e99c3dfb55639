"""What the session remembers for the log and for events. No decision depends on it.

`ticks` gives seconds of a monotonic clock, for durations.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from proxsmtp_tp.smtp.message_id import MessageIdFinder, value_at_once
from proxsmtp_tp.telemetry import facts

if TYPE_CHECKING:
    from proxsmtp_tp.filters.verdict import Verdict
    from proxsmtp_tp.session.parts import Message, Tls
    from proxsmtp_tp.smtp.envelope import Envelope
    from proxsmtp_tp.smtp.replies import Reply

INTERRUPTED: Final = "INTERRUPTED"
"""`status=` of a message whose connection ended before its final reply."""

REFUSED_KEPT: Final = 100
"""Refused recipients of a transaction that are stored with their codes; further ones are only counted. A client may
send 100 recipients (RFC 5321 section 4.5.3.1.8), and one that guesses addresses sends many more."""

_NAMES: Final = {  # literals, because compiled code has one object for equal ones: then a look-up does not compare
    b"EHLO": "ehlo", b"HELO": "helo", b"LHLO": "lhlo", b"MAIL": "mail", b"SEND": "send", b"SOML": "soml",
    b"SAML": "saml", b"RCPT": "rcpt", b"DATA": "data", b"BDAT": "bdat", b"RSET": "rset", b"QUIT": "quit",
    b"AUTH": "auth", b"STARTTLS": "starttls", b"NOOP": "noop", b"VRFY": "vrfy", b"EXPN": "expn", b"HELP": "help",
    b"ETRN": "etrn", b"XFORWARD": "xforward", b"XCLIENT": "xclient",
}  # fmt: skip
"""Verbs that are counted by their names; all others are `other`, because a client may invent any number of them."""


@dataclass(frozen=True, slots=True)
class Trace:
    """`id` is added to our own refusals ("": nothing is added); `ticks` gives seconds of a monotonic clock."""

    id: str = ""
    ticks: Callable[[], float] = float


class Recorded:
    """The part of the session's state that is reported; `dialogue.Dialogue` has the rest. No Protocol: compiled code
    would look up each attribute by its name.
    """

    __slots__ = ("client_gone", "envelope", "helo", "message", "server", "tls")

    server: str
    helo: bytes
    envelope: Envelope
    message: Message | None
    client_gone: bool
    tls: Tls


class TextRecord:
    """The text of one message: its Message-ID, and whether the filter changed it."""

    __slots__ = (
        "_finder", "_judged", "_received", "_searched",
        "complete_at", "message_id", "sent_at", "started_at", "verdict_at",
    )  # fmt: skip

    def __init__(self, started_at: float) -> None:
        self.message_id = b""
        """The Message-ID; empty: none was found."""
        self._searched = False
        """A piece of text has been searched for it."""
        self._finder: MessageIdFinder | None = None
        """None: the first piece has told it, as that of most messages does."""
        self._received = 0
        self._judged: int | None = None
        self.started_at = started_at
        self.complete_at: float | None = None
        self.verdict_at: float | None = None
        self.sent_at: float | None = None

    def received(self, text: bytes, *, judged: bool) -> None:
        """A piece of text from the client; `judged`: for a filter, without dot-stuffing."""
        if not self._searched and text:
            self._searched = True
            value = value_at_once(text)
            if value is None:
                self._finder = MessageIdFinder()
            else:
                self.message_id = value
        if self._finder is not None:
            self._finder.feed(text)
            self.message_id = self._finder.value
        if judged:
            self._received = zlib.crc32(text.replace(b"\r", b""), self._received)

    def read_back(self, text: bytes) -> None:
        """A piece of the message as the filter passed it."""
        self._judged = zlib.crc32(text.replace(b"\r", b""), self._judged or 0)

    @property
    def changed(self) -> bool | None:
        """See `facts.Transaction.changed`."""
        return None if self._judged is None else self._judged != self._received

    def seconds(self, now: float, total: float) -> facts.Seconds:
        """Durations until now."""
        found = facts.Seconds(total)
        found.client = None if self.complete_at is None else self.complete_at - self.started_at
        found.filter = _between(self.complete_at, self.verdict_at)
        found.server = _between(self.sent_at, now)
        found.reply = _between(self.complete_at, now)
        return found


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else max(0.0, end - start)


class Record:
    """What one session remembers for the log and for events."""

    __slots__ = (
        "_began",
        "_latest",
        "_mail_at",
        "_refused",
        "commands",
        "delivered",
        "limits",
        "measured",
        "number",
        "open",
        "refused",
        "refused_more",
        "server_left",
        "text",
        "ticks",
    )

    def __init__(self, ticks: Callable[[], float]) -> None:
        self.ticks = ticks
        self._began = self._mail_at = ticks()
        self.commands: dict[str, int] = {}
        """By verb in lower case: commands of the client. `_refused`: those that were refused; None: there are none."""
        self._refused: dict[str, int] | None = None
        self._latest = ""
        """The verb of the latest command."""
        self.measured: list[int] = []
        """Counters (`telemetry.metrics`) that have grown."""
        self.number = 0
        """Transactions so far."""
        self.delivered = 0
        """Messages with a positive final reply."""
        self.open = False
        """A transaction has begun, and has not been reported yet."""
        self.refused: tuple[tuple[bytes, int], ...] = ()
        self.refused_more = 0
        self.limits: tuple[facts.LimitHit, ...] = ()
        self.text: TextRecord | None = None
        self.server_left = False
        """The server has closed the connection, or has said 421."""

    # Commands.

    def command(self, verb: bytes) -> None:
        """The client has sent a command."""
        self._latest = name = _NAMES.get(verb, "other")
        commands = self.commands
        commands[name] = commands.get(name, 0) + 1

    def refused_here(self) -> None:
        """We refused the latest command."""
        if self._latest:
            self._count_refused(self._latest)

    def refused_there(self, line: bytes) -> None:
        """The server refused this command."""
        name = _NAMES.get(line[:8].split(b" ", 1)[0].strip().upper(), "other")
        if name in self.commands:
            self._count_refused(name)

    def _count_refused(self, name: str) -> None:
        if self._refused is None:
            self._refused = {}
        self._refused[name] = self._refused.get(name, 0) + 1

    # The transaction.

    def begin(self) -> None:
        """MAIL was accepted or refused."""
        self.number += 1
        self._mail_at = self.ticks()
        self.open = True

    def end(self) -> None:
        """The transaction has ended, and was reported."""
        self.open = False
        self.refused = ()
        self.refused_more = 0
        self.limits = ()
        self.text = None

    def recipient_refused(self, address: bytes, code: int) -> None:
        """RCPT was refused, by the server or by us."""
        if len(self.refused) < REFUSED_KEPT:
            self.refused += ((address, code),)
        else:
            self.refused_more += 1

    def text_begins(self) -> None:
        """The client may send the message."""
        self.text = TextRecord(self.ticks())

    def seconds(self) -> facts.Seconds:
        """Durations of this transaction until now."""
        now = self.ticks()
        total = max(0.0, now - self._mail_at)
        return facts.Seconds(total) if self.text is None else self.text.seconds(now, total)

    def transaction(self, state: Recorded, status: str, reply: Reply | None, filtered: str) -> facts.Transaction:
        """The transaction that ends now. `filtered`: how the filter ended, or what it said."""
        message, envelope, text = state.message, state.envelope, self.text
        verdict = message.verdict if message is not None else None
        told = facts.Transaction(
            self.number, status, state.server, state.helo, envelope.sender, envelope.recipients, list(self.refused)
        )
        told.refused_more = self.refused_more
        told.limits = list(self.limits)
        told.seconds = self.seconds()
        if state.tls.client is not None or state.tls.server is not None:
            told.client_tls, told.server_tls = state.tls.legs.reported
        told.filter_words = filtered
        if reply is not None:
            told.reply = reply.wire
            told.origin = _origin(reply, from_filter=verdict is not None and verdict.reply is reply)
        if text is not None:
            told.message_id = text.message_id
        told.is_message = message is not None
        if message is not None:
            if reply is not None and reply.positive:
                self.delivered += 1
            told.size = message.decoder.size
            told.duplicate_risk = message.sent and not message.answered and status == INTERRUPTED
            if verdict is not None:
                _add_verdict(told, verdict)
                if text is not None and message.sent:
                    told.changed = text.changed
        return told

    def rejected(self, state: Recorded, sender: bytes, reply: Reply | None) -> facts.Transaction:
        """FilterType reject refused MAIL."""
        return self._of_sender(state, facts.REJECTED, sender, reply)

    def refused_sender(self, state: Recorded, sender: bytes, reply: Reply) -> facts.Transaction:
        """The server refused MAIL."""
        return self._of_sender(state, facts.REFUSED, sender, reply)

    def _of_sender(self, state: Recorded, status: str, sender: bytes, reply: Reply | None) -> facts.Transaction:
        given = self.transaction(state, status, reply, "")
        given.sender = sender
        given.recipients = []
        self.end()
        return given

    # The session.

    def who_ends(self, state: Recorded) -> str:
        """`facts.SessionEnd.how`; ask before the session drops the server."""
        if "quit" in self.commands:
            return "quit"
        return "client" if state.client_gone else "server" if self.server_left else "proxy"

    def session_end(self, state: Recorded, how: str) -> facts.SessionEnd:
        """The last values of the session."""
        refused = self._refused or {}
        return facts.SessionEnd(
            server=state.server,
            helo=state.helo,
            how=how,
            commands={verb: (sent, refused.get(verb, 0)) for verb, sent in self.commands.items()},
            transactions=self.number,
            messages=self.delivered,
            seconds=max(0.0, self.ticks() - self._began),
        )


def _add_verdict(told: facts.Transaction, verdict: Verdict) -> None:
    told.verdict = verdict.action.value
    told.monitored = verdict.monitored.action.value if verdict.monitored is not None else ""
    told.judged = verdict.judged
    told.filter_failed = bool(verdict.failure)
    told.filter_words = told.filter_words or verdict.said


def _origin(reply: Reply, *, from_filter: bool) -> str:
    return "proxy" if reply.own else "filter" if from_filter else "server"
