"""Every way in which a scanner that speaks SMTP can end, and the verdict of each.

The scanner's reply to MAIL, RCPT, DATA or the message is its verdict: 5xx rejects, 4xx is a TEMPFAIL, with its own
text. Any other end is not about the message and is a TEMPFAIL with a reply of ours, so that mail stays in the
client's queue until an administrator has fixed the cause: a scanner that refuses to serve (any refusal up to EHLO
and HELO), that does not understand our commands (500, 502, 503, 504 before the text: RFC 5321 section 4.2.2), that
is out of step or slow, that closes the connection, or that cannot be reached.

Time limits, FilterProcesses and TempDirectory: `endings`.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

from proxsmtp_tp.filters import stderr
from proxsmtp_tp.filters.verdict import Action, Verdict
from proxsmtp_tp.smtp.replies import Reply


class ScannerEnding(Enum):
    """What happened, as the log names it."""

    PASSED = "passed by the scanner"
    REFUSED = "refused by the scanner"
    UNREACHABLE = "no connection to the scanner"
    UNWILLING = "the scanner does not serve"
    LOST = "the scanner closed the connection"
    OUT_OF_STEP = "the scanner is out of step"
    NOT_SENDABLE = "an address that cannot be sent in SMTP"


# Enhanced codes: RFC 3463 section 3.4 (X.3.2 not accepting now, X.3.5 incorrectly configured).
REPLIES: Final = {
    ScannerEnding.UNREACHABLE: Reply.of(451, "4.3.5 Content filter is not available, try again later"),
    ScannerEnding.UNWILLING: Reply.of(451, "4.3.2 Content filter does not serve now, try again later"),
    ScannerEnding.LOST: Reply.of(451, "4.3.0 Content filter failed, try again later"),
    ScannerEnding.OUT_OF_STEP: Reply.of(451, "4.3.0 Content filter failed, try again later"),
    ScannerEnding.NOT_SENDABLE: Reply.of(451, "4.3.5 Content filter can not be asked, try again later"),
}

_ENHANCED = re.compile(rb"[245]\.[0-9]{1,3}\.[0-9]{1,3}(?: |\Z)")


def trouble(ending: ScannerEnding, about: object = "") -> Verdict:
    """TEMPFAIL with the reply for that ending. `about`: details for the log."""
    known = str(about)
    return Verdict(Action.TEMPFAIL, REPLIES[ending], f"{ending.value}: {known}" if known else ending.value)


def passed(reply: Reply) -> Verdict:
    """PASS. The caller adds the size of the message; the scanner's reply is only logged."""
    return Verdict(Action.PASS, None, f"{ScannerEnding.PASSED.value}: {shown(reply)}")


def refused(reply: Reply, step: str) -> Verdict:
    """REJECT for 5xx, TEMPFAIL for 4xx, with the scanner's text; `step` is what it refused. 421 becomes 451.

    The client gets the text in the same form as the last line of a command (see `stderr`).
    """
    said = stderr.parse(b"%d %s" % (reply.code, _words(reply)))
    return Verdict(said.action, said.reply, f"{ScannerEnding.REFUSED.value}: {step}", said=said.shown)


def shown(reply: Reply) -> str:
    """A reply as one printable line, for the log."""
    return Reply.of(reply.code, _words(reply)).wire.decode("ascii").strip()


def _words(reply: Reply) -> bytes:
    """All lines of a reply as one, with the enhanced code, which is in each (RFC 2034 section 4), only once."""
    texts = [text.strip() for text in reply.texts]
    code = _ENHANCED.match(texts[0])
    if code is not None:
        texts[1:] = [text.removeprefix(code[0]) for text in texts[1:]]
    return b" ".join(filter(None, texts))[: stderr.LINE_LIMIT]
