"""clamd(8), INSTREAM: the message in chunks, each after its length (uint32, network order), then a length of zero.

The answer is one line that ends with NUL: `stream: OK`, `stream: NAME FOUND`, or a text that ends with ERROR. Over a
limit of clamd the answer is an error, or `Heuristics.Limits.Exceeded`: such a message was not scanned as a whole, so it
is neither clean nor a virus. clamd says so only with `AlertExceedsMax yes` (clamd.conf(5)); without it, the answer to
what is larger than MaxFileSize or MaxScanSize is `OK`.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Final

from proxsmtp_tp.filters.protocols.errors import ProtocolError, excerpt

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

COMMAND: Final = b"zINSTREAM\0"
END: Final = b"\0\0\0\0"
VERSION: Final = b"zVERSION\0"
LIMIT = 4096
"""Octets of an answer: the name of a virus has some dozens."""

_LENGTH = struct.Struct(">I")
_FOUND = re.compile(rb"(?:stream|instream\([^ ]*\)): (.+) FOUND", re.IGNORECASE | re.DOTALL)
_CLEAN = re.compile(rb"(?:stream|instream\([^ ]*\)): OK", re.IGNORECASE)
_NOT_SCANNED = "Heuristics.Limits.Exceeded"


class NotScannedError(ProtocolError):
    """The message is larger than clamd scans, or has more in it."""


def request(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """What is sent for a message, in pieces. No chunk is empty: that would be the end."""
    yield COMMAND
    for chunk in chunks:
        yield _LENGTH.pack(len(chunk)) + chunk
    yield END


def complete(answer: bytes | bytearray) -> bytes | None:
    """The answer without its end, as soon as it is there. Raises ProtocolError if it is too long."""
    line, end, _ = bytes(answer).partition(b"\0")
    if end:
        return line
    if len(answer) > LIMIT:
        raise ProtocolError(f"an answer of more than {LIMIT} octets: {excerpt(answer)}")
    return None


def virus(line: bytes) -> str:
    """The name of the virus in an answer; "" for a clean message. Raises ProtocolError for any other answer."""
    line = line.strip()
    if _CLEAN.fullmatch(line):
        return ""
    found = _FOUND.fullmatch(line)
    if found is None:
        if line.lower().endswith(b"size limit exceeded. error"):
            raise NotScannedError("the message is larger than StreamMaxLength in clamd.conf")
        raise ProtocolError(f"no answer to INSTREAM: {excerpt(line)}")
    name = "".join(letter for letter in found[1].decode("ascii", "replace") if letter.isprintable())
    if name.startswith(_NOT_SCANNED):
        raise NotScannedError(f"not scanned as a whole: {name}")
    return name or "a virus without a name"
