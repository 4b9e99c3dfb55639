"""The state of one connection and the few primitive moves on it. Decides nothing.

Replies to the client leave in the order of its commands: a reply of our own that comes while the server still owes
others waits behind them in `outstanding`. Commands to the server leave in groups only where the server offered
PIPELINING; otherwise they wait in `queued`, which only our own commands can need, since the client's next line is not
read before it may be sent.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

from proxsmtp_tp.session import effects
from proxsmtp_tp.session.bounds import Flow, Refusals, ReplyJoiner
from proxsmtp_tp.session.state import GROUPED, Expect, Phase, Sink, Wait
from proxsmtp_tp.smtp.capabilities import Capabilities
from proxsmtp_tp.smtp.data import DataDecoder, DataEncoder, DataRelay
from proxsmtp_tp.smtp.envelope import Envelope
from proxsmtp_tp.smtp.lines import AUTH_LIMIT, LineBuffer
from proxsmtp_tp.smtp.replies import Reply, ReplyReader
from proxsmtp_tp.telemetry.counters import Counter

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxsmtp_tp.filters.verdict import Verdict
    from proxsmtp_tp.session.effects import Effect
    from proxsmtp_tp.session.options import Options
    from proxsmtp_tp.smtp.commands import Command
    from proxsmtp_tp.smtp.headers import HeaderInserter

LOGGED_RECIPIENTS = 20
"""Recipients named in a log line: syslog cuts lines at some length (RFC 5424 section 6.1 promises 480 octets)."""

INTERRUPTED = "INTERRUPTED"
"""What `status=` says of a message whose connection ended before the reply that would have settled it."""

TRACED = 200
"""Octets of a line that are shown to those who debug: enough for any command but the longest addresses."""

OUTSTANDING_LIMIT = 1000
"""Commands that may wait for a reply: ten transactions of 100 recipients (RFC 5321 section 4.5.3.1.8) in one group.
What comes behind them is not read, so that a server which never answers costs no memory without end."""

OUTSTANDING_OCTETS = 128 * 1024
"""The same in octets: so many are kept until they are answered, and sent to a server that perhaps does not read."""

_DEADLINES = {wait: effects.Deadline(wait) for wait in Wait}

_WAITS_BY_PHASE = {
    Phase.GREETING: Wait.NOTHING,  # dialling has its own limit
    Phase.COMMAND: Wait.COMMAND,
    Phase.AUTH: Wait.COMMAND,
    Phase.DATA: Wait.TEXT,
    Phase.SETTLING: Wait.VERDICT,
    Phase.SKIPPING: Wait.TEXT,
    Phase.ENDED: Wait.NOTHING,
}

_WAITS_BY_EXPECT = {
    Expect.GREETING: Wait.GREETING,
    Expect.DATA: Wait.START,
    Expect.OUR_DATA: Wait.START,
    Expect.MESSAGE: Wait.FINAL,
}


class PendingReply:
    """A reply that the client or we are owed: what it answers, and what must be remembered until it comes."""

    __slots__ = ("address", "expect", "line", "parameters", "reply")

    def __init__(
        self,
        expect: Expect,
        line: bytes = b"",
        address: bytes = b"",
        parameters: bytes = b"",
        reply: Reply | None = None,
    ) -> None:
        self.expect = expect
        self.line = line
        self.address = address
        self.parameters = parameters
        self.reply = reply


class Message:
    """What exists only between the client's DATA and the reply that settles it."""

    __slots__ = (
        "answered",
        "decoder",
        "encoder",
        "filtering",
        "final_reply",
        "inserter",
        "reading",
        "relay",
        "sent",
        "sink",
        "size_limit",
        "verdict",
    )  # fmt: skip

    def __init__(self, sink: Sink, inserter: HeaderInserter | None = None, size_limit: int | None = None) -> None:
        self.sink = sink
        self.size_limit = size_limit
        """Octets that it may have; None: as many as it has."""
        self.relay = DataRelay() if sink is Sink.STREAM and inserter is None else None
        self.decoder = self.relay.decoder if self.relay is not None else DataDecoder()
        self.encoder = DataEncoder()
        self.inserter = inserter
        self.filtering = sink is Sink.FILTER
        """The filter, or the message that it judged, is still held by the driver."""
        self.reading = False
        """The judged message is on its way from the driver to the server."""
        self.sent = False
        """The final dot has been sent: from here on the server decides, whatever becomes of the client."""
        self.answered = False
        """The server has said what becomes of it."""
        self.verdict: Verdict | None = None
        self.final_reply: Reply | None = None
        """The final reply, known before the message is complete (Sink.DISCARD)."""


