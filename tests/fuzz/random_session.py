"""A session with a random server and a random filter; what one sends, the other gets later.

The next event is drawn at random: octets of the client or of the server, a verdict, or a piece of a judged message.
So any order of events can come that a network and a filter can produce.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from proxsmtp_tp.filters.verdict import Action, Verdict
from proxsmtp_tp.session import effects, events
from proxsmtp_tp.session.session import Session
from proxsmtp_tp.smtp.replies import Reply
from tests.fuzz.random_peers import FRAGMENTS, RandomServer, pieces_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from proxsmtp_tp.session.effects import Effect
    from proxsmtp_tp.session.events import Event
    from proxsmtp_tp.session.options import Options

VERDICTS = [
    (Verdict(Action.REJECT, Reply.of(550, "no"), "exit 1"), 3),
    (Verdict(Action.TEMPFAIL, Reply.of(451, "later"), "signal"), 1),
    (Verdict(Action.DISCARD, Reply.of(250, "discarded"), "discarded"), 1),
]


class RandomSession:
    """Plays to the end: everything delivered, nobody cut off."""

    def __init__(self, random: Random, options: Options, said: bytes, *, hostile: bool = False) -> None:
        """`hostile`: the server says things that nobody asked for, and either side goes away at any time."""
        self.random = random
        self.hostile = hostile
        self.unjudged = bytearray()
        """All that left for the server, but for judged messages."""
        self.session = Session(options, client_ip="192.0.2.10", local_ip="192.0.2.1", clock=lambda: "today")
        self.server = RandomServer(random)
        self.told = bytearray()
        self.closed = False
        self.judged: list[bytes] = []
        """Texts that passed, as the filter left them."""
        self.heard: list[bytes] = []
        """Texts that the filter was given whole."""
        self._text = b""
        self._output: deque[bytes] = deque()
        self._filtering = False
        self._from_client: deque[bytes] = deque(pieces_of(random, said))
        self._from_server: deque[bytes] = deque([b"220 mx\r\n"])
        self._verdict: Verdict | None = None
        self._reading = False
        self._ending = False
        self._feed(events.Connected("198.51.100.25"))

    def play(self) -> None:
        """Until nothing happens any more."""
        while moves := self._moves():
            self._feed(self.random.choice(moves)())
        assert not (self.closed and self._filtering), "the filter is left"

    def _moves(self) -> list[Callable[[], Event]]:
        if self.closed:
            return []
        moves: list[Callable[[], Event]] = []
        if self._from_client:
            moves.append(lambda: events.ClientData(self._from_client.popleft()))
        if self._from_server:
            moves.append(lambda: events.ServerData(self._from_server.popleft()))
        if self._verdict is not None:
            moves.append(self._give_verdict)
        if self._reading:
            moves.append(self._read)
        if self.hostile and (not moves or self.random.random() < 0.02):
            moves.append(self._go_away)
        return moves

    def _go_away(self) -> Event:
        endings: list[Event] = [
            events.ClientClosed(half=False), events.ClientClosed(half=True), events.ServerClosed(), events.Shutdown()
        ]  # fmt: skip
        who = self.random.choice(endings)
        if isinstance(who, events.ClientClosed):
            self._from_client.clear()
        return who

    def _give_verdict(self) -> Event:
        given, self._verdict = self._verdict, None
        assert given is not None
        return events.FilterVerdict(given)

    def _read(self) -> Event:
        if self._output:
            chunk = self._output.popleft()
            last = not self._output and self.random.random() < 0.5
            self._reading, self._ending = not last, last
            return events.MessageChunk(chunk, last=last)
        self._reading = False
        self._ending = True
        return events.MessageEnd()

    def _feed(self, event: Event) -> None:
        for effect in self.session.feed(event):
            assert not self.closed, "effects after the end"
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case effects.SendClient(data):
                self.told += data
            case effects.SendServer(data):
                self._to_server(data)
            case effects.CloseServer():
                self._from_server.clear()
            case effects.CloseClient():
                self.closed = True
            case _:
                self._for_filter(effect)

    def _to_server(self, data: bytes) -> None:
        if not self._reading and not self._ending:
            self.unjudged += data
        self._ending = False
        answer = self.server.receive(data)
        if self.hostile and self.random.random() < 0.1:
            answer += b"".join(self.random.choices(FRAGMENTS, k=2))
        self._from_server += pieces_of(self.random, answer) if answer else []

    def _for_filter(self, effect: Effect) -> None:
        match effect:
            case effects.StartFilter():
                assert not self._filtering, "the filter of the message before is still there"
                self._filtering, self._text, self._verdict = True, b"", None
                if self.random.random() < 0.1:  # a verdict before the message was read: no pass can be one
                    early = Verdict(Action.PASS, None, "too early")
                    self._verdict = self.random.choice([self._refusal(), early])
            case effects.FilterData(text):
                assert self._filtering
                self._text += text
            case effects.FilterFinish():
                self._finish()
            case effects.FilterAbort():
                self._filtering = self._reading = False
                self._verdict = None
            case effects.ReadMessage():
                self._reading = True

    def _refusal(self) -> Verdict:
        given: Verdict = self.random.choices([v for v, _ in VERDICTS], [weight for _, weight in VERDICTS])[0]
        return given

    def _finish(self) -> None:
        self.heard.append(self._text)
        if self._verdict is not None:  # the early one is still on its way
            if self._verdict.action is not Action.PASS:
                return
            self._verdict = None
        if self.random.random() < 0.3:
            self._verdict = self._refusal()
            return
        text = self._text if self.random.random() < 0.6 else self._text + b"\n.\r\nadded\r.\r" + b"\0."
        self.judged.append(text)
        self._output = deque(pieces_of(self.random, text)) if text else deque()
        self._verdict = Verdict(Action.PASS, None, "exit 0", size=len(text))
