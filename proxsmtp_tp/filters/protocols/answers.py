"""Answers of spamd and of HTTP servers: a start line, header lines, a blank line, and a body.

    SPAMD/1.1 0 EX_OK            HTTP/1.1 200 OK
    Content-length: 312          Transfer-Encoding: chunked

The body has as many octets as Content-Length says, or comes in chunks (RFC 9112 section 7.1), or ends with the
connection. It is given in pieces, so the caller decides how much to keep.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

from proxsmtp_tp.filters.protocols.errors import ProtocolError, excerpt

HEAD_LIMIT = 64 * 1024
"""Octets of a head, and of all trailers: what Postfix and web servers take for a whole header."""
SIZE_LINE_LIMIT = 1024
"""Octets of the line before a chunk: a number, perhaps extensions."""

_HEAD_END = re.compile(rb"\r?\n\r?\n")
_LINE_END = re.compile(rb"\r?\n")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NUMBER = re.compile(rb"[0-9]{1,18}")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")


@dataclass(frozen=True, slots=True)
class Head:
    """The start line without its line end, and the header lines: names in lower case, values without outer blanks."""

    start: bytes
    lines: tuple[tuple[bytes, bytes], ...]

    def get(self, name: bytes) -> bytes | None:
        """The value of the first line of that name (lower case)."""
        return next((value for known, value in self.lines if known == name), None)


class _State(Enum):
    HEAD = auto()
    COUNTED = auto()
    UNTIL_CLOSED = auto()
    CHUNK_SIZE = auto()
    CHUNK = auto()
    CHUNK_END = auto()
    TRAILERS = auto()
    DONE = auto()


class AnswerReader:
    """Reads one answer. `head` is there before the first octet of the body; `done` at the end of it."""

    __slots__ = ("_body", "_buffer", "_left", "_state", "head")

    def __init__(self) -> None:
        self.head: Head | None = None
        self._state = _State.HEAD
        self._buffer = bytearray()
        self._body = bytearray()
        self._left = 0

    @property
    def done(self) -> bool:
        """Whether the answer is complete."""
        return self._state is _State.DONE

    def feed(self, data: bytes) -> None:
        """Take what the server sent, in chunks of any size. Raises ProtocolError."""
        self._buffer += data
        while self._step():
            pass
        if self.done and self._buffer:
            raise ProtocolError(f"more after the answer: {excerpt(self._buffer)}")

    def closed(self) -> None:
        """The server has closed the connection. Raises ProtocolError if the answer is not complete."""
        if self._state is _State.UNTIL_CLOSED:
            self._state = _State.DONE
        if not self.done:
            what = (
                "without an answer"
                if self._state is _State.HEAD and not self._buffer
                else "in the middle of its answer"
            )
            raise ProtocolError(f"it closed the connection {what}")

    def take(self) -> bytes:
        """The octets of the body that have come since the last call."""
        taken = bytes(self._body)
        self._body.clear()
        return taken

    def _step(self) -> bool:
        """Go on as far as the buffer allows; whether there may be more to do."""
        match self._state:
            case _State.HEAD:
                return self._read_head()
            case _State.COUNTED | _State.CHUNK:
                return self._read_counted()
            case _State.UNTIL_CLOSED:
                self._body += self._buffer
                self._buffer.clear()
                return False
            case _State.CHUNK_SIZE:
                return self._read_size()
            case _State.CHUNK_END:
                return self._read_chunk_end()
            case _State.TRAILERS:
                return self._read_trailer()
            case _:
                return False

    def _read_head(self) -> bool:
        end = _HEAD_END.search(self._buffer, 0, HEAD_LIMIT)
        if end is None:
            if len(self._buffer) >= HEAD_LIMIT:
                raise ProtocolError(f"a head of more than {HEAD_LIMIT} octets: {excerpt(self._buffer)}")
            return False
        self.head = _parse_head(bytes(self._buffer[: end.start()]))
        del self._buffer[: end.end()]
        self._begin_body(self.head)
        return True

    def _begin_body(self, head: Head) -> None:
        coding = head.get(b"transfer-encoding")
        lengths = {value for name, value in head.lines if name == b"content-length"}
        if coding is not None:
            if coding.lower() != b"chunked":
                raise ProtocolError(f"Transfer-Encoding {excerpt(coding)}")
            self._state = _State.CHUNK_SIZE
        elif lengths:
            length = lengths.pop()
            if lengths or not _NUMBER.fullmatch(length):
                raise ProtocolError(f"Content-Length {excerpt(length)}")
            self._left = int(length)
            self._state = _State.COUNTED
        else:
            self._state = _State.UNTIL_CLOSED

    def _read_counted(self) -> bool:
        piece = self._buffer[: self._left]
        del self._buffer[: len(piece)]
        self._body += piece
        self._left -= len(piece)
        if self._left:
            return False
        self._state = _State.DONE if self._state is _State.COUNTED else _State.CHUNK_END
        return True

    def _line(self, limit: int) -> bytes | None:
        """The next line without its end; None if it is not complete."""
        at = self._buffer.find(b"\n", 0, limit)
        if at < 0:
            if len(self._buffer) >= limit:
                raise ProtocolError(f"a line of more than {limit} octets: {excerpt(self._buffer)}")
            return None
        line = bytes(self._buffer[:at]).removesuffix(b"\r")
        del self._buffer[: at + 1]
        return line

    def _read_size(self) -> bool:
        line = self._line(SIZE_LINE_LIMIT)
        if line is None:
            return False
        size = _SIZE.fullmatch(line)
        if size is None:
            raise ProtocolError(f"not the size of a chunk: {excerpt(line)}")
        self._left = int(size[1], 16)
        self._state = _State.CHUNK if self._left else _State.TRAILERS
        if not self._left:
            self._left = HEAD_LIMIT
        return True

    def _read_chunk_end(self) -> bool:
        line = self._line(SIZE_LINE_LIMIT)
        if line is None:
            return False
        if line:
            raise ProtocolError(f"a chunk goes on: {excerpt(line)}")
        self._state = _State.CHUNK_SIZE
        return True

    def _read_trailer(self) -> bool:
        line = self._line(HEAD_LIMIT)
        if line is None:
            return False
        self._left -= len(line) + 1
        if self._left < 0:
            raise ProtocolError(f"trailers of more than {HEAD_LIMIT} octets")
        if not line:
            self._state = _State.DONE
        return True


def _parse_head(octets: bytes) -> Head:
    start, *lines = _LINE_END.split(octets)
    known = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _NAME.fullmatch(name):
            raise ProtocolError(f"not a header line: {excerpt(line)}")
        known.append((name.lower(), value.strip(b" \t")))
    return Head(start, tuple(known))
