"""SMTP replies: parsed from a server, built by us, encoded for a client (RFC 5321 section 4.2).

Guarantees: a `Reply` is always one well-formed reply, CRLF line ends, one code, no control characters; what a
server sends that is none is a `ReplyError`, never a guess. Eight-bit text of a server is kept (RFC 6531
section 3.7.4.2 allows UTF-8 in replies); text of our own is printable ASCII.

Tolerated from servers: bare LF line ends, blank lines between and in replies (passed over), control characters (made
harmless), a code without text, second digits beyond 5 (Exchange says 571), lines longer than the 512 octets of RFC
5321 section 4.5.3.1.5 (cut at LINE_LIMIT). Where only the decision matters, `ReplyReader.next` tolerates more.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

OWN_LINE_LIMIT = 512
"""Octets of a reply line of ours, CRLF included: RFC 5321 section 4.5.3.1.5."""
LINE_LIMIT = 2048
"""Octets of a server's reply line, line end included, that are kept; the rest is cut off. Postfix's line_length_limit,
as servers exceed RFC 5321's 512."""
TOTAL_LIMIT = 64 * 1024
"""Octets of a whole reply, or of one line: no EHLO or HELP comes near it; it bounds what a hostile server makes us keep
and read."""
LINES_LIMIT = 256
"""Lines of a whole reply: as TOTAL_LIMIT, against a flood of short ones."""

_CLEAN = re.compile(rb"([2-5][0-9]{2})(?:-[ -~\x80-\xff]*+\r\n\1)*+ [ -~\x80-\xff]*+\r\n")
_SHORT = LINES_LIMIT * len(b"250-\r\n")  # a reply of so few octets is within all limits
_PARTS = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
_CODE_AT_LEAST = re.compile(rb"([2-5][0-9]{2})(?![0-9])(-?) ?(.*)", re.DOTALL)
"""As _PARTS, with any text behind the code: 250ok, "250, ok"."""
# Line structure becomes a space, every other control character a question mark; 8-bit stays (UTF-8).
_HARMLESS = bytes(32 if c in b"\t\n\v\f\r" else 63 if c < 32 or c == 127 else c for c in range(256))
_PRINTABLE = bytes(c if c < 128 else 63 for c in _HARMLESS)


