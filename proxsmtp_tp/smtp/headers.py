"""Header lines put into a message on its way (RFC 5322 sections 2.1 and 2.2).

Text streams through; held back is at most the beginning of one line that is not yet known to be a header
field, so a header block may have any length. Where the header block ends, by what servers and readers do:

- at the blank line, which every proper message has;
- before the first line that is neither a field nor the continuation of one. Readers take it for the body,
  so a blank line is put before it: without one the new header would be followed by what is no field;
- at the end of a message that has only fields.

A first line that begins with "From " (or ">From ") is a mailbox's separator that got into mail; servers
pass over it (Postfix's smtpd makes X-Mailbox-Line of it), so nothing is put before it.
"""

from __future__ import annotations

import re
from enum import Enum, auto

NAME_LIMIT = 998
"""Octets of a field's name, and of white space between it and the colon; bounds what is held back.

A whole line has no more (RFC 5322 section 2.1.1).
"""

_NAME = rb"[!-9;-~]{1,%d}+[ \t]{0,%d}+" % (NAME_LIMIT, NAME_LIMIT)
_FIELD = re.compile(_NAME + rb":")
_MAYBE_FIELD = re.compile(_NAME + rb"\Z")
_MAILBOX_LINE = re.compile(rb">{0,9}+From [^\s:]")  # `From : a@b` is a field, if an odd one
# A line end that is followed by nothing that goes on with the header block.
_BLOCK_END = re.compile(rb"\n(?![ \t]|" + _NAME + rb":)")


class _Place(Enum):
    """Where in the message the next octet stands."""

    TOP = auto()
    IN_MAILBOX_LINE = auto()
    FIRST_FIELD = auto()
    LINE_START = auto()
    IN_FIELD = auto()
    BEHIND = auto()


class HeaderInserter:
    """Message text in, message text with `header` in it out.

    `header` is one or more complete lines, each ended by CRLF; nothing is inserted if it is empty. `on_top`: before
    the first field (where trace fields go, RFC 5321 section 4.4); otherwise behind the last one.
    """

    __slots__ = ("_header", "_held", "_on_top", "_place")

    def __init__(self, header: bytes, *, on_top: bool) -> None:
        self._header = header
        self._on_top = on_top
        self._held = b""
        self._place = _Place.TOP if header else _Place.BEHIND

    def feed(self, text: bytes) -> bytes:
        """Take message text (CRLF line ends; bare LF is tolerated), any chunking; return what is decided."""
        if self._place is _Place.BEHIND:
            return text
        if self._held:
            text = self._held + text
        start = self._follow(text)
        if self._place is _Place.IN_FIELD or self._place is _Place.IN_MAILBOX_LINE:
            self._held = b""
            return text
        line = text[start:]
        if _undecided(line):
            self._held = line
            return text[:start]
        self._place = _Place.BEHIND
        self._held = b""
        return text[:start] + self._header + _separator(line) + line

    def finish(self) -> bytes:
        """The end of the message: what was held back, and the header if it has not gone yet."""
        place, self._place = self._place, _Place.BEHIND
        if place is _Place.BEHIND:
            return b""
        if place is _Place.IN_FIELD or place is _Place.IN_MAILBOX_LINE:
            return b"\r\n" + self._header
        return self._header + _separator(self._held) + self._held

    def _follow(self, text: bytes) -> int:
        """Pass over what the header does not go before; return where the first line stands that is no such thing."""
        at = 0
        if self._place is _Place.TOP and _MAILBOX_LINE.match(text):
            self._place = _Place.IN_MAILBOX_LINE
        if self._place is _Place.IN_MAILBOX_LINE:
            at = text.find(b"\n") + 1
            if not at:
                return 0
            self._place = _Place.FIRST_FIELD
        if self._on_top:
            return at
        if self._place is not _Place.IN_FIELD:
            folded = self._place is _Place.LINE_START and text.startswith((b" ", b"\t"))
            if not folded and _FIELD.match(text, at) is None:
                return at
        end = _BLOCK_END.search(text, at)
        self._place = _Place.LINE_START if end else _Place.IN_FIELD
        return end.end() if end else at


def _undecided(line: bytes) -> bool:
    """More bytes may make a field of this beginning of a line, or something else."""
    return not line or _MAYBE_FIELD.match(line) is not None


def _separator(line: bytes) -> bytes:
    """What must stand between the header and the line that it goes before."""
    goes_on = not line or line.startswith((b"\r", b"\n")) or _FIELD.match(line)
    return b"" if goes_on else b"\r\n"
