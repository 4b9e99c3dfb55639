"""What a client gets from a chain where no filter gave the reply."""

from __future__ import annotations

from enum import Enum
from typing import Final

from proxsmtp_tp.config.filter_lines import Oversize
from proxsmtp_tp.filters.verdict import Action
from proxsmtp_tp.smtp.replies import Reply


class ChainEnding(Enum):
    """What happened at one filter, as the log names it."""

    UNREACHABLE = "no connection to the filter"
    TIMED_OUT = "no answer within timeout="
    NO_PLACE = "no place became free within wait="
    PAUSED = "not asked: it failed repeatedly and is tried again soon"
    FAILED = "the filter failed"
    NOT_ALLOWED = "an edit that edits= does not allow"
    BAD_EDIT = "an edit that cannot be applied"
    TOO_LARGE = "the message is above limit="
    HEADER_TOO_LARGE = "the header cannot be read"


# Enhanced codes: RFC 3463 sections 3.4 (X.3.2 not accepting now, X.3.5 incorrectly configured) and 3.8.
REPLIES: Final = {
    ChainEnding.UNREACHABLE: Reply.of(451, "4.3.5 A mail filter is not available, try again later"),
    ChainEnding.TIMED_OUT: Reply.of(451, "4.7.1 A mail filter timed out, try again later"),
    ChainEnding.NO_PLACE: Reply.of(451, "4.3.2 The mail filters are busy, try again later"),
    ChainEnding.PAUSED: Reply.of(451, "4.3.2 A mail filter is not available now, try again later"),
    ChainEnding.FAILED: Reply.of(451, "4.3.0 A mail filter failed, try again later"),
    ChainEnding.NOT_ALLOWED: Reply.of(451, "4.3.5 A mail filter is not configured for this message, try again later"),
    ChainEnding.BAD_EDIT: Reply.of(451, "4.3.0 A mail filter changed the message in an invalid way, try again later"),
    ChainEnding.TOO_LARGE: Reply.of(451, "4.3.4 The message is too large to be checked now, try again later"),
}

NOT_CHECKED: Final = Reply.of(554, "5.7.1 The message could not be checked, and is refused")
"""failure=reject."""
TOO_LARGE_REFUSED: Final = Reply.of(552, "5.3.4 The message is too large to be checked")
"""oversize=reject (RFC 1870 section 6.1)."""
HEADER_TOO_LARGE: Final = Reply.of(552, "5.3.4 The header of the message is too large to be checked")
NO_QUARANTINE: Final = Reply.of(550, "5.7.1 The message is refused by a mail filter")
"""A quarantine verdict without QuarantineDirectory."""

USUAL: Final = {
    Action.REJECT: Reply.of(550, "5.7.1 The message is rejected by a mail filter"),
    Action.TEMPFAIL: Reply.of(451, "4.7.1 The message is deferred by a mail filter, try again later"),
    Action.DISCARD: Reply.of(250, "2.0.0 Ok"),
}
"""Where a filter gave no reply of its own."""

OVERSIZE: Final = {
    Oversize.REJECT: (Action.REJECT, TOO_LARGE_REFUSED),
    Oversize.TEMPFAIL: (Action.TEMPFAIL, REPLIES[ChainEnding.TOO_LARGE]),
}
