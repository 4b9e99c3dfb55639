"""A client's byte stream cut into lines, in bounded memory.

A line ends at LF, so that a line that ends in a bare LF comes back at once and can be refused; whether the LF has its
CR is for `commands` to judge. Over-long lines are swallowed up to their LF and then reported, once.

Limits: RFC 5321 section 4.5.3.1.4 and what the extensions add; RFC 4954 section 4 for AUTH.
"""

from __future__ import annotations

from proxsmtp_tp.smtp.answers import LINE_TOO_LONG
from proxsmtp_tp.smtp.replies import SmtpError

COMMAND_LIMIT = 2048
"""Octets of a command line, CRLF included.

RFC 5321 section 4.5.3.1.4 gives 512, and each extension adds to it. MAIL: 26 for SIZE (RFC 1870), 17 for BODY (RFC
6152), 10 for SMTPUTF8 (RFC 6531), 500 for AUTH (RFC 4954), over 100 for ENVID and RET (RFC 3461 section 4.4), some
more for the rarer ones; RCPT: over 500 for ORCPT and NOTIFY (RFC 3461 section 4.2). All together stay below 1300.
Raised to what the servers behind us read (Postfix's line_length_limit, Sendmail's MAXLINE), so that a long line of
an extension that nobody knows yet is refused by the server, not by us.
"""
AUTH_LIMIT = 12288
"""Octets of a line in an AUTH exchange, CRLF included: RFC 4954 section 4."""


class LineTooLong(SmtpError):  # noqa: N818 - names what the line is, as StopIteration names what happens
    """A line went past the limit, and is swallowed. `ended`: up to its CRLF; otherwise up to a bare LF."""

    def __init__(self, *, ended: bool) -> None:
        super().__init__(LINE_TOO_LONG)
        self.ended = ended


class LineBuffer:
    """Bytes in, lines out. `limit` (octets with the line end) may change between two lines."""

    __slots__ = ("_at", "_buffer", "_swallowed_cr", "_swallowing", "limit")

    def __init__(self, limit: int = COMMAND_LIMIT) -> None:
        self.limit = limit
        self._buffer: bytes | bytearray = b""  # a bytearray grows in place where octets wait while more come
        self._at = 0
        self._swallowing = False
        self._swallowed_cr = False  # the last octet swallowed: an LF may follow

    def __len__(self) -> int:
        """Octets fed and not yet returned."""
        return len(self._buffer) - self._at

    def feed(self, data: bytes) -> None:
        """Take what the client sent, any chunking."""
        if self._at == len(self._buffer):
            self._buffer = data
        else:
            if not isinstance(self._buffer, bytearray):
                self._buffer = bytearray(self._buffer)
            del self._buffer[: self._at]
            self._buffer += data
        self._at = 0

    def next_line(self) -> bytes | None:
        """The next line, its LF included; None where more bytes are needed.

        LineTooLong once for each over-long line, when its LF has come.
        """
        buffer = self._buffer
        start = self._at
        end = buffer.find(b"\n", start) + 1
        if not end:
            if len(buffer) - start >= self.limit:
                self._swallowing = True
                self._swallowed_cr = buffer.endswith(b"\r")
                self._at = len(buffer)
            return None
        self._at = end
        if self._swallowing or end - start > self.limit:
            ended = buffer.endswith(b"\r\n", start, end) or (
                end - start == 1 and self._swallowing and self._swallowed_cr
            )
            self._swallowing = False
            raise LineTooLong(ended=ended)
        return bytes(buffer[start:end])

    def take(self, size: int | None = None) -> bytes:
        """What is buffered, at most `size` octets of it, for the data phase.

        RuntimeError in the middle of an over-long line: bytes of it are gone, so it would be a damaged message.
        """
        if self._swallowing:
            raise RuntimeError("the data phase cannot begin inside a command line")
        buffer, start = self._buffer, self._at
        end = len(buffer) if size is None else min(start + size, len(buffer))
        self._at = end
        if end == len(buffer):
            self._buffer = b""
            self._at = 0
        return bytes(buffer[start:end])

    def put_back(self, data: bytes) -> None:
        """Undo the last `take` of these octets: they are read next, as lines."""
        if data:
            self._buffer = data + self._buffer[self._at :]
            self._at = 0

    def skip(self, size: int) -> int:
        """Forget so many octets, or all that are buffered; how many it were."""
        skipped = min(size, len(self))
        self._at += skipped
        return skipped
