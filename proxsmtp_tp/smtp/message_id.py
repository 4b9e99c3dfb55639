"""Finds the Message-ID of a message while its text arrives (RFC 5322 section 3.6.4), in bounded memory.

Only for the log: no decision depends on it. The first field of that name is used, also if its value is on the next line
(folded).
"""

from __future__ import annotations

import re

HEADER_LIMIT = 65536
"""Octets of a header that are searched: no mail program writes more before its Message-ID."""
VALUE_LIMIT = 250
"""Octets of a value that are kept: RFC 5322 section 2.1.1 recommends lines of 78; this keeps a log line readable."""
_LINE_LIMIT = 998  # RFC 5322 section 2.1.1; of a longer line only the beginning is searched

_FIELD = re.compile(rb"(?:\A|\n)message-id[ \t]*:[ \t]*(?:\r?\n[ \t]+)?([^\r\n]*)", re.IGNORECASE)
_HEADER_END = re.compile(rb"(?:\A|\n)\r?\n")


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
        if b"\n" not in piece and len(self._held) - self._held.rfind(b"\n") > _LINE_LIMIT:
            return
        self._held += piece
        end = _HEADER_END.search(self._held)
        found = _FIELD.search(self._held, 0, end.start() + 1 if end else len(self._held))
        if found and (end or found.end() < len(self._held)) and found[1]:
            self.value = found[1].strip()[:VALUE_LIMIT]
            end = found
        if end:
            self._left, self._held = 0, b""
        elif found is None:  # keep the last two lines: a name without its value may be in the first
            self._held = self._held[self._held.rfind(b"\n", 0, max(0, self._held.rfind(b"\n"))) + 1 :]
