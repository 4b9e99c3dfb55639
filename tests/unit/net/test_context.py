"""How the messages of clients were judged, as a worker tells `status` and `doctor`."""

from __future__ import annotations

from typing import Any

import pytest

from proxsmtp_tp.filters.verdict import Action, Verdict
from proxsmtp_tp.net.admission import Admission
from proxsmtp_tp.net.context import remember
from proxsmtp_tp.smtp.replies import Reply

NO = Reply.of(550, "5.7.1 No spam")


def remembered(*verdicts: Verdict) -> dict[str, Any]:
    admission = Admission(1, 1)
    for verdict in verdicts:
        remember(admission, 0, "192.0.2.7", verdict)
    return admission.recent_verdicts.report()


def test_a_message_that_passed() -> None:
    report = remembered(Verdict(Action.PASS, None, "passed"))
    assert report["worked"] is not None
    assert report["failed"] == []


@pytest.mark.parametrize(
    ("verdict", "reason", "coded"),
    [
        (Verdict(Action.REJECT, NO, "status 1", said="550 5.7.1 No spam"), "status 1: 550 5.7.1 No spam", True),
        (Verdict(Action.REJECT, NO, "exit status 1", said="No spam"), "exit status 1: No spam", False),
        (Verdict(Action.TEMPFAIL, NO, "timed out"), "timed out", False),
    ],
)  # fmt: skip
def test_a_message_that_did_not(verdict: Verdict, reason: str, coded: bool) -> None:
    report = remembered(verdict)
    assert report["worked"] is None
    (failed,) = report["failed"]
    assert (failed["peer"], failed["reason"], failed["coded"]) == ("192.0.2.7", reason, coded)
