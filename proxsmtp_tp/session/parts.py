"""Parts of the state of a dialogue: a command that waits for its reply, the message, commands of the proxy itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxsmtp_tp.session.state import Expect, Sink
from proxsmtp_tp.smtp.data import DataDecoder, DataEncoder, DataRelay
from proxsmtp_tp.tls.facts import NO_TLS, Legs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from proxsmtp_tp.config.tls_lines import TlsLevel
    from proxsmtp_tp.filters.verdict import Verdict
    from proxsmtp_tp.session.limits import HandshakePlace, Rejections
    from proxsmtp_tp.smtp.commands import Command
    from proxsmtp_tp.smtp.headers import HeaderInserter
    from proxsmtp_tp.smtp.replies import Reply
    from proxsmtp_tp.tls.facts import TlsFacts
    from proxsmtp_tp.tls.levels import TlsaState
    from proxsmtp_tp.tls.policy import Candidates


class PendingReply:
    """A reply that is expected: which command it answers, and what is needed to handle it."""

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


_NO_COMMANDS: Final[Iterator[PendingReply]] = iter(())
"""An iterator at its end: one for all messages."""

_STREAM: Final = Sink.STREAM
_FILTER: Final = Sink.FILTER


class Message:
    """The state of one message, from the client's DATA to its final reply."""

    __slots__ = (
        "answered",
        "decoder",
        "encoder",
        "envelope_commands",
        "filtering",
        "final_reply",
        "inserter",
        "octets_sent",
        "reading",
        "refusal",
        "relay",
        "sent",
        "sink",
        "size_limit",
        "verdict",
    )  # fmt: skip

    def __init__(self, sink: Sink, inserter: HeaderInserter | None = None, size_limit: int | None = None) -> None:
        self.sink = sink
        self.size_limit = size_limit
        """The largest size in octets; None: no limit."""
        self.relay = DataRelay() if sink is _STREAM and inserter is None else None
        self.decoder = self.relay.decoder if self.relay is not None else DataDecoder()
        self.encoder = DataEncoder() if self.relay is None else None
        self.octets_sent = 0
        """Octets of it that were sent to the server."""
        self.inserter = inserter
        self.filtering = sink is _FILTER
        """The driver still has resources of this message: the filter run, or the judged message."""
        self.reading = False
        """The judged message is being read back and sent to the server."""
        self.sent = False
        """The final dot has been sent: from now on the server decides about the message, even if the client is gone."""
        self.answered = False
        """The server has sent its final reply."""
        self.verdict: Verdict | None = None
        self.envelope_commands = _NO_COMMANDS
        """For the envelope that the filters want: commands that the server has still to get."""
        self.refusal: Reply | None = None
        """The server refuses the envelope that the filters want: what the client gets."""
        self.final_reply: Reply | None = None
        """The final reply, known before the message is complete (Sink.DISCARD)."""


class OwnCommands:
    """State about the commands that the proxy sends on its own."""

    __slots__ = ("covers_rset", "forwarded", "noop_refusal", "noops")

    def __init__(self) -> None:
        self.covers_rset = False
        """The last command was an RSET of ours: if the client's next command is RSET, it need not be sent."""
        self.forwarded: tuple[tuple[bytes, bytes], ...] = ()
        """Attributes of XFORWARD that the server has accepted for this transaction, as the client wrote them: our own
        XFORWARD says them again."""
        self.noops = 0
        """NOOPs sent so far."""
        self.noop_refusal: Reply | None = None
        """The server's last reply, if it refused our NOOP. If the server then closes the connection, this was why."""


class RemovedOffers:
    """What the server offered in this session, and the proxy removed from the reply to EHLO."""

    __slots__ = ("auth", "tls")

    def __init__(self) -> None:
        self.tls = False
        self.auth = False
        """At least one mechanism of AUTH was removed."""


class Tls:
    """TLS of both legs. Without Tls lines in the configuration nothing of it changes."""

    __slots__ = (
        "action",
        "asking",
        "candidates",
        "client",
        "level",
        "name",
        "passed",
        "place",
        "port",
        "refusal",
        "rejections",
        "rule",
        "server",
        "tlsa",
        "unused",
        "waiting",
        "wrapped",
    )

    def __init__(self) -> None:
        self.port = 0
        """The server's."""
        self.wrapped = False
        """TLS begins with the first octet (TlsWrapped): nothing may be said to the client in clear."""
        self.candidates: Candidates | None = None
        """What the Tls lines say of these addresses; None: there are no such lines, or the server is not known yet."""
        self.place: HandshakePlace | None = None
        """None: handshakes are not limited."""
        self.rejections: Rejections | None = None
        """None: TlsRejected is fail."""
        self.client: TlsFacts | None = None
        """The client's leg; None: it is in clear. `server` likewise."""
        self.server: TlsFacts | None = None
        self.tlsa: TlsaState | None = None
        """What DNS has for the server that `sni=` of UpstreamTls names, for a client in clear; None: nobody has asked.
        `asking`: the command that waits does so for DNS."""
        self.asking = False
        self.unused = False
        """The client's leg has TLS, and the client has not said EHLO in it."""
        self.name = ""
        """The server name in the ClientHello; "": none."""
        self.action = "undecided"
        """For counters: what the client's hello has led to; `clear` if TLS is started with the server only."""
        self.level: TlsLevel | None = None
        """What the server's leg had to have."""
        self.passed = False
        """The client's TLS is passed on, and the octets have not been logged."""
        self.rule = ""
        """The Tls line that decided, for the log."""
        self.refusal: Reply | None = None
        """The server's leg is not as its level demands: the client gets this reply as soon as its own leg has TLS."""

        self.waiting: Command | None = None
        """The client's command that waits until the server's leg has TLS (UpstreamTls)."""

    @property
    def legs(self) -> Legs:
        """What is known of both."""
        return Legs(self.client, self.server) if self.client or self.server else NO_TLS

    def give_place_back(self) -> None:
        """The handshakes of this connection are over, or do not come."""
        if self.place is not None:
            self.place.end()


def _never() -> bool:
    return False


class DataCommand:
    """The client's DATA, and whether the filter judges its message."""

    __slots__ = ("bypass", "bypassed", "waiting")

    def __init__(self) -> None:
        self.waiting: Command | None = None
        """A DATA command that waits until the server has answered the commands before it."""
        self.bypass: Callable[[], bool] = _never
        """Whether the filter is bypassed now."""
        self.bypassed = False
        """The filter is bypassed for the message of the last DATA."""
