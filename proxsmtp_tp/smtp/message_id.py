"""Finds the Message-ID of a message while its text arrives (RFC 5322 section 3.6.4), in bounded memory.

Only for the log: no decision depends on it. The first field of that name is used, also if its value is on the next line
(folded).
"""

from __future__ import annotations

import re
from typing import Final

from proxsmtp_tp.smtp.buffers import LF

HEADER_LIMIT: Final = 65536
"""Octets of a header that are searched: no mail program writes more before its Message-ID."""
VALUE_LIMIT: Final = 250
"""Octets of a value that are kept: RFC 5322 section 2.1.1 recommends lines of 78; this keeps a log line readable."""
_LINE_LIMIT: Final = 998  # RFC 5322 section 2.1.1; of a longer line only the beginning is searched

_NAME: Final = b"message-id"
_FIELD: Final = re.compile(_NAME + rb"[ \t]*:[ \t]*(?:\r?\n[ \t]+)?([^\r\n]*)", re.IGNORECASE)
_AT_LINE_START: Final = b"\n" + _NAME
_BLANK_LINE: Final = re.compile(rb"\n\r?\n")


class MessageIdFinder:
    """Finds the Message-ID; `value` is empty until then."""

    __slots__ = ("_held", "_left", "value")

    def __init__(self) -> None:
        self.value = b""
        self._held = b""
        """The last field that has arrived; it may be incomplete."""
        self._left = HEADER_LIMIT
        """Octets that are still to be searched; 0: the search is over."""

    def feed(self, text: bytes) -> None:
        """The next piece of the message."""
        if not self._left:
            return
        piece = text[: self._left]
        self._left -= len(piece)
        if LF not in piece and len(self._held) - self._held.rfind(b"\n") > _LINE_LIMIT:
            return
        self._held += piece
        end = _header_end(self._held)
        found = _field(self._held, len(self._held) if end is None else end)
        if found and (end is not None or found.end() < len(self._held)) and found[1]:
            self.value = found[1].strip()[:VALUE_LIMIT]
            self._left, self._held = 0, b""
        elif end is not None:
            self._left, self._held = 0, b""
        elif found is None:  # keep the last two lines: a name without its value may be in the first
            self._held = self._held[self._held.rfind(b"\n", 0, max(0, self._held.rfind(b"\n"))) + 1 :]


def value_at_once(text: bytes) -> bytes | None:
    """The value, if the message begins with `text`, and it can be read without a finder: the header is complete, and
    the value is in the line of its name. None: a finder must search. Lines must end with CRLF.
    """
    header, blank, _ = text.partition(b"\r\n\r\n")
    if not blank or len(header) > HEADER_LIMIT or header.startswith(b"\r\n"):
        return None
    header = b"\n" + header
    before, name, behind = header.lower().partition(_AT_LINE_START)
    if not name:
        return b""
    if not behind.startswith(b":"):
        return None
    line, _, _ = header[len(before) + len(name) + 1 :].partition(b"\r")
    return line.strip()[:VALUE_LIMIT] or None


def _header_end(text: bytes) -> int | None:
    """The index after the last line of the header; None: the blank line after it has not come."""
    if text.startswith((b"\n", b"\r\n")):
        return 0
    blank = _BLANK_LINE.search(text)
    return None if blank is None else blank.start() + 1


def _field(text: bytes, end: int) -> re.Match[bytes] | None:
    """The first field of that name before `end`. A pattern alone, which would have to ignore case, takes ten times as
    long.
    """
    lowered = text[:end].lower()
    at = lowered.find(_NAME)
    while at >= 0:
        if (at == 0 or lowered[at - 1] == LF) and (found := _FIELD.match(text, at, end)):
            return found
        at = lowered.find(_NAME, at + 1)
    return None
