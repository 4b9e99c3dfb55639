"""The verdict of a filter on a message: values only, shared with the session."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from proxsmtp_tp.smtp.envelope import Envelope
from proxsmtp_tp.smtp.replies import Reply
from proxsmtp_tp.telemetry.facts import FilterJudged


class Action(Enum):
    """The verdicts of a filter. QUARANTINE: the message is kept here, and the server does not get it."""

    PASS = "pass"  # noqa: S105  (no password)
    REJECT = "reject"
    TEMPFAIL = "tempfail"
    DISCARD = "discard"
    QUARANTINE = "quarantine"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reply` is for the client (None for PASS: the server will reply); `detail` is one line for the log.

    `said` is the filter's own text about a message that it did not pass; empty if the filter failed. `size` is the
    length in bytes of the judged message that passed; 0 otherwise. `errors` is what the filter wrote to standard error,
    as one line for the log, with a backslash before quotes and backslashes; empty if `detail` or `said` shows all.
    """

    action: Action
    reply: Reply | None
    detail: str
    size: int = 0
    said: str = ""
    errors: str = ""
    unjudged: bool = False
    """No filter decided this refusal: one has failed, or the message is too large for it. Not the client's fault."""
    monitored: Verdict | None = None
    """FilterMode monitor: what the filter said of this message, which passes as it came. None: the verdict is the
    filter's.
    """
    envelope: Envelope | None = None
    """With PASS: the envelope that the filters of a chain want. None: the client's."""
    judged: tuple[FilterJudged, ...] = ()
    """What each filter of a chain said; empty: there is no chain."""

    @property
    def failure(self) -> str:
        """Why a filter failed to judge the message, as one line for the log; empty: none has failed.

        The message may have passed, or may be kept (`failure=`), and with FilterMode monitor it has passed.
        """
        if self.monitored is not None:
            return self.monitored.failure
        failed = (f"{each.name}: {each.text}" for each in self.judged if each.verdict == "failed")
        return next(failed, "" if self.action is Action.PASS or self.said else self.detail)
