"""FilterType reject: every message is refused with FilterReject, at MAIL, RCPT and DATA; no process, no message text.

The session gives the reply; this module only parses it. FilterReject is written like the last line of a filter's
standard error (see `stderr`): a code and a text, or only a text (then the code is 550).
"""

from __future__ import annotations

from proxsmtp_tp.filters import stderr
from proxsmtp_tp.filters.verdict import Action
from proxsmtp_tp.smtp.replies import Reply


def parse_reject(text: str) -> Reply:
    """Read FilterReject ("530 Email Rejected"). The reply is 4xx or 5xx, whatever the text."""
    said = stderr.parse(text.encode("ascii", "replace"))
    if said.action is Action.DISCARD:
        # 250 would accept a message that is never delivered.
        return Reply.quoting(550, f"Content Rejected; {said.shown}")
    return said.reply
