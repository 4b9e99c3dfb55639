"""What a command said of a message that it refused: the last line of its standard error (proxsmtpd(8)).

A leading SMTP code decides what becomes of the message; each shape of a line has one meaning:

    550 Bad Email           that reply (any code from 400 to 599; an enhanced code stays part of the text)
    550-Bad Email           the same: a reply of ours has one line, so no second one can be promised
    451                     that code, with a text of ours
    421 Closing             451 Closing: 421 says that the connection ends (RFC 5321 section 3.8), and it does not
    250 Gone                the message is discarded, and the client told so
    251, 354, 999, 5505 ..  no codes of a verdict, only text
    Bad Email               550 Content Rejected; Bad Email
    (nothing)               550 Content Rejected

White space around the line, and lines of nothing else, do not count. The reply is one line of printable ASCII of
at most 512 octets (RFC 5321 sections 4.2 and 4.5.3.1.5), whatever the command wrote: control characters become a
question mark or, where they only move the cursor, a space; 8-bit octets a question mark.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from proxsmtp_tp.filters.verdict import Action
from proxsmtp_tp.smtp.replies import Reply

LINE_LIMIT = 1024
"""Octets of a line that are kept, from its beginning, where the code stands: twice what fits into a reply line."""

# A reply code, alone or parted from its text. 5505 and 550x are words.
_CODED = re.compile(r"(250|[45][0-9][0-9])(?:[ -] *(.*))?")
_PRINTABLE = bytes(32 if c in b"\t\n\v\f\r" else c if 32 <= c < 127 else ord("?") for c in range(256))
_WITHOUT_TEXT = {2: "OK", 4: "Content Not Accepted Now", 5: "Content Rejected"}


class LastLine:
    """The last non-empty line of a stream, in constant memory whatever is fed."""

    __slots__ = ("_current", "_line")

    def __init__(self) -> None:
        self._line = b""
        self._current = b""

    def feed(self, data: bytes) -> None:
        """Take what was written, any chunking."""
        complete, newline, rest = data.rpartition(b"\n")
        if newline:
            _, below, last = complete.rstrip().rpartition(b"\n")
            line = last if below else self._joined(last)
            self._line = line.strip()[:LINE_LIMIT].rstrip() or self._line
            self._current = b""
        self._current = self._joined(rest)

    @property
    def line(self) -> bytes:
        """The line without white space around it, cut to LINE_LIMIT octets; empty if there was none."""
        return self._current.rstrip() or self._line

    def _joined(self, data: bytes) -> bytes:
        """What is known of the current line, with more of it."""
        left = LINE_LIMIT - len(self._current)
        more = data[:left] if self._current else data.lstrip()[:left]
        return self._current + more


@dataclass(frozen=True, slots=True)
class Said:
    """A line as a verdict. `code` is None where the line has no code of a verdict; `text` is printable ASCII."""

    code: int | None
    text: str

    @property
    def action(self) -> Action:
        """What becomes of the message."""
        if self.code == 250:
            return Action.DISCARD
        return Action.TEMPFAIL if self.code is not None and self.code < 500 else Action.REJECT

    @property
    def shown(self) -> str:
        """The whole line, for a log."""
        return self.text if self.code is None else f"{self.code} {self.text}".rstrip()

    @property
    def reply(self) -> Reply:
        """What the client is told."""
        if self.code is not None:
            return Reply.of(self.code, self.text or _WITHOUT_TEXT[self.code // 100])
        return Reply.of(550, f"Content Rejected; {self.text}" if self.text else "Content Rejected")


def parse(line: bytes) -> Said:
    """Read the last line of a standard error: see the table above. Never raises."""
    text = line.translate(_PRINTABLE).strip().decode("ascii")
    coded = _CODED.fullmatch(text)
    if coded is None:
        return Said(None, text)
    code = int(coded[1])
    return Said(451 if code == 421 else code, coded[2] or "")
