"""Every way in which a scanner that speaks SMTP can end, and the verdict of each.

What the scanner says of the message or its envelope (from MAIL to the reply to the whole message) is its verdict: 5xx
rejects, 4xx is a TEMPFAIL, with its own words. What is no judgement of that message is a TEMPFAIL with a reply of ours,
so that mail stays in the client's queue until somebody has mended it: a scanner that does not serve at all (any refusal
up to EHLO and HELO), one that says it does not understand our commands (500, 502, 503, 504 before the text: RFC 5321
section 4.2.2), one that is out of step, slow, gone or not there.

Times, places and TempDirectory: `endings`.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

from proxsmtp_tp.filters import stderr
from proxsmtp_tp.filters.verdict import Action, Verdict
from proxsmtp_tp.smtp.replies import Reply


class ScannerEnding(Enum):
    """What happened, in the words of the log."""

    PASSED = "passed by the scanner"
    REFUSED = "refused by the scanner"
    UNREACHABLE = "no connection to the scanner"
    UNWILLING = "the scanner does not serve"
    LOST = "the scanner closed the connection"
    OUT_OF_STEP = "the scanner is out of step"
    UNSPEAKABLE = "an address that has no form in SMTP"


# Enhanced codes: RFC 3463 section 3.4 (X.3.2 not accepting now, X.3.5 incorrectly configured).
REPLIES: Final = {
    ScannerEnding.UNREACHABLE: Reply.of(451, "4.3.5 Content filter is not available, try again later"),
    ScannerEnding.UNWILLING: Reply.of(451, "4.3.2 Content filter does not serve now, try again later"),
    ScannerEnding.LOST: Reply.of(451, "4.3.0 Content filter failed, try again later"),
    ScannerEnding.OUT_OF_STEP: Reply.of(451, "4.3.0 Content filter failed, try again later"),
    ScannerEnding.UNSPEAKABLE: Reply.of(451, "4.3.5 Content filter can not be asked, try again later"),
}

_ENHANCED = re.compile(rb"[245]\.[0-9]{1,3}\.[0-9]{1,3}(?: |\Z)")


def trouble(ending: ScannerEnding, about: object = "") -> Verdict:
    """TEMPFAIL with the reply of that ending. `about`: what more is known, for the log."""
    known = str(about)
    return Verdict(Action.TEMPFAIL, REPLIES[ending], f"{ending.value}: {known}" if known else ending.value)


def passed(reply: Reply) -> Verdict:
    """PASS, of a message whose size is told by who has it; the scanner's reply is only for the log."""
    return Verdict(Action.PASS, None, f"{ScannerEnding.PASSED.value}: {shown(reply)}")


def refused(reply: Reply, step: str) -> Verdict:
    """REJECT for 5xx, TEMPFAIL for 4xx, in the scanner's words; `step` is what it refused. 421 becomes 451.

    The words are told to the client as those of a refusing command are (see `stderr`).
    """
    said = stderr.parse(b"%d %s" % (reply.code, _words(reply)))
    return Verdict(said.action, said.reply, f"{ScannerEnding.REFUSED.value}: {step}", said=said.shown)


def shown(reply: Reply) -> str:
    """A reply as one printable line, for the log."""
    return Reply.of(reply.code, _words(reply)).wire.decode("ascii").strip()


def _words(reply: Reply) -> bytes:
    """All lines of a reply as one, their enhanced code (RFC 2034 section 4 has it in each) said once."""
    texts = [text.strip() for text in reply.texts]
    code = _ENHANCED.match(texts[0])
    if code is not None:
        texts[1:] = [text.removeprefix(code[0]) for text in texts[1:]]
    return b" ".join(filter(None, texts))[: stderr.LINE_LIMIT]
