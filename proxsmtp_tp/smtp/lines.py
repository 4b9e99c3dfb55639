"""A client's byte stream split into lines, in limited memory.

A line ends at LF, so that a line that ends in a bare LF is returned at once and can be refused; `commands` checks for
the CR. A line that is too long is dropped up to its LF, and then reported once.

Limits: RFC 5321 section 4.5.3.1.4 and what the extensions add; RFC 4954 section 4 for AUTH.
"""

from __future__ import annotations

from typing import Final

from proxsmtp_tp.smtp.answers import LINE_TOO_LONG
from proxsmtp_tp.smtp.buffers import LF, extended
from proxsmtp_tp.smtp.replies import SmtpError

COMMAND_LIMIT: Final = 2048
"""Octets of a command line, CRLF included.

RFC 5321 section 4.5.3.1.4 gives 512, and extensions add to it. MAIL: 26 for SIZE (RFC 1870), 17 for BODY (RFC
6152), 10 for SMTPUTF8 (RFC 6531), 500 for AUTH (RFC 4954), over 100 for ENVID and RET (RFC 3461 section 4.4), some
more for the rarer ones; RCPT: over 500 for ORCPT and NOTIFY (RFC 3461 section 4.2). All together stay below 1300.
The value is what common servers read (Postfix's line_length_limit, Sendmail's MAXLINE), so that a long line of an
unknown extension is refused by the server, not by the proxy.
"""
AUTH_LIMIT: Final = 12288
"""Octets of a line in an AUTH exchange, CRLF included: RFC 4954 section 4."""


class LineTooLong(SmtpError):  # noqa: N818 - names what the line is, as StopIteration names what happens
    """A line was longer than the limit, and was dropped. `ended`: it ended with CRLF; otherwise with a bare LF."""

    def __init__(self, *, ended: bool) -> None:
        super().__init__(LINE_TOO_LONG)
        self.ended = ended


class LineBuffer:
    """Splits bytes into lines. `limit` (octets with the line end) may change between two lines."""

    __slots__ = ("_at", "_buffer", "_swallowed_cr", "_swallowing", "left", "limit")

    def __init__(self, limit: int = COMMAND_LIMIT) -> None:
        self.limit = limit
        self._buffer: bytes | bytearray = b""
        self._at = 0
        self.left = 0
        """Octets that were fed and not returned yet. An attribute, because it is asked several times for each line."""
        self._swallowing = False
        self._swallowed_cr = False  # the last dropped octet was CR: an LF may follow

    def __len__(self) -> int:
        """See `left`."""
        return self.left

    def feed(self, data: bytes) -> None:
        """Take what the client sent, in chunks of any size."""
        self._buffer = extended(self._buffer, self._at, data)
        self._at = 0
        self.left = len(self._buffer)

    def next_line(self) -> bytes | None:
        """The next line with its LF; None if more bytes are needed.

        LineTooLong once for each line that is too long, when its LF has come.
        """
        buffer = self._buffer
        start = self._at
        if (
            not start
            and isinstance(buffer, bytes)
            and buffer.endswith(b"\n")
            and len(buffer) <= self.limit
            and not self._swallowing
            and LF not in buffer[:-1]
        ):  # most lines come alone, in a chunk of their own
            self._buffer = b""
            self.left = 0
            return buffer
        end = buffer.find(b"\n", start) + 1
        if not end:
            if len(buffer) - start >= self.limit:
                self._swallowing = True
                self._swallowed_cr = buffer.endswith(b"\r")
                self._at = len(buffer)
                self.left = 0
            return None
        self._at = end
        self.left = len(buffer) - end
        if self._swallowing or end - start > self.limit:
            ended = buffer.endswith(b"\r\n", start, end) or (
                end - start == 1 and self._swallowing and self._swallowed_cr
            )
            self._swallowing = False
            raise LineTooLong(ended=ended)
        return _part(buffer, start, end)

    def take(self, size: int | None = None) -> bytes:
        """Take buffered octets, at most `size` of them, for the data phase.

        RuntimeError in the middle of a line that is too long: bytes of it were dropped, so the message would be
        damaged.
        """
        if self._swallowing:
            raise RuntimeError("the data phase cannot begin inside a command line")
        buffer, start = self._buffer, self._at
        end = len(buffer) if size is None else min(start + size, len(buffer))
        self._at = end
        self.left = len(buffer) - end
        if end == len(buffer):
            self._buffer = b""
            self._at = 0
            if not start and isinstance(buffer, bytes):
                return buffer
        return _part(buffer, start, end)

    def put_back(self, data: bytes) -> None:
        """Undo the last `take` of these octets: they are read next as lines."""
        if data:
            self._buffer = data + self._buffer[self._at :]
            self._at = 0
            self.left = len(self._buffer)

    def skip(self, size: int) -> int:
        """Drop up to `size` buffered octets; return how many."""
        skipped = min(size, self.left)
        self._at += skipped
        self.left -= skipped
        return skipped


def _part(buffer: bytes | bytearray, start: int, end: int) -> bytes:
    return buffer[start:end] if isinstance(buffer, bytes) else bytes(buffer[start:end])
