"""Every way in which a command can end, and the verdict of each.

What the command meant by its exit becomes pass, reject, tempfail or discard. What it did not mean (a crash, a limit,
an administrator's mistake) is a TEMPFAIL, so that the mail stays in the client's queue until somebody has mended it.

Exit status 126 and 127 are the shell's own: it could not run the command (sh(1), Exit Status). So is 128 + n with the
name of signal n on standard error: a part of the command was killed, most often for lack of memory. 1.10 bounced mail
for both. A script that means such a status says so with an SMTP code.
"""

from __future__ import annotations

import signal
from enum import Enum
from typing import TYPE_CHECKING, Final

from proxsmtp_tp.filters import stderr
from proxsmtp_tp.filters.verdict import Action, Verdict
from proxsmtp_tp.smtp.replies import Reply

if TYPE_CHECKING:
    from proxsmtp_tp.filters.process import ExitStatus


class Ending(Enum):
    """What happened, in the words of the log."""

    PASSED = "passed"
    REFUSED = "exit status"
    KILLED = "killed by"
    NOT_FOUND = "the command can not be run"
    NOT_STARTED = "could not be started"
    STATUS_LOST = "exit status lost"
    TIMED_OUT = "no answer within FilterTimeout"
    LINE_TIMED_OUT = "no filter process became free within FilterTimeout"
    OUTPUT_HELD = "exited, but left a process behind that held its output open until FilterTimeout"
    OUTPUT_EMPTY = "exited with success, but without a message"
    OUTPUT_TOO_LARGE = "its output is out of all proportion to the message"
    OUTPUT_UNREADABLE = "the message file can not be read back"
    SPOOL_FULL = "no room for the message"
    SPOOL_FAILED = "TempDirectory can not be used"


# Enhanced codes: RFC 3463 sections 3.4 (X.3.1 mail system full, X.3.2 not accepting now, X.3.5 incorrectly configured)
# and 3.8 (X.7.1 refused by local policy).
REPLIES: Final = {
    Ending.KILLED: Reply.of(451, "4.3.0 Content filter failed, try again later"),
    Ending.NOT_FOUND: Reply.of(451, "4.3.5 Content filter is not available, try again later"),
    Ending.NOT_STARTED: Reply.of(451, "4.3.2 Content filter can not be started now, try again later"),
    Ending.STATUS_LOST: Reply.of(451, "4.3.0 Content filter failed, try again later"),
    Ending.TIMED_OUT: Reply.of(451, "4.7.1 Content filter timed out, try again later"),
    Ending.LINE_TIMED_OUT: Reply.of(451, "4.3.2 Content filters are busy, try again later"),
    Ending.OUTPUT_HELD: Reply.of(451, "4.3.0 Content filter did not finish, try again later"),
    Ending.OUTPUT_EMPTY: Reply.of(451, "4.3.0 Content filter returned no message, try again later"),
    Ending.OUTPUT_TOO_LARGE: Reply.of(451, "4.3.0 Content filter returned too much, try again later"),
    Ending.OUTPUT_UNREADABLE: Reply.of(451, "4.3.0 Content filter left no readable message, try again later"),
    Ending.SPOOL_FULL: Reply.of(452, "4.3.1 Too many messages are being checked, try again later"),
    Ending.SPOOL_FAILED: Reply.of(452, "4.3.1 No space to check the message, try again later"),
}


def trouble(ending: Ending, about: object = "") -> Verdict:
    """TEMPFAIL with the reply of that ending. `about`: what more is known, for the log."""
    return Verdict(Action.TEMPFAIL, REPLIES[ending], _detail(ending, about))


def passed(size: int, last_line: bytes) -> Verdict:
    """PASS for a message of `size` octets. What the command wrote to standard error is only for the log."""
    return Verdict(Action.PASS, None, _detail(Ending.PASSED, stderr.parse(last_line).shown), size)


def refused(status: ExitStatus, last_line: bytes) -> Verdict:
    """Any end but exit status 0: what its last line says, or, where the command did not mean it, TEMPFAIL."""
    said = stderr.parse(last_line)
    if status.signal is not None:
        return trouble(Ending.KILLED, f"{_signal_name(status.signal)} {said.shown}")
    if status.code is None:
        return trouble(Ending.STATUS_LOST, said.shown)
    if said.code is None:
        if status.code in {126, 127}:
            return trouble(Ending.NOT_FOUND, said.shown)
        if _tells_of_signal(status.code - 128, said.text):
            return trouble(Ending.KILLED, f"{_signal_name(status.code - 128)} {said.shown}")
    words = said.shown or "Content Rejected"
    return Verdict(said.action, said.reply, f"{Ending.REFUSED.value} {status.code}", said=words)


def _detail(ending: Ending, about: object) -> str:
    known = str(about).strip()
    return f"{ending.value}: {known}" if known else ending.value


def _tells_of_signal(number: int, text: str) -> bool:
    if number not in signal.valid_signals():
        return False
    name = signal.strsignal(number)
    return name is not None and name in text


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
