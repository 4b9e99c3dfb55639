"""The milter protocol from the mail server's side, for one message, without a socket.

The order of events is libmilter's: CONNECT, HELO, MAIL, RCPT for each recipient, DATA, each header field, end of
header, body in chunks, end. The message is complete before the first event, so all are sent one after the other; only
an event that the filter answers is waited for. On a connection that had a message of the same client before, ABORT is
sent in place of negotiation, CONNECT and HELO (as Postfix does after each message).

    CONTINUE            the next event; after the end: the message passes, with the edits
    ACCEPT              the message passes
    SKIP                no more events of this kind in this message
    REJECT, TEMPFAIL, REPLYCODE
                        the message is refused. At RCPT the other recipients are still asked, and a reply 4xx to one is
                        preferred to 5xx to another: no recipient can be left out after the client has got its 250
    DISCARD             the message is discarded; before MAIL it is no answer
    edits, QUARANTINE   kept until the final answer; they may come only after the end of the message
    PROGRESS            the filter works; the caller's idle time begins anew

Everything else, and an answer to no question, is a ProtocolError: the failure of this message, and of no other.
"""

from __future__ import annotations

import functools
import ipaddress
import struct
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Final

from proxsmtp_tp.filters.edits import Edit
from proxsmtp_tp.filters.protocols import milter_message as asked
from proxsmtp_tp.filters.protocols.errors import ProtocolError, excerpt
from proxsmtp_tp.filters.protocols.milter_edits import parse_edit
from proxsmtp_tp.filters.protocols.milter_macros import macros_packet, recipient_values, sender_values
from proxsmtp_tp.filters.protocols.milter_message import (
    DATA_SINCE,
    Decision,
    Event,
    MilterMessage,
    Outcome,
    Question,
)
from proxsmtp_tp.filters.protocols.milter_options import OFFER, Options, Stage, Steps, parse_options
from proxsmtp_tp.filters.protocols.milter_packets import (
    SENT_LIMIT,
    Answer,
    Command,
    Packet,
    PacketReader,
    packet,
    strings,
)
from proxsmtp_tp.filters.protocols.milter_reply import REJECTED, TEMPFAILED, parse_reply
from proxsmtp_tp.smtp.replies import Reply

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from proxsmtp_tp.smtp.envelope import Envelope

EDITS_LIMIT = 1_000
"""Edits of one filter to one message: more comes only from a filter in an endless loop (`editing` has the same
limit)."""
EDITS_OCTETS = 1 << 20
"""Octets of all these edits without a new body: four times the header fields that `editing` takes from one filter."""
OUTPUT = 64 * 1024
"""Octets that `output` makes at once: what a socket takes."""

FIELD_TOO_LONG: Final = Reply.of(552, "5.3.4 A header field is too long for the content filters")
"""libmilter closes the connection on such a packet, and would do so again at the next attempt."""


_PORT = struct.Struct(">H")


@dataclass(slots=True)
class _Edits:
    """What has come since the end of the message."""

    edits: list[Edit] = field(default_factory=list)
    octets: int = 0
    body: bytearray = field(default_factory=bytearray)
    body_replaced: bool = False


