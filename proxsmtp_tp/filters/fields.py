"""The header of a message as octets: the fields exactly as they are, and where the body begins.

The header ends where servers and mail readers end it (`smtp.headers`): at the blank line, before the first line that is
neither a field nor the continuation of one, or with the message. Octets that are not edited stay what they are:
folding, line ends, 8-bit text.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_NAME = rb"[!-9;-~]{1,998}+[ \t]{0,998}+"
_FIELD = re.compile(_NAME + rb":")
_MAILBOX_LINE = re.compile(rb">{0,9}+From [^\s:]")  # `From : a@b` is a field, although unusual
_BLANK = re.compile(rb"\r*\n")
_CONTINUED = (b" ", b"\t")
"""How a line begins that continues the field before."""

FIELDS_LIMIT = 10_000
"""Fields of a header: real ones have some dozens. Each costs time and memory in every filter, and the sender chooses
how many there are."""


class Field(NamedTuple):
    """One header field: all its octets, with its folded lines and its last line end."""

    octets: bytes

    @property
    def name(self) -> bytes:
        """As it is written, without white space before the colon."""
        return self.shown[0]

    @property
    def raw_value(self) -> bytes:
        """All octets after the colon, folds included, without the last line end."""
        return self.shown[1]

    @property
    def shown(self) -> tuple[bytes, bytes]:
        """`name` and `raw_value`."""
        name, _, value = self.octets.partition(b":")
        if value.endswith(b"\n"):
            value = value[:-1].rstrip(b"\r")
        return name.rstrip(b" \t"), value

    @property
    def value(self) -> bytes:
        """`raw_value` without its first space (not tab): what a milter is shown."""
        return self.raw_value.removeprefix(b" ")

    def has_name(self, name: bytes) -> bool:
        """Whether it has this name: the case of letters does not matter (RFC 5322 section 1.2.2)."""
        return self.name.lower() == name.lower()


class Header(NamedTuple):
    """The header of one message."""

    mailbox_line: bytes = b""
    """A `From ` line of a mailbox file before the first field, which servers ignore; usually empty."""
    fields: tuple[Field, ...] = ()
    blank: bytes = b""
    """The blank line; empty if the body, or the end of the message, follows without one."""

    @property
    def octets(self) -> bytes:
        """The header as it is in the message, with its blank line."""
        return self.mailbox_line + b"".join([field.octets for field in self.fields]) + self.blank

    @property
    def size(self) -> int:
        """How many octets it has."""
        return len(self.mailbox_line) + sum([len(field.octets) for field in self.fields]) + len(self.blank)


class HeaderTooLargeError(ValueError):
    """The header has more octets or fields than are read."""


class HeaderOpenError(ValueError):
    """The text that was given ends before the header does."""


def parse_header(text: bytes, *, whole: bool) -> Header:
    """Read the header at the beginning of a message; the body begins at `header.size`.

    `whole`: `text` is the whole message. Otherwise HeaderOpenError if more octets must show where the header ends.
    Raises HeaderTooLargeError for more than FIELDS_LIMIT fields.
    """
    at = 0
    mailbox_line = b""
    if _MAILBOX_LINE.match(text):
        mailbox_line = _line(text, 0)
        at = len(mailbox_line)
    fields: list[Field] = []
    while _FIELD.match(text, at) is not None:
        end = _end_of_field(text, at)
        if end == len(text) and not whole:
            raise HeaderOpenError
        fields.append(Field(text[at:end]))
        if len(fields) > FIELDS_LIMIT:
            raise HeaderTooLargeError(f"the header has more than {FIELDS_LIMIT} fields")
        at = end
    line = _line(text, at)
    if not line.endswith(b"\n") and not whole:
        raise HeaderOpenError
    return Header(mailbox_line, tuple(fields), line if _BLANK.fullmatch(line) else b"")


def _end_of_field(text: bytes, at: int) -> int:
    """Where the line begins that does not continue it; the end of the text if there is none."""
    while at := text.find(b"\n", at) + 1:
        if text[at : at + 1] not in _CONTINUED:
            return at
    return len(text)


def _line(text: bytes, at: int) -> bytes:
    end = text.find(b"\n", at) + 1
    return text[at:end] if end else text[at:]
