"""The state of one connection, and the basic operations on it. Makes no decision.

Replies to the client are sent in the order of its commands: a reply of our own waits in `outstanding` after the replies
that the server has not sent yet. Commands are sent to the server in groups only if the server offered PIPELINING.
Otherwise a command of our own waits in `queued`; the client's next line is read only when it can be sent.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from proxsmtp_tp.session import effects, measuring, waits
from proxsmtp_tp.session.bounds import Flow, Refusals, ReplyJoiner
from proxsmtp_tp.session.parts import DataCommand, OwnCommands, PendingReply, RemovedOffers, Tls
from proxsmtp_tp.session.record import INTERRUPTED, Record, Recorded, Trace
from proxsmtp_tp.session.state import GROUPED, Expect, Phase, Sink, Wait
from proxsmtp_tp.session.tracing import Tracing
from proxsmtp_tp.smtp.capabilities import NO_CAPABILITIES
from proxsmtp_tp.smtp.envelope import Envelope
from proxsmtp_tp.smtp.lines import AUTH_LIMIT, LineBuffer
from proxsmtp_tp.smtp.login import NO_EXCHANGE, NO_LOGIN
from proxsmtp_tp.smtp.replies import ReplyReader
from proxsmtp_tp.telemetry.counters import Counter
from proxsmtp_tp.telemetry.facts import ABANDONED, REFUSED
from proxsmtp_tp.telemetry.metrics import CLIENT_REPLIES
from proxsmtp_tp.telemetry.quoting import printable, quoted

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxsmtp_tp.session.effects import Effect
    from proxsmtp_tp.session.options import Options
    from proxsmtp_tp.session.parts import Message
    from proxsmtp_tp.smtp.replies import Reply

TRACED: Final = 2000
"""Octets of a line or reply in a trace: the longest command that RFC 5321 allows (section 4.5.3.1.4) with parameters of
extensions, and half of what a log line may have."""

OUTSTANDING_LIMIT: Final = 1000
"""Commands that may wait for a reply: ten transactions of 100 recipients (RFC 5321 section 4.5.3.1.8) in one group.
Further commands are not read, so that a server that never answers cannot make the memory grow without limit."""

OUTSTANDING_OCTETS: Final = 128 * 1024
"""The same limit in octets: commands are kept until they are answered, and the server may not read them."""

JOINED: Final = 4096
"""Octets to the server to which what follows is joined: many short commands. To join text would cost copies."""

_CLIENT_REPLIES: Final = CLIENT_REPLIES  # a name of another module is looked up, unless it is Final there

_TLS_PHASES: Final = frozenset({Phase.STARTING_TLS, Phase.PASSING})
"""Both peers expect TLS, which the session has not: nothing may be said to them."""

_NO_QUIT: Final = frozenset({Phase.GREETING, Phase.AUTH, Phase.ENCRYPTING}) | _TLS_PHASES
"""In AUTH the server would read QUIT as the next line of the exchange."""


_GOES_ON: Final = frozenset({Phase.SETTLING, Phase.STARTING_TLS, Phase.ENCRYPTING})
"""While the client does not read: a complete message gets its final reply first, and a handshake, which has one of few
places, keeps its own deadline."""

# Members that every event compares (see `state._Name`).
_COMMAND: Final = Phase.COMMAND
_DATA: Final = Phase.DATA
_ENDED: Final = Phase.ENDED
_LOCAL: Final = Expect.LOCAL
_OUR_RSET: Final = Expect.OUR_RSET

_EMPTY: Final = Envelope()
"""The envelope between two transactions, the same for all sessions. `own_envelope` gives one that may be changed."""


class Dialogue(Recorded):
    """The state of one session between one client and one server."""

    __slots__ = (
        "_deadline", "_joiner", "authenticated", "capabilities", "client", "client_ident", "client_known",
        "clock", "data", "effects", "end_after_replies", "end_after_transaction",
        "first_transaction_allowed", "flow", "ident_refused", "lines", "local", "logged_once",
        "login", "login_exchange", "options", "ours", "outstanding", "phase", "progress", "queued",
        "recipient_lines", "recipient_octets", "record", "refusals", "remote", "remote_helo", "removed",
        "replies", "said_mail", "server_gone", "sync", "trace_id", "tracing",
        "unseen_effects", "xclient_sent",
    )  # fmt: skip

    def __init__(self, options: Options, *, client: str, local: str, clock: Callable[[], str], trace: Trace) -> None:
        """`client` and `local` are IP addresses; `clock` gives the date as RFC 5322 section 3.3 writes it."""
        self.options = options
        self.tracing = Tracing(options.trace)
        self.client = client
        self.local = local
        self.clock = clock
        self.trace_id = trace.id
        self.record = Record(trace.ticks)
        self.server = ""
        self.phase = Phase.GREETING
        self.lines = LineBuffer(AUTH_LIMIT)
        self.replies = ReplyReader()
        self.outstanding: list[PendingReply] = []  # not a deque, which takes 760 octets even if it is empty
        self.queued: tuple[PendingReply, ...] = ()
        self.sync = False
        """No other command may be sent before the reply to the last one."""
        self.capabilities = NO_CAPABILITIES
        self.ours, self.removed, self.tls = OwnCommands(), RemovedOffers(), Tls()
        self.envelope = _EMPTY
        self.recipient_octets = self.recipient_lines = 0
        self.message: Message | None = None
        self.helo = self.remote = self.remote_helo = b""
        self.client_ident = self.ident_refused = self.authenticated = False
        self.login, self.login_exchange = NO_LOGIN, NO_EXCHANGE
        self.xclient_sent = False
        self.client_known = not options.xclient
        """The server knows the client's address, or does not need it. Until then no transaction may begin."""
        self.data = DataCommand()
        self.refusals = Refusals()
        self.flow = Flow()
        self.logged_once: tuple[bytes, ...] = ()
        self.client_gone = False
        """The client has closed its sending half, or the connection."""
        self.server_gone = False
        """The connection to the server has ended: nothing more is sent to it or expected from it."""
        self.end_after_transaction: Reply | None = None
        """The last reply, if the connection ends after the running transaction; None: it goes on."""
        self.first_transaction_allowed = False
        """With `end_after_transaction`: a client that has not sent MAIL yet may finish one transaction; others may
        QUIT."""
        self.said_mail = False
        """The client has sent MAIL, accepted or not."""
        self.end_after_replies: Reply | None = None
        """The last reply, if the connection ends after all pending replies were sent; None: it goes on."""
        self.effects: list[Effect] = []
        self._joiner = ReplyJoiner()
        self.unseen_effects: list[Effect] = []
        """Effects that send nothing to a peer. Kept apart, so that consecutive data for one peer is sent as one."""
        self._deadline = waits.NOTHING
        self.progress = False

    # Replies to the client.

    def tell(self, reply: Reply) -> None:
        """Send a reply of our own to the client's latest command, after the replies still expected of the server."""
        if reply.negative:
            self.record.refused_here()
        if self.outstanding:
            self.outstanding.append(PendingReply(_LOCAL, reply=reply))
        else:
            self.pass_on(reply)

    def pass_on(self, reply: Reply) -> None:
        """Send a reply to the client now. A refusal of our own gets the trace id at its end."""
        self.record.measured.append(_CLIENT_REPLIES + reply.code // 100)
        if reply.code == 421:
            self.record.measured.append(measuring.closed(reply))
        if reply.own:
            reply = reply.traced(self.trace_id)
        if self.tracing.on:
            self.trace("CLIENT >", self.tracing.reply(reply))
        self._joiner.add(self.effects, reply.wire)

    def release_local_replies(self) -> None:
        """Send the replies of our own that no longer wait for a reply of the server."""
        outstanding = self.outstanding
        while outstanding and outstanding[0].expect is _LOCAL:
            reply = outstanding.pop(0).reply
            if reply is not None:
                self.pass_on(reply)

    # Commands to the server.

    def may_ask(self) -> bool:
        """Whether a command may be sent now."""
        if not self.outstanding:
            return True
        below_limit = len(self.outstanding) < OUTSTANDING_LIMIT and self.flow.asked_octets < OUTSTANDING_OCTETS
        return below_limit and self.capabilities.pipelining and not self.sync and not self.queued

    def ask(self, pending: PendingReply) -> None:
        """Send a command (`pending.line`, with its CRLF), now or as soon as it may be sent."""
        self.ours.covers_rset = pending.expect is _OUR_RSET
        if not self.queued and self.may_ask():
            self._send_command(pending)
        else:
            self.queued += (pending,)

    def ask_queued(self) -> None:
        """Send the waiting commands of our own that may be sent now."""
        while self.queued and (not self.outstanding or (self.capabilities.pipelining and not self.sync)):
            pending, *left = self.queued
            self.queued = tuple(left)
            self._send_command(pending)

    def _send_command(self, pending: PendingReply) -> None:
        self.sync = pending.expect not in GROUPED
        self.outstanding.append(pending)
        self.flow.asked_octets += len(pending.line)
        if self.tracing.on:
            self.trace("SERVER >", self.tracing.sent(pending.line, auth=pending.expect is Expect.AUTH))
        self.send(pending.line)

    def answered(self) -> PendingReply:
        """Take the command that the server's next reply answers from the queue."""
        pending = self.outstanding.pop(0)
        self.flow.asked_octets -= len(pending.line)
        return pending

    def send(self, data: bytes) -> None:
        """Send bytes to the server now."""
        if self.effects:
            last = self.effects[-1]
            if isinstance(last, effects.SendServer) and len(last.data) < JOINED:
                last.data += data
                return
        if data:
            self.effects.append(effects.SendServer(data))

    # The transaction.

    def new_transaction(self) -> None:
        """Begin with an empty envelope. XFORWARD is valid for one message only, so its values are forgotten."""
        if self.record.open:
            self.report_unfinished()
        self.envelope = _EMPTY
        self.recipient_octets = 0
        self.recipient_lines = 0
        self.refusals.recipients = 0
        self.message = None
        self.remote = b""
        self.remote_helo = b""
        self.ours.forwarded = ()
        self.client_ident = False

    def own_envelope(self) -> Envelope:
        """The envelope, to be changed."""
        if self.envelope is _EMPTY:
            self.envelope = Envelope()
        return self.envelope

    def release_filter(self) -> None:
        """Ask the driver to end its filter run, if it still has one."""
        if self.message is not None and self.message.filtering:
            self.message.filtering = False
            self.effects.append(effects.FilterAbort())

    # The end.

    def unwanted(self) -> bool:
        """Whether the connection must end now: `end_after_transaction` is set, and no transaction or reply is
        pending.
        """
        if (
            self.end_after_transaction is None
            or self.outstanding
            or (self.first_transaction_allowed and not self.said_mail)
        ):
            return False
        return self.envelope.sender is None

    def end(self, reply: Reply | None, *, reset: bool = False) -> None:
        """End the connection on both sides, after a last reply to the client (None: without one).

        A server in the middle of a message gets no end of data, so that it discards the message. An idle server gets
        QUIT. A peer that expects TLS gets no line in clear.
        """
        if self.phase is _ENDED:
            return
        how = self.record.who_ends(self)
        if self.message is not None:
            self.report(INTERRUPTED, reply)
            if self.message.sent and not self.message.answered:
                self._log_possible_duplicate()
        elif self.record.open:
            self.report_unfinished(reply)
        if reply is not None and self.phase not in _TLS_PHASES and (not self.tls.wrapped or self.tls.client):
            self.pass_on(reply)
        if not self.server_gone:
            speaks = self.phase not in _NO_QUIT
            with_quit = speaks and not self.outstanding and not self.server_in_text()
            if with_quit:
                self.trace("SERVER >", b"QUIT")
                self.send(b"QUIT\r\n")
            self.drop_server(abort=not with_quit)
        self.release_filter()
        self.tls.give_place_back()
        self.effects.append(effects.CloseClient(reset))
        self.unseen_effects.append(self.record.session_end(self, how))
        self.phase = _ENDED

    def end_unserved(self, reply: Reply) -> None:
        """End a connection before the greeting, because the server cannot be reached or does not greet.

        Without the proxy the client's own connection would have failed, and the client would try the server's next
        address or the next MX. After 421 many clients do not (docs/gateway.md), so the client's connection is reset.
        """
        if self.options.reset_unreachable:
            self.end(None, reset=True)
        else:
            self.end(reply)

    def _log_possible_duplicate(self) -> None:
        """The server has the whole message, but its final reply is not known: the client will send the message
        again.
        """
        where = f"client={self.client}, server={self.server}"
        text = "the server's final reply is not known: if it accepted the message, it will get it twice"
        self.log(f"{where}: {text}", logging.WARNING)
        self.unseen_effects.append(effects.Count(Counter.POSSIBLE_DUPLICATES))

    def drop_server(self, *, abort: bool) -> None:
        """Close the connection to the server; with `abort`, data that is still buffered is not sent."""
        if not self.server_gone:
            self.server_gone = True
            self.effects.append(effects.CloseServer(abort))

    def server_in_text(self) -> bool:
        """Whether the server has sent 354 and has not got the end of data yet."""
        message = self.message
        return message is not None and not message.sent and (message.reading or message.sink is Sink.STREAM)

    # Logging, and the deadline.

    def log(self, text: str, level: int = logging.INFO, counts: int | None = None) -> None:
        """Write a log line; `counts`: the counter that grows with it (`telemetry.metrics`)."""
        self.unseen_effects.append(effects.Log(level, text))
        if counts is not None:
            self.record.measured.append(counts)

    def log_once(self, key: bytes, text: str, level: int = logging.INFO, counts: int | None = None) -> None:
        """Write a log line, but only once for each key in a connection."""
        if key not in self.logged_once:
            self.logged_once += (key,)
            self.log(text, level, counts)

    def trace(self, who: str, line: bytes) -> None:
        """Log a line of the dialogue, while it is traced. The caller must leave secrets out."""
        if self.tracing.on:
            if self.options.hide_addresses and line[:1] != b"(":  # in parentheses: our own words
                line = line[:3] if line[:3].isdigit() else line.split(b" ", 1)[0]
            self.log(f"{who} {quoted(printable(line[: 2 * TRACED]), TRACED)}", logging.DEBUG)

    def report(self, status: str, reply: Reply | None = None, *, filtered: str = "") -> None:
        """Report the transaction, and end it: `reply` is what the client got, `filtered` how the filter ended."""
        self.unseen_effects.append(self.record.transaction(self, status, reply, filtered))
        self.record.end()

    def report_unfinished(self, reply: Reply | None = None) -> None:
        """Report a transaction that ends before DATA; `reply` is the last one to the client, if it ends with it."""
        nobody = self.record.refused and not self.envelope.recipients
        self.report(REFUSED if nobody else ABANDONED, reply)

    def current_wait(self) -> Wait:
        """What the connection waits for now."""
        return self.current_deadline().wait

    def current_deadline(self) -> effects.Deadline:
        """The deadline of `current_wait`."""
        message = self.message
        if self.flow.client_full and self.phase not in _GOES_ON:
            return waits.READING
        if message is not None and message.reading:
            return waits.SENDING
        if self.phase is _DATA:  # even if the reply to a NOOP of ours is outstanding
            return waits.TEXT
        if self.outstanding:
            return waits.of_reply(self.outstanding[0].expect)
        if self.phase is _COMMAND:
            return waits.QUIT if self.unwanted() else waits.COMMAND
        return waits.OF_PHASE[self.phase]

    def take_effects(self) -> list[Effect]:
        """Return the effects since the last call, with the deadline for what the session waits for now."""
        self._joiner.finish()
        deadline = self.current_deadline()
        if deadline is waits.READING:
            self.progress = False  # only reading extends this deadline, not what the server or the client sends
        if (deadline is not self._deadline or self.progress) and self.phase is not _ENDED:
            self._deadline = deadline
            self.progress = False
            self.effects.append(deadline)
        taken = self.unseen_effects + self.effects if self.unseen_effects else self.effects
        self.effects = []
        if self.unseen_effects:
            self.unseen_effects = []
        return taken