class OwnCommands:
    """What must be remembered of the commands that we said without being asked."""

    __slots__ = ("covers_rset", "noop_refusal", "noops")

    def __init__(self) -> None:
        self.covers_rset = False
        """The last command was an RSET of ours: the client's next one has been said already."""
        self.noops = 0
        """NOOPs so far."""
        self.noop_refusal: Reply | None = None
        """The server's last word, where that was the refusal of a NOOP: why it closes, if it does."""


class RemovedOffers:
    """What a server has offered in this session, and the client was not told of."""

    __slots__ = ("auth", "tls")

    def __init__(self) -> None:
        self.tls = False
        self.auth = False
        """A mechanism of AUTH."""


class Dialogue:
    """One client, one server, and what they have said so far."""

    def __init__(self, options: Options, *, client: str, local: str, clock: Callable[[], str]) -> None:
        """`client` and `local` are IP addresses; `clock` gives the date as RFC 5322 section 3.3 writes it."""
        self.options = options
        self.client = client
        self.local = local
        self.clock = clock
        self.server = ""
        self.phase = Phase.GREETING
        self.lines = LineBuffer(AUTH_LIMIT)
        self.replies = ReplyReader()
        self.outstanding: deque[PendingReply] = deque()
        self.queued: deque[PendingReply] = deque()
        self.sync = False
        """The last command sent allows no other before its reply."""
        self.capabilities = Capabilities()
        self.ours = OwnCommands()
        self.removed = RemovedOffers()
        self.envelope = Envelope()
        self.recipient_octets = 0
        self.recipient_lines = 0
        self.message: Message | None = None
        self.helo = b""
        self.remote = b""
        self.remote_helo = b""
        self.authenticated = False
        self.xclient_sent = False
        self.client_known = not options.xclient
        """The server has been told who the client is, or need not be. Until then it hears of no transaction."""
        self.waiting_data: Command | None = None
        """DATA, waiting until the server has answered what came before it."""
        self.refusals = Refusals()
        self.flow = Flow()
        self.logged_once: set[bytes] = set()
        self.client_gone = False
        """The client sends no more."""
        self.server_gone = False
        """Nothing more is sent to the server, nor expected of it."""
        self.end_after_transaction: Reply | None = None
        """Why the connection ends after the running transaction; None: it does not."""
        self.first_transaction_allowed = False
        """Even so, a client that has not said MAIL yet may have its first transaction, and one that has, QUIT."""
        self.said_mail = False
        """The client has said MAIL, whatever came of it."""
        self.end_after_replies: Reply | None = None
        """Why the connection ends as soon as nothing is owed to the client; None: it does not."""
        self.effects: list[Effect] = []
        self._joiner = ReplyJoiner()
        self.unseen_effects: list[Effect] = []
        """Effects that no peer sees, apart, so that what is sent to a peer in a row leaves as one."""
        self.wait = Wait.NOTHING
        self.progress = False

    # What the client hears.

    def tell(self, reply: Reply) -> None:
        """Our own reply to the client's latest command, behind those that the server still owes."""
        if self.outstanding:
            self.outstanding.append(PendingReply(Expect.LOCAL, reply=reply))
        else:
            self.pass_on(reply)

    def pass_on(self, reply: Reply) -> None:
        """A reply for the client, now."""
        self._joiner.add(self.effects, reply.wire)

    def release_local_replies(self) -> None:
        """Our own replies whose turn has come."""
        outstanding = self.outstanding
        while outstanding and outstanding[0].expect is Expect.LOCAL:
            reply = outstanding.popleft().reply
            if reply is not None:
                self.pass_on(reply)

    # What the server hears.

    def may_ask(self) -> bool:
        """Whether a command may leave now."""
        if not self.outstanding:
            return True
        room = len(self.outstanding) < OUTSTANDING_LIMIT and self.flow.asked_octets < OUTSTANDING_OCTETS
        return room and self.capabilities.pipelining and not self.sync and not self.queued

    def ask(self, pending: PendingReply) -> None:
        """Send a command (`pending.line`, with its CRLF), as soon as the server may get it."""
        self.ours.covers_rset = pending.expect is Expect.OUR_RSET
        if self.may_ask():
            self._send_command(pending)
        else:
            self.queued.append(pending)

    def ask_queued(self) -> None:
        """Commands of our own whose turn has come."""
        while self.queued and (not self.outstanding or (self.capabilities.pipelining and not self.sync)):
            self._send_command(self.queued.popleft())

    def _send_command(self, pending: PendingReply) -> None:
        self.sync = pending.expect not in GROUPED
        self.outstanding.append(pending)
        self.flow.asked_octets += len(pending.line)
        self.send(pending.line)

    def answered(self) -> PendingReply:
        """The command that the server's next reply answers."""
        pending = self.outstanding.popleft()
        self.flow.asked_octets -= len(pending.line)
        return pending

    def send(self, data: bytes) -> None:
        """Bytes for the server, now."""
        last = self.effects[-1] if self.effects else None
        if type(last) is effects.SendServer and len(last.data) < 4096:  # joining commands pays, joining text copies
            last.data += data
        elif data:
            self.effects.append(effects.SendServer(data))

    # The transaction.

    def new_transaction(self) -> None:
        """Another envelope; what XFORWARD said was for the message that is over."""
        self.envelope = Envelope()
        self.recipient_octets = 0
        self.recipient_lines = 0
        self.refusals.recipients = 0
        self.message = None
        self.remote = b""
        self.remote_helo = b""

    def release_filter(self) -> None:
        """The driver's filter run, if there still is one, is over."""
        if self.message is not None and self.message.filtering:
            self.message.filtering = False
            self.effects.append(effects.FilterAbort())

    # The end.

    def unwanted(self) -> bool:
        """Whether the connection has been given up, and no transaction or reply keeps it."""
        if (
            self.end_after_transaction is None
            or self.outstanding
            or (self.first_transaction_allowed and not self.said_mail)
        ):
            return False
        return self.envelope.sender is None

    def end(self, reply: Reply | None, *, reset: bool = False) -> None:
        """End the connection on both sides, with a last reply to the client where there is one to give.

        A server in the middle of a message is left without its end of data, so that it forgets the message; an idle
        one is told QUIT.
        """
        if self.phase is Phase.ENDED:
            return
        if self.message is not None:
            self.log_message(INTERRUPTED, reply)
            if self.message.sent and not self.message.answered:
                self._log_possible_duplicate()
        if reply is not None:
            self.pass_on(reply)
        if not self.server_gone:
            speaks = self.phase not in {Phase.GREETING, Phase.AUTH}  # in AUTH a QUIT would be its next line
            polite = speaks and not self.outstanding and not self.server_in_text()
            if polite:
                self.send(b"QUIT\r\n")
            self.drop_server(abort=not polite)
        self.release_filter()
        self.effects.append(effects.CloseClient(reset))
        self.phase = Phase.ENDED

    def end_unserved(self, reply: Reply) -> None:
        """End a connection to whose client nothing was said, because its server can not be reached or does not greet.

        Without us its own connection would have failed, and it would try the server's next address or the next MX:
        many clients do not after 421 (docs/gateway.md), so a reset comes nearest to that.
        """
        if self.options.reset_unreachable:
            self.end(None, reset=True)
        else:
            self.end(reply)

    def _log_possible_duplicate(self) -> None:
        """The server has the whole message, and what it made of it is not known: the client will send it again."""
        where = f"client={self.client}, server={self.server}"
        text = "the server's reply to the end of data is not known: if it took the message, it will get it twice"
        self.log(f"{where}: {text}", logging.WARNING)
        self.unseen_effects.append(effects.Count(Counter.POSSIBLE_DUPLICATES))

    def drop_server(self, *, abort: bool) -> None:
        """Have no more to do with the server; with `abort`, what is still buffered does not reach it."""
        if not self.server_gone:
            self.server_gone = True
            self.effects.append(effects.CloseServer(abort))

    def server_in_text(self) -> bool:
        """Whether the server is between its 354 and an end of data that it has not been given."""
        message = self.message
        return message is not None and not message.sent and (message.reading or message.sink is Sink.STREAM)

    # Housekeeping.

    def log(self, text: str, level: int = logging.INFO) -> None:
        """One line for the log."""
        self.unseen_effects.append(effects.Log(level, text))

    def log_once(self, key: bytes, text: str, level: int = logging.INFO) -> None:
        """A line for the log, once for each connection and key."""
        if key not in self.logged_once:
            self.logged_once.add(key)
            self.log(text, level)

    def trace(self, who: str, line: bytes) -> None:
        """A line of the dialogue, for those who debug it. Secrets are the caller's to keep out."""
        if self.options.trace:
            self.log(f"{who} {shown(line[:TRACED])}", logging.DEBUG)

    def log_message(self, status: str, reply: Reply | None = None, *, filtered: str = "") -> None:
        """The one line of each message: `reply` is what the client was told, `filtered` how the filter ended."""
        envelope = self.envelope
        words = [f"client={self.client}"]
        if envelope.sender is not None:
            words.append(f"from={shown(envelope.sender) or '<>'}")
        words += [f"to={shown(recipient)}" for recipient in envelope.recipients[:LOGGED_RECIPIENTS]]
        if len(envelope.recipients) > LOGGED_RECIPIENTS:
            words.append(f"to=({len(envelope.recipients) - LOGGED_RECIPIENTS} more)")
        words += [f"status={status}", f"server={self.server}"]
        if reply is not None:
            words.append(f"reply={shown(reply.wire)}")
        if filtered:
            words.append(f"filter={filtered}")
        self.unseen_effects.append(effects.Log(logging.INFO, ", ".join(words), essential=True))

    def current_wait(self) -> Wait:
        """What the connection waits for now."""
        message = self.message
        if self.flow.client_full and self.phase is not Phase.SETTLING:  # a message that is complete is settled first
            return Wait.READING
        if message is not None and message.reading:
            return Wait.SENDING
        if self.phase is Phase.DATA:  # a NOOP of ours may be outstanding: the client's text still comes first
            return Wait.TEXT
        if self.outstanding:
            return _WAITS_BY_EXPECT.get(self.outstanding[0].expect, Wait.REPLY)
        if self.phase is Phase.COMMAND and self.unwanted():
            return Wait.QUIT
        return _WAITS_BY_PHASE[self.phase]

    def take_effects(self) -> list[Effect]:
        """The effects since the last call, and the deadline of what is waited for now."""
        self._joiner.finish()
        wait = self.current_wait()
        if wait is Wait.READING:
            self.progress = False  # that the server talks, or the client goes on to send, is no reading
        if (wait is not self.wait or self.progress) and self.phase is not Phase.ENDED:
            self.wait = wait
            self.progress = False
            self.effects.append(_DEADLINES[wait])
        taken = self.unseen_effects + self.effects if self.unseen_effects else self.effects
        self.effects = []
        if self.unseen_effects:
            self.unseen_effects = []
        return taken


def shown(data: bytes) -> str:
    """Bytes of a peer as one line of printable text."""
    text = data.decode("utf-8", "backslashreplace").rstrip("\r\n").replace("\r\n", " / ")
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