class Reply:
    """One reply, complete; immutable by convention, equal when the bytes are.

    `code` is 200..599; `wire` the exact bytes, CRLFs included. The constructor trusts its caller: replies
    come from `Reply.of`, `Reply.joined` or a `ReplyReader`.
    """

    __slots__ = ("_texts", "code", "wire")

    def __init__(self, code: int, wire: bytes) -> None:
        self.code = code
        self.wire = wire
        self._texts: tuple[bytes, ...] | None = None

    @classmethod
    def of(cls, code: int, *texts: str | bytes) -> Reply:
        """Build a reply of ours, a line for each text.

        Texts become printable ASCII of at most 512 octets a line with code and CRLF, whatever they hold; no
        text at all is an empty line. ValueError for a code that is no reply code.
        """
        if not 200 <= code <= 599:
            raise ValueError(f"not a reply code: {code}")
        return cls.joined(code, [_own_text(text) for text in texts] or [b""])

    @classmethod
    def joined(cls, code: int, texts: Sequence[bytes]) -> Reply:
        """Join texts that are clean already (of another reply, for one) under a code; at least one text."""
        start = b"%d-" % code
        lines = [start + text for text in texts[:-1]]
        lines.append(b"%d %s\r\n" % (code, texts[-1]))
        return cls(code, b"\r\n".join(lines))

    @property
    def texts(self) -> tuple[bytes, ...]:
        """What stands after code and separator, a text for each line, without line ends."""
        if self._texts is None:
            self._texts = tuple(line[4:] for line in self.wire[:-2].split(b"\r\n"))
        return self._texts

    @property
    def positive(self) -> bool:
        """2xx: done."""
        return 200 <= self.code < 300

    @property
    def intermediate(self) -> bool:
        """3xx: go on."""
        return 300 <= self.code < 400

    @property
    def transient(self) -> bool:
        """4xx: not now."""
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
    """A peer's fault. `reply` is what to tell it."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self.reply = reply


class ReplyError(Exception):
    """What a server sent is no reply; the text says why. The stream is out of step from here on."""


class ReplyReader:
    """A server's byte stream cut into replies. After a ReplyError the reader is of no more use."""

    __slots__ = ("_at", "_blank", "_buffer", "_code", "_cut", "_dropped", "_size", "_texts")

    def __init__(self) -> None:
        self._buffer: bytes | bytearray = b""  # a bytearray grows in place where octets wait while more come
        self._at = 0
        self._code = b""
        self._size = 0
        self._texts: list[bytes] = []
        self._cut = b""
        """The beginning of a line that is too long; the rest of it is dropped as it comes."""
        self._blank = 0
        self._dropped = 0
        """Octets of that line so far."""

    def __len__(self) -> int:
        """Octets fed and not yet returned as part of a reply."""
        return len(self._buffer) - self._at + self._size + len(self._cut)

    def feed(self, data: bytes) -> None:
        """Take what the server sent, any chunking."""
        if self._at == len(self._buffer):
            self._buffer = data
        else:
            if not isinstance(self._buffer, bytearray):
                self._buffer = bytearray(self._buffer)
            del self._buffer[: self._at]
            self._buffer += data
        self._at = 0

    def next(self, *, tolerant: bool = False) -> Reply | None:
        """The next complete reply, None where more bytes are needed. ReplyError for what is no reply.

        `tolerant`: for a reply whose misreading would do harm (a message that was accepted would be sent again). Any
        text may follow a code, lines of one reply may differ in their codes, and lines without one are text. The last
        line decides (RFC 5321 section 4.2.1): its code is the reply's.
        """
        if not self._code and not self._cut:
            clean = _CLEAN.match(self._buffer, self._at)
            if clean and clean.end() - self._at <= _SHORT:
                self._at = clean.end()
                return Reply(int(clean[1]), bytes(clean[0]))
        while (line := self._next_line()) is not None:
            if not line.strip():
                self._blank += 1
                if self._blank > LINES_LIMIT:
                    raise ReplyError(f"more than {LINES_LIMIT} blank lines in place of a reply")
            elif (reply := self._take_line(line, tolerant=tolerant)) is not None:
                return reply
        return None

    def _next_line(self) -> bytes | None:
        """The next line with its LF, or what is kept of it; None where it has not ended yet."""
        start = self._at
        end = self._buffer.find(b"\n", start) + 1
        if end and not self._cut and end - start <= LINE_LIMIT:
            self._at = end
            return bytes(self._buffer[start:end])
        if not end and not self._cut and len(self._buffer) - start < LINE_LIMIT:
            return None
        self._cut = self._cut or bytes(self._buffer[start : start + LINE_LIMIT - 2])
        self._at = end or len(self._buffer)
        self._dropped += self._at - start
        if self._dropped > TOTAL_LIMIT:
            raise ReplyError(f"reply line of more than {TOTAL_LIMIT} octets")
        if not end:
            return None
        line, self._cut, self._dropped = self._cut, b"", 0
        return line

    def _take_line(self, line: bytes, *, tolerant: bool) -> Reply | None:
        """One line, where the whole reply has not come yet or is not quite as the RFC has it."""
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
            self._texts.append(rest)
            if self._size > TOTAL_LIMIT or len(self._texts) >= LINES_LIMIT:
                raise ReplyError(f"reply of more than {TOTAL_LIMIT} octets or {LINES_LIMIT} lines")
            return None
        texts = [*self._texts, rest or b""]
        self._code, self._size, self._texts, self._blank = b"", 0, [], 0
        if parts is not None and len(texts) == 1 and text[3:4] in {b"", b" "}:
            return Reply(int(code), text + b"\r\n")
        return Reply.joined(int(code), texts)


def _own_text(text: str | bytes) -> bytes:
    data = text.encode("ascii", "replace") if isinstance(text, str) else text
    return data.translate(_PRINTABLE)[: OWN_LINE_LIMIT - len(b"250 \r\n")]


def _excerpt(line: bytes) -> str:
    """Enough of a bad line for a log, printable."""
    return ascii(line[:80])[1:]
