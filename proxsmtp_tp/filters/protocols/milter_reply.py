"""The reply in a milter's REPLYCODE packet: `550 5.7.1 text`, perhaps of several lines.

libmilter checks code and enhanced code, and doubles each percent sign, because sendmail prints the text with printf.
Nothing else is certain: control characters, lines without a code, or with another code, come from other programs.
"""

from __future__ import annotations

import re
from typing import Final

from proxsmtp_tp.filters.protocols.errors import ProtocolError, excerpt
from proxsmtp_tp.smtp.replies import LINES_LIMIT, Reply

_LINE_END = re.compile(rb"\r\n|\r|\n")
_FIRST = re.compile(rb"([45][0-9]{2})(?:[ -].*)?", re.DOTALL)
_LINE = re.compile(rb"[0-9]{3}(?:[ -](.*))?", re.DOTALL)

# Sendmail's words for a filter that has none (SMFIR_REJECT, SMFIR_TEMPFAIL), as Postfix and sendmail give them.
REJECTED: Final = Reply.of(550, "5.7.1 Command rejected")
TEMPFAILED: Final = Reply.of(451, "4.7.1 Service unavailable - try again later")


def parse_reply(payload: bytes) -> Reply:
    """The reply for the client. Raises ProtocolError if it does not begin with 4xx or 5xx.

    421 becomes 451: the filter judges one message, and the client's connection goes on.
    """
    lines = _LINE_END.split(payload.partition(b"\0")[0].replace(b"%%", b"%"))
    first = _FIRST.fullmatch(lines[0])
    if first is None:
        raise ProtocolError(f"not a reply that refuses: {excerpt(payload)}")
    texts = []
    for line in lines[:LINES_LIMIT]:
        parts = _LINE.fullmatch(line)
        texts.append(line if parts is None else parts[1] or b"")
    while len(texts) > 1 and not texts[-1].strip():
        texts.pop()
    number = int(first[1])
    return Reply.quoting(451 if number == 421 else number, *texts)
