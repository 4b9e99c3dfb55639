"""What happened in a session, as values: the session gives them, log lines and events are made of them.

Addresses and words are bytes, as the peers sent them. Times are durations in seconds; None: this step did not happen.
"""

from __future__ import annotations

from dataclasses import dataclass

ABANDONED = "ABANDONED"
"""`status` of a transaction that ended before DATA, by RSET, another EHLO or the end of the session."""
REFUSED = "REFUSED"
"""`status` of a message that was refused before the filter had judged all of it, and of a transaction whose sender or
all of whose recipients were refused."""


REJECTED = "REJECTED"
"""`status` of a transaction whose MAIL was refused with FilterReject."""


class Seconds:
    """`client`: from 354 to the end of data; `filter`: from there to the verdict; `server`: from the end of data that
    we sent to the server's reply; `reply`: from the client's end of data to our reply; `total`: since the reply to
    MAIL. `connect`: until the session's connection to the server was made; `wait`: the part of `filter` in which the
    message waited for places of its filters. These two come from `net`.

    Not a dataclass, as `Transaction` and `SessionEnd`: each message makes one, and compiled code calls the constructor
    of a dataclass as it calls interpreted code.
    """

    __slots__ = ("client", "connect", "filter", "reply", "server", "total", "wait")

    def __init__(self, total: float = 0.0) -> None:
        self.client: float | None = None
        self.filter: float | None = None
        self.server: float | None = None
        self.reply: float | None = None
        self.total = total
        self.connect: float | None = None
        self.wait: float | None = None


@dataclass(frozen=True, slots=True)
class FilterJudged:
    """What one filter of a chain said of a message. `verdict`: pass, edit, reject, tempfail, discard, quarantine,
    failed, skipped, or tag (a refusal that mode=tag turned into a header). `text` is one line, perhaps empty.
    """

    name: str
    verdict: str
    seconds: float
    text: str = ""


@dataclass(frozen=True, slots=True)
class LimitHit:
    """A client has reached a limit, or is locked."""

    limit: str
    """The directive; of a lock its reason: a directive or `administrator`."""
    value: str
    """What the directive says: 500/1h burst 100; empty: a lock."""
    action: str
    """close (421 in place of the greeting), defer (450), locked (LockReply), shadow (nothing was refused), reached (by
    something that could not be refused any more)."""
    seconds: int = 0
    """Until one more event is admitted; 0: not known."""
    until: str = ""
    """The end of the lock (RFC 3339)."""


@dataclass(frozen=True, slots=True)
class TlsLeg:
    """TLS between the proxy and one peer."""

    version: str
    """As OpenSSL names it: TLSv1.3."""
    cipher: str
    server_name: str
    """In the ClientHello; empty: none."""
    verified: str = ""
    """How well the server is known: unverified, trusted, verified or dane; empty: the leg to the client."""

    @property
    def short(self) -> str:
        """For log lines: `TLSv1.3` of a client, `TLSv1.3/verified` of a server."""
        return f"{self.version}/{self.verified}" if self.verified else self.version


@dataclass(slots=True)
class Refusal:
    """The server refused MAIL, RCPT or DATA; `command` is the verb. `recipient` is None, unless it was RCPT."""

    command: str
    server: str
    sender: bytes | None
    recipient: bytes | None
    reply: bytes
    """With its CRLF."""


@dataclass(slots=True)
class LimitRefusal:
    """A client was refused, because it is over a limit or locked. There is one for each refusal; the event and the line
    in words come once in a session. `command` is CONNECT, MAIL or RCPT; `recipient` is None, unless it was RCPT.
    """

    command: str
    sender: bytes | None
    recipient: bytes | None
    reply: bytes
    """With its CRLF."""


class Transaction:
    """One transaction, from MAIL to its end.

    `status` is the word of the log line: FILTERED, MONITORED, BYPASSED, SKIPPED, RELAYED, FILTER-ERROR, REFUSED,
    REJECTED, INTERRUPTED, ABANDONED, or what the filter said about a message that it did not pass.
    """

    __slots__ = (
        "changed", "client_tls", "duplicate_risk", "filter_failed", "filter_words", "helo", "is_message", "judged",
        "limits", "message_id", "monitored", "number", "origin", "port", "recipients", "refused", "refused_more",
        "reply", "seconds", "sender", "server", "server_tls", "size", "status", "verdict",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913, PLR0917  (what every transaction has; the rest is set where there is any)
        self,
        number: int,
        status: str,
        server: str,
        helo: bytes,
        sender: bytes | None,
        recipients: list[bytes],
        refused: list[tuple[bytes, int]],
    ) -> None:
        """`number` counts from 1 in a session. `recipients`: those that the server accepted. `refused`: other
        recipients, each with the code, as many as `record.REFUSED_KEPT`; `refused_more` counts further ones.
        """
        self.number = number
        self.status = status
        self.server = server
        self.helo = helo
        self.sender = sender
        self.recipients = recipients
        self.refused = refused
        self.refused_more = 0
        self.is_message = True
        """Whether DATA was accepted: then it has a line in the log."""
        self.reply = b""
        """The deciding reply to the client, with its CRLF; empty: there was none."""
        self.origin = ""
        """Who chose the reply: server, filter, or proxy."""
        self.verdict = ""
        """The filter's verdict: pass, reject, tempfail, discard, quarantine; empty: there was none."""
        self.monitored = ""
        """FilterMode monitor: the verdict with FilterMode enforce; empty: the same as `verdict`."""
        self.filter_failed = False
        """A filter failed to judge the message, whatever became of it (`Verdict.failure`)."""
        self.filter_words = ""
        """How the filter ended, or what it said."""
        self.judged: tuple[FilterJudged, ...] = ()
        """What each filter of the chain said, in order; empty: there is no chain."""
        self.size = 0
        """Octets of the message that the client sent, without dot-stuffing."""
        self.changed: bool | None = None
        """Whether the filter's message differs from the client's, apart from CR; None: no filter has passed it."""
        self.message_id = b""
        self.limits: list[LimitHit] = []
        """Limits that the client reached in this transaction, each once."""
        self.duplicate_risk = False
        """The server has the whole message, and its reply is not known."""
        self.seconds = Seconds()
        self.client_tls: TlsLeg | None = None
        """None: the leg is in clear. `server_tls` likewise."""
        self.server_tls: TlsLeg | None = None
        self.port = 0
        """Of the server, which `net` knows; 0: a unix socket."""


class SessionEnd:
    """The end of a session that was connected to a server (`server` is not empty) or was refused before."""

    __slots__ = ("commands", "helo", "how", "messages", "seconds", "server", "transactions")

    def __init__(  # noqa: PLR0913, PLR0917  (its values)
        self,
        server: str,
        helo: bytes,
        how: str,
        commands: dict[str, tuple[int, int]],
        transactions: int,
        messages: int,
        seconds: float,
    ) -> None:
        """`how`: quit, client, server, proxy: who ended it; quit is a client that sent QUIT. `commands`: by verb in
        lower case, commands of the client, and those that were refused. `messages`: with a positive final reply.
        """
        self.server = server
        self.helo = helo
        self.how = how
        self.commands = commands
        self.transactions = transactions
        self.messages = messages
        self.seconds = seconds
