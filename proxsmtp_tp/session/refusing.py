"""Commands that we refuse ourselves: each is counted, and so many end the connection.

The counters are `bounds.Refusals`. A refusal that is not counted here would let a client have replies for nothing.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from proxsmtp_tp.session import message
from proxsmtp_tp.smtp import answers

if TYPE_CHECKING:
    from proxsmtp_tp.session.dialogue import Dialogue
    from proxsmtp_tp.smtp.replies import Reply

ERROR_LIMIT = 20
"""Commands refused by ourselves without a message accepted in between, before the connection ends: Postfix's
smtpd_hard_error_limit, which counts as it does."""

OVERSHOOT = 1000
"""Refused recipients of one transaction that count for no error, since a client sends them in one group: Postfix's
smtpd_recipient_overshoot_limit."""


def refuse(d: Dialogue, reply: Reply) -> None:
    """Refuse a command ourselves."""
    d.tell(reply)
    count_error(d)


def count_error(d: Dialogue) -> None:
    """One more, and the end where it is one too many."""
    d.refusals.errors += 1
    if d.refusals.errors >= ERROR_LIMIT and d.end_after_replies is None:
        d.log(f"client={d.client}: {d.refusals.errors} commands refused: closing", logging.WARNING)
        d.end_after_replies = answers.TOO_MANY_ERRORS


def rejected(d: Dialogue, verb: bytes) -> bool:
    """FilterType reject: MAIL, RCPT and DATA are answered with FilterReject, and the server hears nothing.

    Each MAIL is an error. The RCPT and DATA behind it, which a client sends in one group with it, are answered as they
    come, and are errors only where they are more than any group.
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
