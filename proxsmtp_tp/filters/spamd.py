"""Filter type spamd: SpamAssassin's daemon gives each message a score, and marks it.

    edits= with body     PROCESS: the message is what spamd returns, as its configuration says (report_safe,
                         rewrite_header, add_header)
    edits=headers        CHECK: X-Spam-Status, and X-Spam-Flag for spam, in place of fields of these names
    edits=none           CHECK: only `reject` has an effect

`reject=SCORE`: a message with at least this score is refused; without it, none is.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from proxsmtp_tp.config.filter_lines import EditKind
from proxsmtp_tp.filters.asking import READ_SIZE, ask, connection, read_whole
from proxsmtp_tp.filters.edits import InsertHeader, RemoveHeader, ReplaceMessage
from proxsmtp_tp.filters.header_difference import difference
from proxsmtp_tp.filters.mail import Mail
from proxsmtp_tp.filters.member import Judgement
from proxsmtp_tp.filters.new_text import NewText, size_limit
from proxsmtp_tp.filters.protocols import spamd
from proxsmtp_tp.filters.protocols.answers import AnswerReader
from proxsmtp_tp.filters.protocols.errors import ProtocolError, excerpt
from proxsmtp_tp.filters.streams import Servers
from proxsmtp_tp.filters.verdict import Action
from proxsmtp_tp.smtp.replies import Reply
from proxsmtp_tp.telemetry import dates

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxsmtp_tp.config.filter_lines import FilterLine
    from proxsmtp_tp.filters.edits import Edit
    from proxsmtp_tp.filters.interface import FilterRequest
    from proxsmtp_tp.filters.parts import Parts
    from proxsmtp_tp.filters.streams import Stream

REJECTED = Reply.of(550, "5.7.1 Blocked by the spam filter")
STATUS, FLAG = b"X-Spam-Status", b"X-Spam-Flag"
_PLAIN_NAME = re.compile(rb"[A-Za-z0-9._:\[\]-]{1,255}")


class SpamdMember:
    """A Member."""

    def __init__(self, line: FilterLine, parts: Parts) -> None:
        self._servers = Servers(line.addresses, line.connect)
        self._line = line
        self._parts = parts

    async def judge(self, mail: Mail, request: FilterRequest) -> Judgement:
        """Member."""
        own = own_fields(request, self._parts.hostname.encode())
        process = EditKind.BODY in self._line.edits
        with NewText(self._parts.space, size_limit(mail.size), without=own) as text:
            async with connection(self._servers) as stream:
                question = _question(b"PROCESS" if process else b"CHECK", mail, own, self._line.user)

                async def read(stream: Stream) -> spamd.Score:
                    return await _read_score(stream, text)

                score = await ask(stream, question, read)
            text.finish()
            if self._line.reject is not None and score.score >= self._line.reject:
                return Judgement(Action.REJECT, REJECTED, "spam", str(score))
            if process:
                edits = _returned(mail, text)
            elif EditKind.HEADERS in self._line.edits:
                edits = _marks(score)
            else:
                edits = ()
            return Judgement(detail=str(score), edits=edits)

    async def describe(self) -> list[str]:
        """Ping. Raises FilterFailedError."""
        async with connection(self._servers) as stream:
            answer = await ask(stream, [spamd.PING], _read_pong)
            return [f"{stream.address}: {answer}"]

    def close(self) -> None:
        """Member: no connection is kept."""


def own_fields(request: FilterRequest, hostname: bytes) -> bytes:
    """The header fields on top of the copy, as spamass-milter makes them: envelope, and the client's Received."""
    envelope = request.envelope
    helo = request.helo if _PLAIN_NAME.fullmatch(request.helo) else b"unknown"
    recipients = b",\r\n\t".join(b"<%s>" % address for address in envelope.recipients)
    client = b" (unknown [%s])" % request.client_address.encode() if request.client else b""
    identity = b" id " + request.trace_id.encode() if request.trace_id else b""
    return (
        b"X-Envelope-From: <%s>\r\n" % (envelope.sender or b"")
        + b"X-Envelope-To: %s\r\n" % recipients
        + b"Received: from %s%s\r\n\tby %s (proxsmtp-tp) with ESMTP%s;\r\n\t" % (helo, client, hostname, identity)
        + dates.date(time.time()).encode()
        + b"\r\n"
    )


def _question(command: bytes, mail: Mail, own: bytes, user: str) -> Iterator[bytes]:
    """The request: the message with the own fields on top, after a `From ` line of a mailbox file."""
    start = len(mail.header.mailbox_line)
    blank = b"" if mail.header.fields or mail.header.blank else b"\r\n"
    head = mail.at(0, start) + own + blank
    yield spamd.request_head(command, len(head) + mail.size - start, user) + head
    yield from mail.chunks(start)


async def _read_score(stream: Stream, text: NewText) -> spamd.Score:
    reader = AnswerReader()
    await read_whole(stream, reader, lambda: text.write(reader.take()))
    if reader.head is None:
        raise AssertionError("an answer without a head")
    return spamd.parse_head(reader.head)


async def _read_pong(stream: Stream) -> str:
    answer = b""
    while data := await stream.read(READ_SIZE):
        answer += data
        if spamd.PONG.fullmatch(answer):
            return answer.decode("ascii").strip()
        if len(answer) > READ_SIZE:
            break
    raise ProtocolError(f"no answer to PING: {excerpt(answer)}")


def _marks(score: spamd.Score) -> tuple[Edit, ...]:
    """Our own marks, on top, in place of those that came with the message."""
    edits: list[Edit] = [RemoveHeader(STATUS), RemoveHeader(FLAG)]
    if score.spam:
        edits.append(InsertHeader(0, FLAG, b"YES"))
    return (*edits, InsertHeader(0, STATUS, str(score).encode()))


def _returned(mail: Mail, text: NewText) -> tuple[Edit, ...]:
    """The edits that make the message what spamd returned: header fields only, if the body is the same."""
    new = Mail.of(text.spool)
    if not new.size:
        raise ProtocolError("it returned no message")
    if _same_body(mail, new):
        edits = difference(mail.header.fields, new.header.fields)
        if edits is not None:
            return edits
    return (ReplaceMessage(text.keep()),)


def _same_body(one: Mail, other: Mail) -> bool:
    if one.body_size != other.body_size:
        return False
    pairs = zip(one.chunks(one.body_start), other.chunks(other.body_start), strict=True)
    return all(first == second for first, second in pairs)
