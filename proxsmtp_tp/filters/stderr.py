"""A command's standard error: its last line, which says why it refused a message (proxsmtpd(8)), and all for the log.

A leading SMTP code decides about the message; each form of a line has one meaning:

    550 Bad Email           that reply (any code from 400 to 599; an enhanced code stays part of the text)
    550-Bad Email           the same: a reply of ours has one line, so no second one can be promised
    451                     that code, with a text of ours
    421 Closing             451 Closing: 421 would end the connection (RFC 5321 section 3.8), but it goes on
    250 Gone                the message is discarded, and the client gets this reply
    251, 354, 999, 5505 ..  no valid code, only text
    Bad Email               550 Content Rejected; Bad Email
    (nothing)               550 Content Rejected
    sh: 1: Syntax error     550 Content Rejected, because this text is not written for the sender

The last three are without a code, and FilterDefault may make a 451 of them (see `endings`). A text without a code is
not shown to the client if a program wrote it for its administrator: it names a file of this host, or is a message of
the shell. The log has it.

White space around the line, and empty lines, are ignored. The reply is always one line of printable ASCII of at
most 512 octets (RFC 5321 sections 4.2 and 4.5.3.1.5): white space characters become a space; other control
characters and 8-bit octets become a question mark.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from proxsmtp_tp.config.reader import printable
from proxsmtp_tp.filters.verdict import Action
from proxsmtp_tp.smtp.replies import Reply

LINE_LIMIT = 1024
"""Octets of a line that are kept, from its beginning, where the code is: twice the length of a reply line."""

# A reply code, alone or separated from its text. 5505 and 550x are text.
_CODED = re.compile(r"(250|[45][0-9][0-9])(?:[ -] *(.*))?")
TAIL_LIMIT = 16 * 1024
"""Octets of the end of a stream that are kept: some hundred lines."""

LOGGED_LIMIT = 2048
"""Octets of it in a log line: a traceback of a dozen frames, and half of the longest log line (`service.logging`)."""

_LINE_NUMBER = re.compile(r"(?:line )?[0-9]+: ")
# An absolute path. A URL, `and/or` and `1/2` are none.
_PATH = re.compile(r"(?:\A|[ '\"`(<\[{=:,;?])/[A-Za-z0-9._~?-]")
_PRINTABLE = bytes(32 if c in b"\t\n\v\f\r" else c if 32 <= c < 127 else ord("?") for c in range(256))
_WITHOUT_TEXT = {2: "OK", 4: "Content Not Accepted Now", 5: "Content Rejected"}


class LastLine:
    """Keeps the last non-empty line of a stream, in constant memory."""

    __slots__ = ("_current", "_line")

    def __init__(self) -> None:
        self._line = b""
        self._current = b""

    def feed(self, data: bytes) -> None:
        """Take output in chunks of any size."""
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
        """The current line with more octets, cut at the limit."""
        left = LINE_LIMIT - len(self._current)
        more = data[:left] if self._current else data.lstrip()[:left]
        return self._current + more


class ErrorOutput:
    """The end of a stream and its last non-empty line, in constant memory."""

    __slots__ = ("_last", "_tail", "size")

    def __init__(self) -> None:
        self._last = LastLine()
        self._tail = bytearray()
        self.size = 0
        """Octets that were fed."""

    def feed(self, data: bytes) -> None:
        """Take output in chunks of any size."""
        self._last.feed(data)
        self.size += len(data)
        self._tail += data[-TAIL_LIMIT:]
        if len(self._tail) > 2 * TAIL_LIMIT:
            del self._tail[:-TAIL_LIMIT]

    @property
    def line(self) -> bytes:
        """The last line that is not empty (see `LastLine`)."""
        return self._last.line

    @property
    def tail(self) -> bytes:
        """The last TAIL_LIMIT octets of the stream, as they were written."""
        return bytes(self._tail[-TAIL_LIMIT:])

    @property
    def logged(self) -> str:
        """The last LOGGED_LIMIT octets as one line of printable text, between lines ` / `. Quotes have a backslash."""
        lines = [line.strip() for line in self.tail[-LOGGED_LIMIT:].split(b"\n")]
        text = " / ".join(line.decode("utf-8", "backslashreplace") for line in lines if line)
        text = text.replace("\\", "\\\\").replace('"', '\\"')
        return printable(f"... {text}" if self.size > LOGGED_LIMIT else text)


@dataclass(frozen=True, slots=True)
class Said:
    """The meaning of a line. `code` is None if the line has no valid code; `text` is printable ASCII."""

    code: int | None
    text: str

    @property
    def action(self) -> Action:
        """The verdict."""
        if self.code == 250:
            return Action.DISCARD
        return Action.TEMPFAIL if self.code is not None and self.code < 500 else Action.REJECT

    @property
    def shown(self) -> str:
        """The whole line, for a log."""
        return self.text if self.code is None else f"{self.code} {self.text}".rstrip()

    @property
    def reply(self) -> Reply:
        """The reply to the client."""
        if self.code is not None:
            return Reply.quoting(self.code, self.text or _WITHOUT_TEXT[self.code // 100])
        tell = self.text and not _is_internal(self.text)
        return Reply.quoting(550, f"Content Rejected; {self.text}" if tell else "Content Rejected")


def parse(line: bytes) -> Said:
    """Parse the last line of standard error: see the table above. Never raises."""
    text = line.translate(_PRINTABLE).strip().decode("ascii")
    coded = _CODED.fullmatch(text)
    if coded is None:
        return Said(None, text)
    code = int(coded[1])
    return Said(451 if code == 421 else code, coded[2] or "")


def _is_internal(text: str) -> bool:
    """Whether a program wrote this text for its administrator: it names a file, or is a message of a shell.

    dash writes `sh: 1: text`, bash `sh: line 1: text`, with the name of the shell or that of the script.
    """
    program, _, rest = text.partition(": ")
    shell = " " not in program and (program.endswith("sh") or "/" in program)
    return (shell and _LINE_NUMBER.match(rest) is not None) or _PATH.search(text) is not None
