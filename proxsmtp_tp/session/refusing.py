"""Commands that the proxy refuses itself: they are counted, and too many end the connection.

The counters are in `bounds.Refusals`. Every refusal must be counted: otherwise a client could send refused commands
without limit.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from proxsmtp_tp.session import message
from proxsmtp_tp.smtp import answers

if TYPE_CHECKING:
    from proxsmtp_tp.session.dialogue import Dialogue
    from proxsmtp_tp.smtp.replies import Reply

ERROR_LIMIT: Final = 20
"""Refused commands after which the connection ends; an accepted message resets the count. Value and counting are those
of Postfix's smtpd_hard_error_limit."""

OVERSHOOT: Final = 1000
"""Recipients over the limit, in one transaction, that are not counted as errors, because clients send recipients in
groups: Postfix's smtpd_recipient_overshoot_limit."""


def refuse(d: Dialogue, reply: Reply) -> None:
    """Refuse a command with a reply of our own, and count it."""
    d.tell(reply)
    count_error(d)


def refuse_recipient(d: Dialogue, reply: Reply) -> None:
    """Refuse RCPT because there are too many; a group of them is no error (OVERSHOOT)."""
    d.tell(reply)
    d.refusals.recipients += 1
    if d.refusals.recipients > OVERSHOOT:
        count_error(d)


def refuse_limited(d: Dialogue, reply: Reply) -> None:
    """Refuse MAIL because of a limit or a lock; 421 ends the connection."""
    if reply.code == 421:
        d.end_after_replies = reply
    else:
        refuse(d, reply)


def count_error(d: Dialogue) -> None:
    """Count one error; end the connection at the limit."""
    d.refusals.errors += 1
    if d.refusals.errors >= ERROR_LIMIT and d.end_after_replies is None:
        d.log(f"client={d.client}: {d.refusals.errors} commands refused: closing", logging.WARNING)
        d.end_after_replies = answers.TOO_MANY_ERRORS


def rejected(d: Dialogue, verb: bytes) -> bool:
    """FilterType reject: answer MAIL, RCPT and DATA with FilterReject, and send nothing to the server.

    Each MAIL is counted as an error. The RCPT and DATA after it, which a client sends in one group with MAIL, are
    counted only if they are more than any such group.
    """
    if d.options.reject is None or message.skipped(d):
        return False
    d.tell(d.options.reject)
    if verb == b"MAIL":
        d.refusals.behind_mail = 0
        count_error(d)
    else:
        d.refusals.behind_mail += 1
        if d.refusals.behind_mail > OVERSHOOT + 1:  # DATA
            count_error(d)
    return True
