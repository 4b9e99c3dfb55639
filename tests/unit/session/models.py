"""A session without sockets: a model server that answers it, and a model filter that judges its messages.

Used by the property tests: whatever the chunking of either byte stream, the same bytes must reach each side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from proxsmtp_tp.filters.verdict import Action, Verdict
from proxsmtp_tp.session import effects, events
from proxsmtp_tp.session.options import Options
from proxsmtp_tp.session.session import Session
from proxsmtp_tp.smtp.replies import Reply

if TYPE_CHECKING:
    from collections.abc import Iterable


Chunker = "Callable[[bytes], list[bytes]]"


@dataclass
class ModelServer:
    """Strict: lines end in CRLF, data in CRLF . CRLF. Keeps the messages it accepted and the commands it saw."""

    keywords: tuple[bytes, ...] = (b"PIPELINING", b"SIZE")
    messages: list[bytes] = field(default_factory=list)
    commands: list[bytes] = field(default_factory=list)
    _buffer: bytes = b""
    _in_text: bool = False

    def receive(self, data: bytes) -> bytes:
        """What it answers to these bytes."""
        self._buffer += data
        out = b""
        while True:
            if self._in_text:
                at = 0 if self._buffer.startswith(b".\r\n") else self._buffer.find(b"\r\n.\r\n") + 2
                if at == 1:
                    return out
                self.messages.append(self._buffer[:at])
                self._buffer = self._buffer[at + 3 :]
                self._in_text = False
                out += b"250 2.0.0 queued\r\n"
                continue
            line, found, rest = self._buffer.partition(b"\r\n")
            if not found:
                return out
            self._buffer = rest
            self.commands.append(line)
            out += self._answer(line)

    def _answer(self, line: bytes) -> bytes:
        verb = line[:4].upper()
        if verb == b"EHLO":
            return b"".join(b"250-" + word + b"\r\n" for word in (b"mx", *self.keywords)) + b"250 HELP\r\n"
        if verb == b"RCPT" and b"refuse" in line:
            return b"550-5.1.1 no\r\n550 5.1.1 such user\r\n"
        if verb == b"DATA":
            self._in_text = True
            return b"354 go\r\n"
        return b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n"


@dataclass
class ModelDialogue:
    """One session, its model server, and a filter that passes the text as it is, or refuses it if it holds b"SPAM"."""

    options: Options
    chunk_server: Callable[[bytes], list[bytes]] = lambda data: [data]
    server: ModelServer = field(default_factory=ModelServer)
    client_got: bytes = b""
    closed: bool = False

    def __post_init__(self) -> None:
        self.session = Session(self.options, client_ip="192.0.2.10", local_ip="192.0.2.1", clock=lambda: "today")
        self._text = b""
        self._run(events.Connected("198.51.100.25"))
        self._from_server(b"220 mx ESMTP\r\n")

    def send(self, chunks: Iterable[bytes]) -> None:
        """The client sends."""
        for chunk in chunks:
            self._run(events.ClientData(chunk))

    def _from_server(self, data: bytes) -> None:
        for chunk in self.chunk_server(data):
            if chunk:
                self._run(events.ServerData(chunk))

    def _run(self, event: events.Event) -> None:
        given = self.session.feed(event)
        self.client_got += b"".join(effect.data for effect in given if isinstance(effect, effects.SendClient))
        self.closed = self.closed or effects.CloseClient() in given
        later = [following for effect in given for following in self._filter(effect)]
        to_server = b"".join(effect.data for effect in given if isinstance(effect, effects.SendServer))
        if to_server:
            self._from_server(self.server.receive(to_server))
        for following in later:
            self._run(following)
        if self.session.more:
            self._run(events.Continue())

    def _filter(self, effect: effects.Effect) -> list[events.Event]:
        match effect:
            case effects.StartFilter():
                self._text = b""
            case effects.FilterData(text):
                self._text += text
            case effects.FilterFinish():
                return [events.FilterVerdict(self._verdict())]
            case effects.ReadMessage():
                return [events.MessageChunk(self._text), events.MessageEnd()]
        return []

    def _verdict(self) -> Verdict:
        if b"SPAM" in self._text:
            return Verdict(Action.REJECT, Reply.of(550, "Content Rejected; spam"), "spam")
        return Verdict(Action.PASS, None, "exit 0", size=len(self._text))
