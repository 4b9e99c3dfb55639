"""What a client can send at once, in every phase where a session reads it: cases for tests and `bench/feeds.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from proxsmtp_tp.filters.verdict import Action, Verdict
from proxsmtp_tp.session import effects, events
from proxsmtp_tp.session.options import Options
from proxsmtp_tp.session.session import Session
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.smtp.capabilities import REFUSED_VERBS
from proxsmtp_tp.smtp.commands import VERBS
from tests.unit.session.models import ModelServer

READ = 256 * 1024
"""Octets that uvloop reads at once."""

# From one octet, by way of a segment and what a feed may act on, to a whole read.
SIZES = (1, 2, 5, 17, 64, 511, 1024, 4096, 16384, 65536, READ)


@dataclass
class Feeder:
    """One session; its server answers whatever it is asked, its filter rejects. `watch` sees every single feed.

    After `most` feeds it stops: later ones are as those before.
    """

    options: Options
    answering: bool = True
    most: int = 200
    given: list[effects.Effect] = field(default_factory=list)
    watch: Callable[[events.Event, list[effects.Effect]], None] = lambda _event, _given: None

    def __post_init__(self) -> None:
        self.session = Session(self.options, client_ip="192.0.2.10", local_ip="192.0.2.1", clock=lambda: "today")
        self.server = ModelServer()
        self.feed(events.Connected("198.51.100.25"))

    def introduce(self, *keywords: str) -> None:
        """Past the greeting and EHLO."""
        self.feed(events.ServerData(b"220 mx ESMTP\r\n"))
        self.feed(events.ClientData(b"EHLO c\r\n"))
        lines = ["mx", *keywords, "HELP"]
        told = "".join(f"250{' ' if at == len(lines) - 1 else '-'}{line}\r\n" for at, line in enumerate(lines))
        if not self.answering:
            self.feed(events.ServerData(told.encode()))

    def client_sends(self, data: bytes) -> None:
        """All of it in one event."""
        self.feed(events.ClientData(data))

    def feed(self, event: events.Event) -> None:
        """One event, what it leaves, and what follows of it."""
        todo = [event]
        while todo and self.most:
            self.most -= 1
            event = todo.pop(0)
            given = self.session.feed(event)
            self.watch(event, given)
            self.given += given
            if self.session.more:
                todo.insert(0, events.Continue())
            todo += self._follows(given)

    def _follows(self, given: list[effects.Effect]) -> list[events.Event]:
        asked = b"".join(effect.data for effect in given if isinstance(effect, effects.SendServer))
        found: list[events.Event] = []
        if self.answering and asked:
            found.append(events.ServerData(self.server.receive(asked)))
        finished = [effect for effect in given if isinstance(effect, effects.FilterFinish)]
        found += [events.FilterVerdict(Verdict(Action.REJECT, answers.FILTER_FAILED, "no")) for _ in finished]
        return [event for event in found if not isinstance(event, events.ServerData) or event.data]


@dataclass(frozen=True)
class Case:
    """`unit` again and again, in a phase."""

    name: str
    unit: bytes
    options: Options
    prepare: Callable[[Feeder], None]

    def __str__(self) -> str:
        return self.name

    def data(self, size: int) -> bytes:
        """So many octets of it."""
        return (self.unit * (size // len(self.unit) + 1))[:size]


def _greeting(_feeder: Feeder) -> None:
    """Nothing but the connection."""


def _command(feeder: Feeder) -> None:
    feeder.introduce()


def _transaction(feeder: Feeder) -> None:
    feeder.introduce()
    feeder.client_sends(b"MAIL FROM:<a@c.example>\r\nRCPT TO:<b@mx.example>\r\n")


def _text(feeder: Feeder) -> None:
    _transaction(feeder)
    feeder.client_sends(b"DATA\r\n")


def _auth(feeder: Feeder) -> None:
    feeder.introduce()
    feeder.answering = False
    feeder.client_sends(b"AUTH LOGIN\r\n")
    feeder.feed(events.ServerData(b"334 VXNlcm5hbWU6\r\n"))


def _chunk(feeder: Feeder) -> None:
    feeder.introduce()
    feeder.client_sends(b"BDAT 1000\r\n")


PLAIN = Options()
FILTERED = Options(filtered=True)
REJECT = Options(reject=answers.BARE_NEWLINE_IN_TEXT)
TRACED = Options(trace=True)
HEADER = Options(header="X-Filtered: yes")

_ARGUMENTS = {
    b"MAIL": b" FROM:<a@c.example>",
    b"RCPT": b" TO:<b@mx.example>",
    b"BDAT": b" 0",
}
VERB_LINES = {
    verb.decode(): verb + _ARGUMENTS.get(verb, b"") + b"\r\n" for verb in sorted({*VERBS, *REFUSED_VERBS, b"XNOVERB"})
}
ODD_LINES = {
    "empty": b"\r\n",
    "bare LF": b"\n",
    "bare CR": b"NOOP\rNOOP\r\n",
    "NUL": b"\0\r\n",
    "no line end": b"x",
    "one octet": b"a\r\n",
    "BDAT 1": b"BDAT 1\r\nx",
    "BDAT large": b"BDAT 100000\r\n",
    "too long": b"x" * 20000 + b"\r\n",
    "MAIL of 2 KB": b"MAIL FROM:<a@c>" + b" X=1" * 500 + b"\r\n",
    "RCPT of 2 KB": b"RCPT TO:<" + b"\\a" * 1000 + b">\r\n",
    "RCPT with a route": b"RCPT TO:<" + b"@a," * 600 + b":b@c>\r\n",
    "XFORWARD of 2 KB": b"XFORWARD" + b" NAME=+41" * 220 + b"\r\n",
    "messages": b"MAIL FROM:<a@c>\r\nRCPT TO:<b@mx>\r\nDATA\r\n.\r\n",
}
TEXTS = {
    "CRLF": b"\r\n",
    "CR": b"\r",
    "LF": b"\n",
    "NUL": b"\0",
    "NUL dot": b"\n\0.",
    "CR CR LF": b"\r\r\n",
    "CRLF dot CR": b"\r\n.\r",
    "dots": b"\r\n..",
    "fields": b"a: b\r\n",
    "words": b"word " * 14 + b"\r\n",
}

CASES = [
    *(
        Case(f"{name} in {phase}", line, options, prepare)
        for lines in (VERB_LINES, ODD_LINES)
        for name, line in lines.items()
        for phase, options, prepare in (
            ("greeting", PLAIN, _greeting),
            ("command", PLAIN, _command),
            ("command, filtered", FILTERED, _command),
            ("command, reject", REJECT, _command),
            ("command, traced", TRACED, _command),
            ("transaction", FILTERED, _transaction),
            ("auth", PLAIN, _auth),
            ("chunk", PLAIN, _chunk),
        )
    ),
    *(
        Case(f"{name} as text, {way}", unit, options, _text)
        for name, unit in TEXTS.items()
        for way, options in (("relayed", PLAIN), ("filtered", FILTERED), ("with a header", HEADER))
    ),
]
