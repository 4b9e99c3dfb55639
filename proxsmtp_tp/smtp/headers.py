"""Insertion of header lines into a message (RFC 5322 sections 2.1 and 2.2).

Text is passed on as it comes. At most the beginning of one line is kept back, until it is known whether it is a header
field; so a header may have any length. The header ends where servers and mail readers end it:

- at the blank line, which every valid message has;
- before the first line that is neither a field nor the continuation of one. For mail readers the body begins there, so
  a blank line is inserted before it;
- at the end of a message that has only fields.

A first line that begins with "From " (or ">From ") is the separator of a mailbox file that got into the message.
Servers ignore it (Postfix's smtpd renames it to X-Mailbox-Line), so nothing is inserted before it.
"""

from __future__ import annotations

import re
from enum import Enum, auto

NAME_LIMIT = 998
"""Octets of a field's name, and of white space before its colon: the limit of what is kept back.

It is the limit of a whole line (RFC 5322 section 2.1.1).
"""

_NAME = rb"[!-9;-~]{1,%d}+[ \t]{0,%d}+" % (NAME_LIMIT, NAME_LIMIT)
_FIELD = re.compile(_NAME + rb":")
_MAYBE_FIELD = re.compile(_NAME + rb"\Z")
_MAILBOX_LINE = re.compile(rb">{0,9}+From [^\s:]")  # `From : a@b` is a field: a blank before the colon is allowed
# A line end after which the header does not go on.
_BLOCK_END = re.compile(rb"\n(?![ \t]|" + _NAME + rb":)")


class _Place(Enum):
    """In which part of the message the next octet is."""

    TOP = auto()
    IN_MAILBOX_LINE = auto()
    FIRST_FIELD = auto()
    LINE_START = auto()
    IN_FIELD = auto()
    BEHIND = auto()


class HeaderInserter:
    """Inserts `header` into message text.

    `header` is one or more complete lines, each ended by CRLF; nothing is inserted if it is empty. `on_top`: before
    the first field (the place of trace fields, RFC 5321 section 4.4); otherwise after the last one.
    """

    __slots__ = ("_header", "_held", "_on_top", "_place")

    def __init__(self, header: bytes, *, on_top: bool) -> None:
        self._header = header
        self._on_top = on_top
        self._held = b""
        self._place = _Place.TOP if header else _Place.BEHIND

    @property
    def size(self) -> int:
        """Octets that it inserts."""
        return len(self._header)

    def feed(self, text: bytes) -> bytes:
        """Take message text (CRLF line ends; bare LF is tolerated) in chunks of any size; return what is complete."""
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
        """The end of the message: return what was kept back, and the header if it was not inserted yet."""
        place, self._place = self._place, _Place.BEHIND
        if place is _Place.BEHIND:
            return b""
        if place is _Place.IN_FIELD or place is _Place.IN_MAILBOX_LINE:
            return b"\r\n" + self._header
        return self._header + _separator(self._held) + self._held

    def _follow(self, text: bytes) -> int:
        """Skip the lines before the place of the inserted header; return the index of the next line."""
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
    """Whether more bytes are needed to know if this line is a field."""
    return not line or _MAYBE_FIELD.match(line) is not None


def _separator(line: bytes) -> bytes:
    """What must be inserted between the header and the line after it."""
    goes_on = not line or line.startswith((b"\r", b"\n")) or _FIELD.match(line)
    return b"" if goes_on else b"\r\n"