class MilterDialogue:
    """The dialogue about one message.

    Use: write `output` until it is empty, then, if `wants_body`, give it the next chunk of the body, otherwise `feed`
    it what the filter sends; until there is an `outcome`, or a ProtocolError. `output` is never more than a
    socket takes, so memory is limited.
    """

    def __init__(self, message: MilterMessage, options: Options | None = None) -> None:
        """`options`: what the filter chose before a message of the same client on this connection."""
        self.outcome: Outcome | None = None
        self.options: Options | None = None
        self.wants_body = False
        """The next chunk of the body must come, or b"" at its end."""
        self.event = Event.OPTIONS
        """The event that was sent last."""
        self.message = message
        self._reader = PacketReader()
        self.heard = False
        """The filter has sent something in this dialogue."""
        self._awaited = False
        self._refusals: list[Reply] = []
        self._unwanted = 0
        """Bits of `Steps`: events that the filter does not want, or has skipped for this message."""
        self._silent = 0
        """Bits of `Steps`: events that it does not answer."""
        self._asked: Question | None = None
        self._chunk = b""
        self._edits = _Edits()
        if options is None:
            self._steps = self._negotiation()
        else:
            self._choose(options)
            self._steps = chain((packet(Command.ABORT),), self._mail())

    # What we send.

    @property
    def waiting(self) -> bool:
        """Whether the filter must answer now."""
        return self._awaited and self.outcome is None

    def output(self) -> bytes:
        """What can be sent now, at most about OUTPUT octets; b"" if the filter must answer first, or body is wanted."""
        sent = bytearray()
        while not (self._awaited or self.wants_body or self.outcome) and len(sent) < OUTPUT:
            sent += next(self._steps)
        return bytes(sent)

    def body(self, chunk: bytes) -> None:
        """Take the next chunk of the body, of any size; b"" at its end."""
        self._chunk = chunk
        self.wants_body = False

    def goodbye(self) -> bytes:
        """What ends the connection in order: at any time when no packet is half written."""
        if self.options is None:
            return b""
        ended = self.outcome is not None and self.event is Event.END
        return (b"" if ended else packet(Command.ABORT)) + packet(Command.QUIT)

    @property
    def reusable(self) -> Options | None:
        """The options for the next message of the same client on this connection; None: it must be ended.

        An answer to CONNECT or HELO is one to the whole session. A filter that refuses for now may have a fault, or
        want to end the session (421).
        """
        outcome = self.outcome
        if outcome is None or self.event in (Event.OPTIONS, Event.CONNECT, Event.HELO):
            return None
        if outcome.reply is not None and (outcome.reply.transient or outcome.reply is FIELD_TOO_LONG):
            return None
        return self.options

    def _negotiation(self) -> Iterator[bytes]:
        self._awaited = True
        yield OFFER
        self._steps = self._transaction()
        yield b""

    def _transaction(self) -> Iterator[bytes]:
        message = self.message
        yield self._macros(Stage.CONNECT)
        yield self._ask(asked.CONNECT, _connect(message))
        yield self._macros(Stage.HELO)
        if message.helo:
            yield self._ask(asked.HELO, strings(message.helo))
        yield from self._mail()

    def _mail(self) -> Iterator[bytes]:
        message = self.message
        yield from self._envelope(message.envelope)
        if self._options.version >= DATA_SINCE:
            yield self._macros(Stage.DATA)
            yield self._ask(asked.DATA, b"")
        yield from self._headers(message.fields)
        yield self._macros(Stage.END_OF_HEADER)
        yield self._ask(asked.END_OF_HEADER, b"")
        yield from self._body()
        yield self._macros(Stage.END)
        yield self._ask(asked.END, b"")

    def _envelope(self, envelope: Envelope) -> Iterator[bytes]:
        sender = envelope.sender or b""
        yield self._macros(Stage.MAIL, sender_values(sender))
        yield self._ask(asked.MAIL, strings(b"<%s>" % sender, *envelope.sender_parameters.split()))
        parameters = envelope.recipient_parameters or [b""] * len(envelope.recipients)
        for recipient, given in zip(envelope.recipients, parameters, strict=True):
            yield self._macros(Stage.RCPT, recipient_values(recipient))
            yield self._ask(asked.RCPT, strings(b"<%s>" % recipient, *given.split()))
        if self._refusals:
            self._refuse(self._refusals)
            yield b""

    def _headers(self, fields: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
        if self._unwanted & Steps.NO_HEADERS.value:
            return
        leading_space = self._options.steps.value & Steps.LEADING_SPACE.value != 0
        ready = bytearray()
        for name, value in fields:
            shown = strings(name, value if leading_space else value.removeprefix(b" ")).replace(b"\r\n", b"\n")
            if len(shown) > SENT_LIMIT:
                self.outcome = Outcome(Decision.REFUSE, Event.HEADER, FIELD_TOO_LONG)
                yield b""
            ready += self._ask(asked.HEADER, shown)
            if self._awaited or len(ready) >= OUTPUT:
                yield bytes(ready)
                ready.clear()
        yield bytes(ready)

    def _body(self) -> Iterator[bytes]:
        while not self._unwanted & Steps.NO_BODY.value:
            self.wants_body = True
            yield b""
            chunk, self._chunk = self._chunk, b""
            if not chunk:
                return
            for at in range(0, len(chunk), SENT_LIMIT):
                yield self._ask(asked.BODY, chunk[at : at + SENT_LIMIT])

    def _ask(self, question: Question, payload: bytes) -> bytes:
        """The packet of an event; b"" if the filter does not want it."""
        if question.not_wanted & self._unwanted:
            return b""
        self._asked, self.event = question, question.event
        self._awaited = not question.silent & self._silent
        return packet(question.command, payload)

    def _macros(self, stage: Stage, values: Mapping[bytes, bytes] | None = None) -> bytes:
        known = self.message.macros
        return macros_packet(stage, self._options.macros, known, self.message.made, values or {})

    @property
    def _options(self) -> Options:
        if self.options is None:
            raise AssertionError("an event before the negotiation")
        return self.options

    # What the filter sends.

    def feed(self, data: bytes) -> None:
        """Take what the filter sent, in chunks of any size. Raises ProtocolError."""
        self.heard = True
        self._reader.feed(data)
        while self.outcome is None and (answer := self._reader.next()) is not None:
            self._take(answer)
        if self.outcome is not None and len(self._reader):
            raise ProtocolError("more after the final answer")

    def closed(self) -> None:
        """The filter has closed the connection. Raises ProtocolError, unless there is an outcome."""
        if self.outcome is None:
            what = f"at {self.event.value}" if self._reader.between_packets else "in the middle of a packet"
            raise ProtocolError(f"the filter closed the connection {what}")

    def take_body(self) -> bytes:
        """What has come of the new body since the last call: the caller stores it, and limits its size."""
        taken = bytes(self._edits.body)
        self._edits.body.clear()
        return taken

    def _take(self, answer: Packet) -> None:
        if self.options is None:
            self._negotiated(answer)
        elif answer.code == Answer.PROGRESS:
            return
        elif not self._awaited:
            raise ProtocolError(f"an answer to no question: {excerpt(answer.code + answer.payload)}")
        elif self.event is not Event.END or not self._take_edit(answer):
            self._decide(answer)

    def _negotiated(self, answer: Packet) -> None:
        if answer.code != Answer.OPTIONS:
            raise ProtocolError(f"no answer to the options: {excerpt(answer.code + answer.payload)}")
        self._choose(parse_options(answer.payload))
        self._awaited = False

    def _choose(self, options: Options) -> None:
        self.options = options
        self._unwanted = self._silent = options.steps.value

    def _take_edit(self, answer: Packet) -> bool:
        """Keep an edit; whether it was one."""
        known = self._edits
        if answer.code == Answer.REPLACE_BODY:
            known.body_replaced = True
            known.body += answer.payload
            return True
        edit = parse_edit(answer, leading_space=Steps.LEADING_SPACE in self._options.steps)
        if edit is None:
            return False
        known.edits.append(edit)
        known.octets += len(answer.payload)
        if len(known.edits) > EDITS_LIMIT:
            raise ProtocolError(f"more than {EDITS_LIMIT} edits")
        if known.octets > EDITS_OCTETS:
            raise ProtocolError(f"edits of more than {EDITS_OCTETS} octets")
        return True

    def _decide(self, answer: Packet) -> None:
        self._awaited = False
        at_end = self.event is Event.END
        match answer.code:
            case Answer.CONTINUE if not at_end:
                return
            case Answer.SKIP if not at_end and self._asked is not None:
                self._unwanted |= self._asked.not_wanted
            case Answer.CONTINUE | Answer.ACCEPT:
                self._pass()
            case Answer.DISCARD if self.event not in (Event.CONNECT, Event.HELO):
                self.outcome = Outcome(Decision.DISCARD, self.event)
            case Answer.CONNECTION_FAILED:
                raise ProtocolError("the filter says that its own connection failed")
            case _:
                self._refused(self._refusal(answer))

    def _refusal(self, answer: Packet) -> Reply:
        match answer.code:
            case Answer.REJECT:
                return REJECTED
            case Answer.TEMPFAIL | Answer.SHUTDOWN:
                return TEMPFAILED
            case Answer.REPLY:
                return parse_reply(answer.payload)
            case _:
                known = excerpt(answer.code + answer.payload)
                raise ProtocolError(f"no answer to {self.event.value}: {known}")

    def _pass(self) -> None:
        if self._refusals:
            self._refuse(self._refusals)
            return
        known = self._edits
        self.outcome = Outcome(Decision.PASS, self.event, None, tuple(known.edits), known.body_replaced)

    def _refused(self, reply: Reply) -> None:
        if self.event is Event.RCPT:
            self._refusals.append(reply)
        else:
            self._refuse([reply])

    def _refuse(self, replies: list[Reply]) -> None:
        reply = next((reply for reply in replies if reply.transient), replies[0])
        event = Event.RCPT if replies is self._refusals else self.event
        self.outcome = Outcome(Decision.REFUSE, event, reply)


def _connect(message: MilterMessage) -> bytes:
    """The payload of CONNECT: name, family, port, address; for a client on a unix socket, the family U (unknown)."""
    if not message.client:
        return strings(message.name) + b"U"
    family, address = _family(message.client)
    return strings(message.name) + family + _PORT.pack(message.port) + strings(address)


@functools.lru_cache(1024)
def _family(client: str) -> tuple[bytes, bytes]:
    address = ipaddress.ip_address(client)
    return (b"4", str(address).encode()) if address.version == 4 else (b"6", f"IPv6:{address}".encode())
