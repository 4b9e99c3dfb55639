"""SMTP replies: parsed from a server, built by us, encoded for a client (RFC 5321 section 4.2).

Guarantees: a `Reply` is always one well-formed reply: CRLF line ends, one code, no control characters. Invalid
input of a server raises `ReplyError`; there is no guessing. Eight-bit text of a server is kept (RFC 6531 section
3.7.4.2 allows UTF-8 in replies); text of our own is printable ASCII.

Tolerated from servers: bare LF line ends, blank lines between and in replies (ignored), control characters
(replaced), a code without text, second digits above 5 (Exchange sends 571), lines longer than the 512 octets of RFC
5321 section 4.5.3.1.5 (cut at LINE_LIMIT). If only the decision matters, `ReplyReader.next` tolerates more.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from proxsmtp_tp.smtp.buffers import BLANK, extended

if TYPE_CHECKING:
    from collections.abc import Sequence

OWN_LINE_LIMIT: Final = 512
"""Octets of a reply line of ours, CRLF included: RFC 5321 section 4.5.3.1.5."""
LINE_LIMIT: Final = 2048
"""Octets of a server's reply line, with its line end, that are kept; the rest is cut off. It is Postfix's
line_length_limit, because servers exceed the 512 octets of RFC 5321."""
TOTAL_LIMIT: Final = 64 * 1024
"""Octets of a whole reply, or of one line: far more than any EHLO or HELP reply. It limits how much a hostile
server can make us read and keep."""
LINES_LIMIT: Final = 256
"""Lines of a whole reply: like TOTAL_LIMIT, against many short lines."""

_CLEAN: Final = re.compile(rb"([2-5][0-9]{2})(?:-[ -~\x80-\xff]*+\r\n\1)*+ [ -~\x80-\xff]*+\r\n")
_SHORT: Final = LINES_LIMIT * len(b"250-\r\n")  # a reply with at most so many octets is within all limits
_SHORTEST: Final = len(b"250 \r\n")
_ZERO: Final = 48
_PARTS: Final = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
_CODE_AT_LEAST: Final = re.compile(rb"([2-5][0-9]{2})(?![0-9])(-?) ?(.*)", re.DOTALL)
"""Like _PARTS, but with any text after the code: 250ok, "250, ok"."""
# White space becomes a space, every other control character a question mark; 8-bit octets are kept (UTF-8).
_HARMLESS: Final = bytes(32 if c in b"\t\n\v\f\r" else 63 if c < 32 or c == 127 else c for c in range(256))
_PRINTABLE: Final = bytes(c if c < 128 else 63 for c in _HARMLESS)


class Reply:
    """One complete reply; immutable by convention, equal if the bytes are equal.

    `code` is 200..599; `wire` is the exact bytes with CRLFs. `own`: the words are ours, not a server's or filter's.
    The constructor does not check its arguments: replies are made by `Reply.of`, `Reply.quoting`, `Reply.joined` or a
    `ReplyReader`.
    """

    __slots__ = ("_texts", "code", "own", "wire")

    def __init__(self, code: int, wire: bytes, *, own: bool = False) -> None:
        self.code = code
        self.wire = wire
        self.own = own
        self._texts: tuple[bytes, ...] | None = None

    @classmethod
    def of(cls, code: int, *texts: str | bytes) -> Reply:
        """Make a reply of our own, with a line for each text.

        Texts become printable ASCII, at most 512 octets a line with code and CRLF. Without a text the reply is one line
        with the code only. ValueError for an invalid reply code.
        """
        reply = cls.quoting(code, *texts)
        reply.own = True
        return reply

    @classmethod
    def quoting(cls, code: int, *texts: str | bytes) -> Reply:
        """Make a reply with the words of a filter. Texts and errors as for `of`."""
        if not 200 <= code <= 599:
            raise ValueError(f"not a reply code: {code}")
        return cls.joined(code, [_own_text(text) for text in texts] or [b""])

    def traced(self, trace_id: str) -> Reply:
        """This reply with ` (trace_id)` at its end, if it is a refusal of our own and there is an id.

        The line is cut, so that it has at most 512 octets with the id.
        """
        if not (self.own and self.code >= 400 and trace_id):
            return self
        end = f" ({trace_id})\r\n".encode()
        lines, newline, last = self.wire[:-2].rpartition(b"\r\n")
        return Reply(self.code, lines + newline + last[: OWN_LINE_LIMIT - len(end)] + end)

    @classmethod
    def joined(cls, code: int, texts: Sequence[bytes]) -> Reply:
        """Make a reply from a code and at least one text; the texts must be clean, for example those of another
        reply.
        """
        start = b"%d-" % code
        lines = [start + text for text in texts[:-1]]
        lines.append(b"%d %s\r\n" % (code, texts[-1]))
        return cls(code, b"\r\n".join(lines))

    @property
    def texts(self) -> tuple[bytes, ...]:
        """The text of each line, without code, separator and line end."""
        if self._texts is None:
            self._texts = tuple(line[4:] for line in self.wire[:-2].split(b"\r\n"))
        return self._texts

    @property
    def positive(self) -> bool:
        """2xx: accepted."""
        return 200 <= self.code < 300

    @property
    def intermediate(self) -> bool:
        """3xx: the server waits for more."""
        return 300 <= self.code < 400

    @property
    def transient(self) -> bool:
        """4xx: refused for now."""
        return 400 <= self.code < 500

    @property
    def negative(self) -> bool:
        """4xx or 5xx: refused."""
        return self.code >= 400

    def __eq__(self, other: object) -> bool:
        return self.wire == other.wire if isinstance(other, Reply) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.wire)

    def __repr__(self) -> str:
        return f"Reply({self.wire!r})"


class SmtpError(Exception):
    """Invalid input of a client. `reply` is the reply to give."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self.reply = reply


