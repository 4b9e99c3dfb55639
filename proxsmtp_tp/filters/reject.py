"""FilterType reject: every message is refused with FilterReject, at MAIL, RCPT and DATA; no process, no message text.

The session gives the reply; here it is only read. FilterReject is written like the last line of a filter's standard
error (see `stderr`): a code and a text, or a text that 550 goes before.
"""

from __future__ import annotations

from proxsmtp_tp.filters import stderr
from proxsmtp_tp.filters.verdict import Action
from proxsmtp_tp.smtp.replies import Reply


def parse_reject(text: str) -> Reply:
    """Read FilterReject ("530 Email Rejected"). The reply is 4xx or 5xx, whatever the text."""
    said = stderr.parse(text.encode("ascii", "replace"))
    if said.action is Action.DISCARD:
        # 250 would accept what nobody will ever see.
        return Reply.of(550, f"Content Rejected; {said.shown}")
    return said.reply
