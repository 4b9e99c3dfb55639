"""Filter type rspamd: POST /checkv2 to rspamd's normal worker, with the message and all that is known about it.

What an answer means: `protocols.rspamd`. The edits are those of rspamd's milter mode.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxsmtp_tp.filters.asking import ask, connection, read_whole
from proxsmtp_tp.filters.edits import ReplaceBody
from proxsmtp_tp.filters.member import Judgement
from proxsmtp_tp.filters.new_text import NewText, size_limit
from proxsmtp_tp.filters.protocols import rspamd
from proxsmtp_tp.filters.protocols.answers import AnswerReader
from proxsmtp_tp.filters.protocols.errors import ProtocolError, excerpt
from proxsmtp_tp.filters.scanner_endings import shown
from proxsmtp_tp.filters.streams import Servers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxsmtp_tp.config.filter_lines import FilterLine
    from proxsmtp_tp.filters.interface import FilterRequest
    from proxsmtp_tp.filters.mail import Mail
    from proxsmtp_tp.filters.parts import Parts
    from proxsmtp_tp.filters.streams import Stream

PING = b"GET /ping HTTP/1.1\r\nHost: rspamd\r\nConnection: close\r\n\r\n"


class RspamdMember:
    """A Member."""

    def __init__(self, line: FilterLine, parts: Parts) -> None:
        self._servers = Servers(line.addresses, line.connect)
        self._line = line
        self._parts = parts

    async def judge(self, mail: Mail, request: FilterRequest) -> Judgement:
        """Member."""
        with NewText(self._parts.space, size_limit(mail.size)) as body:
            reader = _CheckReader(body)
            async with connection(self._servers) as stream:

                async def read(stream: Stream) -> rspamd.RspamdAnswer:
                    await read_whole(stream, reader)
                    return reader.answer([field.name for field in mail.header.fields])

                answer = await ask(stream, self._question(mail, request), read)
            body.finish()
            detail = f"{answer.action}, score={answer.score:.2f}"
            if answer.reply is not None:
                return Judgement(answer.decision, answer.reply, detail, shown(answer.reply))
            edits = answer.edits
            if reader.new_body:
                edits = (*edits, ReplaceBody(body.keep()))
            return Judgement(answer.decision, detail=detail, edits=edits)

    def _question(self, mail: Mail, request: FilterRequest) -> Iterator[bytes]:
        yield rspamd.request_head(mail.size, self._facts(request))
        yield from mail.chunks()

    def _facts(self, request: FilterRequest) -> Iterator[tuple[bytes, bytes]]:
        """The lines of the request: what rspamd's milter mode says, and the settings of the filter."""
        line, envelope = self._line, request.envelope
        yield b"Host", b"rspamd"
        known = (
            (b"IP", request.client_address.encode()),
            (b"Helo", request.helo),
            (b"Queue-Id", request.trace_id.encode()),
            (b"MTA-Name", self._parts.hostname.encode()),
            (b"MTA-Tag", line.tag.encode()),
            (b"Settings-ID", line.settings_id.encode()),
            (b"User", line.user.encode() or request.login.name),
        )
        yield from ((name, value) for name, value in known if value)
        yield b"From", b"<%s>" % (envelope.sender or b"")
        yield from ((b"Rcpt", b"<%s>" % address) for address in envelope.recipients)
        yield b"Flags", b"milter,body_block"  # the answer has the new body after its JSON

    async def describe(self) -> list[str]:
        """Ping. Raises FilterFailedError."""
        async with connection(self._servers) as stream:
            reader = AnswerReader()

            async def read(stream: Stream) -> str:
                await read_whole(stream, reader)
                if reader.head is None or b" 200" not in reader.head.start:
                    raise ProtocolError(f"no answer to GET /ping: {excerpt(reader.head.start if reader.head else b'')}")
                server = reader.head.get(b"server") or b"rspamd"
                return server.decode("ascii", "replace")

            return [f"{stream.address}: {await ask(stream, [PING], read)} answers"]

    def close(self) -> None:
        """Member: no connection is kept."""


class _CheckReader(AnswerReader):
    """Reads the answer to /checkv2: JSON, and after it the new body."""

    def __init__(self, body: NewText) -> None:
        super().__init__()
        self.new_body = False
        self._json = bytearray()
        self._json_size: int | None = None
        self._text = body

    def feed(self, data: bytes) -> None:
        """Reader."""
        super().feed(data)
        if self.head is None:
            return
        if self._json_size is None:
            size = rspamd.json_size(self.head)
            self.new_body = size is not None
            self._json_size = rspamd.JSON_LIMIT if size is None else size
        piece = self.take()
        missing = max(0, self._json_size - len(self._json))
        self._json += piece[:missing]
        if (not self.new_body and len(piece) > missing) or len(self._json) > rspamd.JSON_LIMIT:
            raise ProtocolError(f"an answer of more than {rspamd.JSON_LIMIT} octets")
        if self.new_body:
            self._text.write(piece[missing:])

    def answer(self, names: list[bytes]) -> rspamd.RspamdAnswer:
        """What the answer means."""
        return rspamd.parse_answer(bytes(self._json), names)