class ReplyError(Exception):
    """The server sent something that is no reply; the text says why. The rest of its stream cannot be used."""


class ReplyReader:
    """Splits a server's byte stream into replies. After a ReplyError the reader cannot be used any more."""

    __slots__ = ("_at", "_blank", "_buffer", "_code", "_cut", "_dropped", "_size", "_texts", "left")

    def __init__(self) -> None:
        self._buffer: bytes | bytearray = b""
        self._at = 0
        self.left = 0
        """Octets that were fed and not looked at yet."""
        self._code = b""
        self._size = 0
        self._texts: tuple[bytes, ...] = ()
        self._cut = b""
        """The beginning of a line that is too long; the rest of it is dropped as it arrives."""
        self._blank = 0
        self._dropped = 0
        """Octets of that line that were dropped so far."""

    def __len__(self) -> int:
        """Octets that were fed and not returned yet as part of a reply."""
        return self.left + self._size + len(self._cut)

    def feed(self, data: bytes) -> None:
        """Take what the server sent, in chunks of any size."""
        self._buffer = extended(self._buffer, self._at, data)
        self._at = 0
        self.left = len(self._buffer)

    def next(self, *, tolerant: bool = False) -> Reply | None:
        """The next complete reply; None if more bytes are needed. ReplyError for input that is no reply.

        `tolerant`: for a reply that must not be lost (otherwise an accepted message would be sent again). Any text may
        follow a code, lines of one reply may have different codes, and lines without a code are text. The last line
        decides (RFC 5321 section 4.2.1): its code is the code of the reply.
        """
        if not self._code and not self._cut:
            reply = self._one_line() or self._clean()
            if reply is not None:
                self._at += len(reply.wire)
                self.left -= len(reply.wire)
                if not self.left:
                    self._buffer, self._at = b"", 0  # do not keep the octets until the next reply
                return reply
        while (line := self._next_line()) is not None:
            if not line.strip():
                self._blank += 1
                if self._blank > LINES_LIMIT:
                    raise ReplyError(f"more than {LINES_LIMIT} blank lines in place of a reply")
            elif (reply := self._take_line(line, tolerant=tolerant)) is not None:
                return reply
        return None

    def _one_line(self) -> Reply | None:
        """A reply of one line without controls, which most replies are; None: what is next is something else."""
        buffer, start = self._buffer, self._at
        if not start and isinstance(buffer, bytes) and len(buffer) <= _SHORT and buffer.endswith(b"\r\n"):
            reply = _simple(buffer)  # most replies come alone, in a chunk of their own
            if reply is not None:
                return reply
        end = buffer.find(b"\r\n", start, start + _SHORT) + 2
        if end < 2:
            return None
        return _simple(buffer[start:end] if isinstance(buffer, bytes) else bytes(buffer[start:end]))

    def _clean(self) -> Reply | None:
        """The next reply, if it is complete and follows the RFC in all its lines."""
        clean = _CLEAN.match(self._buffer, self._at)
        if clean is None or clean.end() - self._at > _SHORT:
            return None
        return Reply(int(clean[1]), bytes(clean[0]))

    def _next_line(self) -> bytes | None:
        """The next line with its LF, cut if it is too long; None if it has not ended yet."""
        start = self._at
        end = self._buffer.find(b"\n", start) + 1
        if end and not self._cut and end - start <= LINE_LIMIT:
            self._at = end
            self.left = len(self._buffer) - end
            return bytes(self._buffer[start:end])
        if not end and not self._cut and len(self._buffer) - start < LINE_LIMIT:
            return None
        self._cut = self._cut or bytes(self._buffer[start : start + LINE_LIMIT - 2])
        self._at = end or len(self._buffer)
        self.left = len(self._buffer) - self._at
        self._dropped += self._at - start
        if self._dropped > TOTAL_LIMIT:
            raise ReplyError(f"reply line of more than {TOTAL_LIMIT} octets")
        if not end:
            return None
        line, self._cut, self._dropped = self._cut, b"", 0
        return line

    def _take_line(self, line: bytes, *, tolerant: bool) -> Reply | None:
        """Handle one line of a reply that is not complete yet, or does not quite follow the RFC."""
        text = line.removesuffix(b"\n").removesuffix(b"\r").translate(_HARMLESS)
        parts = (_CODE_AT_LEAST if tolerant else _PARTS).fullmatch(text)
        if parts is None and not (tolerant and self._code):
            raise ReplyError(f"not a reply line: {_excerpt(line)}")
        code, separator, rest = parts.groups() if parts else (self._code, b"-", text)
        if self._code and code != self._code and not tolerant:
            raise ReplyError(f"a reply that begins with {self._code.decode()} goes on with: {_excerpt(line)}")
        if separator == b"-":
            self._code = code
            self._size += len(line)
            self._texts += (rest,)
            if self._size > TOTAL_LIMIT or len(self._texts) >= LINES_LIMIT:
                raise ReplyError(f"reply of more than {TOTAL_LIMIT} octets or {LINES_LIMIT} lines")
            return None
        texts = [*self._texts, rest or b""]
        self._code, self._size, self._texts, self._blank = b"", 0, (), 0
        if parts is not None and len(texts) == 1 and text[3:4] in {b"", b" "}:
            return Reply(int(code), text + b"\r\n")
        return Reply.joined(int(code), texts)


def _simple(line: bytes) -> Reply | None:
    """The reply that this line with CRLF at its end is, if it has a code, a blank, and no controls; None: another."""
    if len(line) < _SHORTEST or line[3] != BLANK:
        return None
    first, second, third = line[0] - _ZERO, line[1] - _ZERO, line[2] - _ZERO
    text = line[4:-2]
    if not (2 <= first <= 5 and 0 <= second <= 9 and 0 <= third <= 9) or text.translate(_HARMLESS) != text:
        return None
    return Reply(first * 100 + second * 10 + third, line)


def _own_text(text: str | bytes) -> bytes:
    data = text.encode("ascii", "replace") if isinstance(text, str) else text
    return data.translate(_PRINTABLE)[: OWN_LINE_LIMIT - len(b"250 \r\n")]


def _excerpt(line: bytes) -> str:
    """The beginning of an invalid line, printable, for a log."""
    return ascii(line[:80])[1:]
