"""A milter in memory: it reads our packets, keeps the events, and answers what a test says."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from proxsmtp_tp.filters.protocols.milter_message import MilterMessage
from proxsmtp_tp.smtp.envelope import Envelope

if TYPE_CHECKING:
    from proxsmtp_tp.filters.protocols.milter import MilterDialogue
    from proxsmtp_tp.filters.protocols.milter_message import Outcome

CONTINUE = b"c"


def packet(code: bytes, payload: bytes = b"") -> bytes:
    """A packet of the filter."""
    return struct.pack(">I", len(payload) + 1) + code + payload


def options(version: int = 6, actions: int = 0x1FF, steps: int = 0, lists: bytes = b"") -> bytes:
    """The answer to our offer."""
    return packet(b"O", struct.pack(">III", version, actions, steps) + lists)


def message(**given: object) -> MilterMessage:
    """A message with two recipients and three fields."""
    values: dict[str, object] = {
        "client": "192.0.2.7",
        "port": 4711,
        "name": b"[192.0.2.7]",
        "helo": b"client.example",
        "envelope": Envelope(
            b"a@example", b"SIZE=10 BODY=8BITMIME", [b"b@example", b"c@example"], [b"", b"NOTIFY=NEVER"]
        ),
        "fields": [(b"Subject", b" one\r\n two"), (b"X", b"y"), (b"Subject", b"\tthree\0")],
        "macros": {b"j": b"gw.example", b"i": b"ID1", b"_": b"unknown [192.0.2.7]"},
    }
    return MilterMessage(**{**values, **given})  # type: ignore[arg-type]


@dataclass
class Peer:
    """`answers`: for an event's code, one answer for each time; the last one is repeated. b"" is no answer."""

    answers: dict[bytes, list[bytes]] = field(default_factory=dict)
    negotiated: bytes = field(default_factory=options)
    events: list[tuple[bytes, bytes]] = field(default_factory=list)
    cut: int = 0
    """The filter's octets come in pieces of this size; 0: at once."""

    def run(self, dialogue: MilterDialogue, body: bytes = b"Hello\r\n", chunk: int = 4096) -> Outcome:
        """The whole dialogue, until the outcome. Raises ProtocolError."""
        chunks = [body[at : at + chunk] for at in range(0, len(body), chunk)]
        self.new_body = b""
        while dialogue.outcome is None:
            sent = dialogue.output()
            if sent:
                self._hear(sent, dialogue)
            elif dialogue.wants_body:
                dialogue.body(chunks.pop(0) if chunks else b"")
            elif dialogue.waiting:
                dialogue.closed()
        return dialogue.outcome

    def names(self) -> bytes:
        """The codes of all events, without macros."""
        return b"".join(code for code, _ in self.events if code != b"D")

    def macros(self, stage: bytes) -> dict[bytes, bytes]:
        """The macros of the last packet for a stage."""
        found: dict[bytes, bytes] = {}
        for code, payload in self.events:
            if code == b"D" and payload[:1] == stage:
                parts = payload[1:-1].split(b"\0")
                found = dict(zip(parts[::2], parts[1::2], strict=True))
        return found

    def _hear(self, sent: bytes, dialogue: MilterDialogue) -> None:
        while sent:
            (length,) = struct.unpack_from(">I", sent)
            assert length <= 65536
            code, payload = sent[4:5], sent[5 : 4 + length]
            assert len(sent) >= 4 + length
            sent = sent[4 + length :]
            self.events.append((code, payload))
            if code == b"D":
                continue
            self._say(self.negotiated if code == b"O" else self._answer(code), dialogue)

    def _answer(self, code: bytes) -> bytes:
        answers = self.answers.get(code, [packet(CONTINUE)])
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def _say(self, octets: bytes, dialogue: MilterDialogue) -> None:
        size = self.cut or len(octets) or 1
        for at in range(0, len(octets), size):
            dialogue.feed(octets[at : at + size])
            self.new_body += dialogue.take_body()
