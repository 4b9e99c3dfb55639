"""Transcripts of a dialogue: `>>` feeds an event, `<<` expects an effect, in order.

    play = Playbook(Options())
    assert (
        play
        >> Connected("198.51.100.25")
        >> S("220 mx ESMTP")     << client("220 mx ESMTP")
        >> C("NOOP")             << server("NOOP")
    )

Effects that were not expected, and expected ones that did not come, fail with both lists. Log lines, counts, deadlines
and the message clock are left out unless the playbook is made with `strict=True`; `play.logged` keeps the log lines. A
playbook that is never asserted fails its test (conftest.py).
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, ClassVar

from proxsmtp_tp.session import effects, events
from proxsmtp_tp.session.events import Connected
from proxsmtp_tp.session.options import Options
from proxsmtp_tp.session.session import Session
from proxsmtp_tp.telemetry import log_lines
from proxsmtp_tp.telemetry.facts import LimitHit, LimitRefusal, Refusal, SessionEnd, Transaction

if TYPE_CHECKING:
    from proxsmtp_tp.session.effects import Effect
    from proxsmtp_tp.session.events import Event
    from proxsmtp_tp.session.limits import ClientLimits
    from proxsmtp_tp.telemetry.counters import Counter

CLIENT = "192.0.2.10"
GATEWAY = "192.0.2.1"
SERVER = "198.51.100.25"
MAIL_AND_RCPT = ("MAIL FROM:<a@a.example>", "RCPT TO:<b@mx.example>")
DATE = "Sun, 22 Nov 2026 12:00:00 +0000"

_QUIET = (
    effects.Log,
    effects.Deadline,
    effects.MessageClock,
    effects.Count,
    LimitHit,
    LimitRefusal,
    Refusal,
    Transaction,
    SessionEnd,
)


def _bytes(text: str | bytes) -> bytes:
    """A str is lines, each given its CRLF; bytes are themselves."""
    return text if isinstance(text, bytes) else "".join(f"{line}\r\n" for line in text.split("\n")).encode()


def C(text: str | bytes) -> events.ClientData:
    """The client sends."""
    return events.ClientData(_bytes(text))


def S(text: str | bytes) -> events.ServerData:
    """The server sends."""
    return events.ServerData(_bytes(text))


def client(text: str | bytes) -> effects.SendClient:
    """The client gets."""
    return effects.SendClient(_bytes(text))


def server(text: str | bytes) -> effects.SendServer:
    """The server gets."""
    return effects.SendServer(_bytes(text))


def fed(session: Session, event: Event) -> list[Effect]:
    """The effects of an event, and of what the session leaves for the next turns of the loop."""
    given = session.feed(event)
    while session.more:
        given += session.feed(events.Continue())
    return given


def logged(given: list[Effect], *, ends: bool = False) -> list[str]:
    """The log lines of these effects; with `ends`, also the last line of the session."""
    lines = []
    for effect in given:
        if isinstance(effect, effects.Log):
            lines.append(effect.text)
        elif isinstance(effect, Transaction) and (effect.is_message or effect.status == "REJECTED"):
            lines.append(log_lines.transaction(CLIENT, effect))
        elif isinstance(effect, Refusal):
            lines.append(log_lines.refusal(CLIENT, effect))
        elif isinstance(effect, SessionEnd) and ends:
            lines.append(log_lines.session_end(CLIENT, effect))
    return lines


class Playbook:
    """One session and what was seen of it."""

    unasserted: ClassVar[set[int]] = set()

    def __init__(
        self, options: Options | None = None, *, strict: bool = False, limits: ClientLimits | None = None
    ) -> None:
        self.session = Session(options or Options(), client_ip=CLIENT, local_ip=GATEWAY, clock=lambda: DATE)
        if limits is not None:
            self.session.use_limits(limits)
        self.strict = strict
        self.logged: list[str] = []
        self.counted: collections.Counter[Counter] = collections.Counter()
        self._waiting: list[Effect] = []
        self._scenario: list[str] = []
        self._failure: str | None = None
        self.unasserted.add(id(self))

    def __rshift__(self, event: Event) -> Playbook:
        self._expect_nothing_left()
        self._scenario.append(f">> {event}")
        given = fed(self.session, event)
        self.logged += logged(given)
        self.counted.update(effect.counter for effect in given if isinstance(effect, effects.Count))
        self._waiting = [effect for effect in given if self.strict or not isinstance(effect, _QUIET)]
        return self

    def __lshift__(self, expected: Effect) -> Playbook:
        if self._failure is None:
            got = self._waiting.pop(0) if self._waiting else None
            self._scenario.append(f"<< {got}")
            if got != expected:
                self._scenario.append(f"-- expected {expected}")
                self._failure = "\n".join([*self._scenario, *(f"<< {rest}" for rest in self._waiting)])
        return self

    def _expect_nothing_left(self) -> None:
        if self._waiting and self._failure is None:
            self._failure = "\n".join([*self._scenario, *(f"<< {rest}   -- not expected" for rest in self._waiting)])

    def __bool__(self) -> bool:
        self.unasserted.discard(id(self))
        self._expect_nothing_left()
        if self._failure is not None:
            raise AssertionError("the transcript differs:\n" + self._failure)
        return True


def greeted(options: Options | None = None, *, strict: bool = False, limits: ClientLimits | None = None) -> Playbook:
    """A playbook past the server's greeting."""
    play = Playbook(options, strict=strict, limits=limits)
    play.session.feed(Connected(SERVER))
    play.session.feed(S("220 mx.example ESMTP"))
    return play


def introduced(
    options: Options | None = None, *keywords: str, strict: bool = False, limits: ClientLimits | None = None
) -> Playbook:
    """A playbook past EHLO; the server offers these keywords."""
    play = greeted(options, strict=strict, limits=limits)
    play.session.feed(C("EHLO client.example"))
    lines = ["mx.example", *keywords]
    play.session.feed(S("\n".join(f"250{' ' if at == len(lines) - 1 else '-'}{line}" for at, line in enumerate(lines))))
    return play


def addressed(options: Options | None = None, *keywords: str, strict: bool = False) -> Playbook:
    """A playbook past MAIL and RCPT: the client may send DATA."""
    play = introduced(options, *keywords, strict=strict)
    for command in ("MAIL FROM:<a@client.example>", "RCPT TO:<b@mx.example>"):
        play.session.feed(C(command))
        play.session.feed(S("250 ok"))
    return play


def filter_start(play: Playbook) -> effects.StartFilter:
    """What the filter learns when the client says DATA."""
    assert play
    (start,) = (effect for effect in play.session.feed(C("DATA")) if isinstance(effect, effects.StartFilter))
    return start
