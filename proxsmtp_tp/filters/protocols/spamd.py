"""spamd's protocol, SPAMC/1.5 (SpamAssassin's spamd/PROTOCOL): CHECK gives the score, PROCESS also the message.

The protocol knows no envelope and no client. So the copy that is sent has header fields on top that say both, in the
form that SpamAssassin reads (Mail::SpamAssassin::Message::Metadata::Received); they are taken out of what comes back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxsmtp_tp.filters.protocols.errors import ProtocolError, excerpt

if TYPE_CHECKING:
    from proxsmtp_tp.filters.protocols.answers import Head

_START = re.compile(rb"SPAMD/[0-9]+\.[0-9]+ ([0-9]+) ?(.*)")
_SPAM = re.compile(
    rb"(True|False|Yes|No)[ \t]*;[ \t]*(-?[0-9]+(?:\.[0-9]+)?)[ \t]*/[ \t]*(-?[0-9]+(?:\.[0-9]+)?)", re.IGNORECASE
)
PONG = re.compile(rb"SPAMD/[0-9]+\.[0-9]+ 0 PONG\r?\n")
PING = b"PING SPAMC/1.5\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Score:
    """What spamd says of a message: spam, because the score is at least the required one (its required_score)."""

    spam: bool
    score: float
    required: float

    def __str__(self) -> str:
        """As SpamAssassin writes it into X-Spam-Status."""
        return f"{'Yes' if self.spam else 'No'}, score={self.score:.1f} required={self.required:.1f}"


def request_head(command: bytes, size: int, user: str) -> bytes:
    """The head of a request: `command` is CHECK or PROCESS, `size` the octets that follow."""
    lines = [command + b" SPAMC/1.5", b"Content-length: %d" % size]
    if user:
        lines.append(b"User: " + user.encode())
    return b"\r\n".join([*lines, b"", b""])


def parse_head(head: Head) -> Score:
    """The score in the head of an answer. Raises ProtocolError if spamd did not judge the message."""
    start = _START.fullmatch(head.start)
    if start is None:
        raise ProtocolError(f"no answer of spamd: {excerpt(head.start)}")
    if int(start[1][:9]):
        raise ProtocolError(f"spamd failed: {excerpt(start[1] + b' ' + start[2])}")
    spam = _SPAM.fullmatch(head.get(b"spam") or b"")
    if spam is None:
        raise ProtocolError("an answer of spamd without a score")
    return Score(spam[1].lower() in {b"true", b"yes"}, float(spam[2]), float(spam[3]))
