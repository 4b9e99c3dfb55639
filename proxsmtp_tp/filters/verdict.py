"""What a filter says of a message: values only, shared with the session."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxsmtp_tp.smtp.replies import Reply


class Action(Enum):
    """The four verdicts of a filter."""

    PASS = "pass"  # noqa: S105  (no password)
    REJECT = "reject"
    TEMPFAIL = "tempfail"
    DISCARD = "discard"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reply` is what the client is told (None for PASS: the server will say); `detail` is for the log, one line.

    `said` is what the filter itself said of a message that it did not pass; empty where it failed, rather than judged.
    `size` is the length in bytes of the message that passed, as the filter left it; 0 otherwise.
    """

    action: Action
    reply: Reply | None
    detail: str
    size: int = 0
    said: str = ""
