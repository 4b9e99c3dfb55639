"""Every way in which a command can end, and the verdict of each.

    exit 0 with a message                          pass
    another status, and an SMTP code               what the code says: reject, tempfail or discard
    another status, no code                        FilterDefault: reject as 1.10, or TEMPFAIL
    any other end                                  TEMPFAIL with a reply of ours

So the mail stays in the client's queue until an administrator has fixed a crash, a limit or a mistake in the
configuration. A script that is missing, or has an error, ends with a status of its interpreter and no code. A script of
1.10 that wants to refuse ends in the same way. FilterDefault decides what such an end means.

Exit status 126 and 127 come from the shell: it could not run the command (sh(1), Exit Status). 128 + n comes from the
shell if the name of signal n is on standard error: a part of the command was killed, most often for lack of memory.
1.10 bounced mail in these cases. A script that uses such a status to refuse mail must write an SMTP code.
"""

from __future__ import annotations

import errno
import signal
from enum import Enum
from typing import TYPE_CHECKING, Final

from proxsmtp_tp.config.settings import FilterDefault
from proxsmtp_tp.filters import stderr
from proxsmtp_tp.filters.verdict import Action, Verdict
from proxsmtp_tp.smtp.replies import Reply

if TYPE_CHECKING:
    from proxsmtp_tp.filters.process import ExitStatus


class Ending(Enum):
    """What happened, as the log names it."""

    PASSED = "passed"
    REFUSED = "exit status"
    NO_CODE = "no SMTP code"
    KILLED = "killed by"
    NOT_FOUND = "the command cannot be run"
    NOT_STARTED = "could not be started"
    STATUS_LOST = "exit status lost"
    TIMED_OUT = "no answer within FilterTimeout"
    LINE_TIMED_OUT = "no filter process became free within FilterTimeout"
    OUTPUT_HELD = "exited, but left a process behind that held its output open until FilterTimeout"
    OUTPUT_EMPTY = "exited with success, but without a message"
    OUTPUT_TOO_LARGE = "its output is much larger than the message"
    OUTPUT_UNREADABLE = "the message file cannot be read back"
    SPOOL_FULL = "no space for the message"
    DISK_FULL = "the disk of TempDirectory is full"
    DISK_READ_ONLY = "the disk of TempDirectory is read-only"
    SPOOL_DENIED = "TempDirectory may not be written to"
    SPOOL_MISSING = "TempDirectory does not exist"
    SPOOL_FAILED = "TempDirectory cannot be used"


# Enhanced codes: RFC 3463 sections 3.4 (X.3.1 mail system full, X.3.2 not accepting now, X.3.5 incorrectly configured)
# and 3.8 (X.7.1 refused by local policy).
REPLIES: Final = {
    Ending.NO_CODE: Reply.of(451, "4.3.0 Content filter gave no verdict, try again later"),
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
    Ending.DISK_FULL: Reply.of(452, "4.3.1 No space to check the message, try again later"),
    Ending.DISK_READ_ONLY: Reply.of(451, "4.3.5 Messages can not be stored on a read-only disk, try again later"),
    Ending.SPOOL_DENIED: Reply.of(451, "4.3.5 Messages may not be stored where they are checked, try again later"),
    Ending.SPOOL_MISSING: Reply.of(451, "4.3.5 There is no place to store messages, try again later"),
    Ending.SPOOL_FAILED: Reply.of(451, "4.3.0 The message could not be stored, try again later"),
}

_BY_ERRNO: Final = {
    errno.ENOSPC: Ending.DISK_FULL,
    errno.EDQUOT: Ending.DISK_FULL,
    errno.EROFS: Ending.DISK_READ_ONLY,
    errno.EACCES: Ending.SPOOL_DENIED,
    errno.EPERM: Ending.SPOOL_DENIED,
    errno.ENOENT: Ending.SPOOL_MISSING,
    errno.ENOTDIR: Ending.SPOOL_MISSING,
}
"""What keeps a message from being stored; any other error: SPOOL_FAILED. Only a lack of space is 452 (RFC 5321 section
4.2.3, insufficient system storage)."""


def trouble(ending: Ending, about: object = "") -> Verdict:
    """TEMPFAIL with the reply for that ending. `about`: details for the log."""
    return Verdict(Action.TEMPFAIL, REPLIES[ending], _detail(ending, about))


def not_stored(error: OSError) -> Verdict:
    """TEMPFAIL for a message that cannot be stored in TempDirectory, or read back from it."""
    return trouble(_BY_ERRNO.get(error.errno or 0, Ending.SPOOL_FAILED), error)


def passed(size: int, last_line: bytes) -> Verdict:
    """PASS for a message of `size` octets. Standard error is only logged."""
    said = stderr.parse(last_line).shown if last_line else ""
    return Verdict(Action.PASS, None, _detail(Ending.PASSED, said), size)


def refused(status: ExitStatus, last_line: bytes, default: FilterDefault) -> Verdict:
    """The verdict for any end except exit status 0; `default` is for a last line without an SMTP code."""
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
        if default is FilterDefault.DEFER:
            return trouble(Ending.NO_CODE, f"exit status {status.code} {said.shown}")
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
