"""doctor: its steps run at the same time, each with a limit; the last line and the exit status are correct."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.cli.doctor_actions import as_json, is_well, summary
from proxsmtp_tp.cli.doctor_daemon import may_be_a_filters
from proxsmtp_tp.gateway.doctor import examination, verdicts
from proxsmtp_tp.gateway.doctor.findings import Finding, State, unseen
from proxsmtp_tp.gateway.doctor.fixes import Fix
from proxsmtp_tp.gateway.doctor.steps import Step
from proxsmtp_tp.gateway.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import Iterator

GOOD, BAD = Finding("a", ok=True, text="fine"), Finding("b", ok=False, text="broken", fix=Fix("type this"))
KEPT = Finding("c", ok=False, text="550 no", other=State.KEPT)


def test_steps_run_at_the_same_time() -> None:
    """Each waits for the other."""
    meeting = threading.Barrier(2, timeout=30)

    def look() -> Iterator[Finding]:
        meeting.wait()
        yield GOOD

    steps = [Step("one", look, 60), Step("two", look, 60)]
    assert [finding for step in steps for finding in step.findings()] == [GOOD, GOOD]


def test_a_step_that_does_not_end_is_unseen_and_delays_no_other() -> None:
    """It may hang, or the machine is busy: nothing is known to be wrong, and the exit status is 1 nevertheless."""
    end = threading.Event()

    def look() -> Iterator[Finding]:
        yield GOOD
        end.wait()
        yield BAD

    told: list[str] = []
    found = list(Step("firewall", look, 2.5).findings(lambda name, _: told.append(name)))
    end.set()
    assert found[0] == GOOD
    assert [(finding.step, finding.state) for finding in found[1:]] == [("firewall", State.UNSEEN)]
    assert re.match(r"not ended within 2 s \(load average [0-9.]+, processors \d+\): ", found[1].text)
    assert not is_well(found)
    assert set(told) == {"firewall"}


@pytest.mark.parametrize("error", [GatewayError("nft is not installed"), OSError(2, "No such file")])
def test_a_step_that_cannot_look_is_not_seen(error: Exception) -> None:
    def look() -> Iterator[Finding]:
        yield GOOD
        raise error

    first, second = Step("rules", look, 60).findings()
    assert (first, second.state) == (GOOD, State.UNSEEN)
    assert str(error) in second.text


def test_an_error_of_ours_is_raised() -> None:
    def look() -> Iterator[Finding]:
        raise KeyError("a bug")
        yield GOOD

    with pytest.raises(KeyError):
        list(Step("rules", look, 60).findings())


@pytest.mark.parametrize(
    ("found", "last", "well"),
    [
        ([GOOD, GOOD], "none of 2 wrong", True),
        ([GOOD, BAD, BAD], "2 of 3 wrong", False),
        ([GOOD, KEPT], "none of 2 wrong, 1 kept by the filter", True),
        ([GOOD, KEPT, unseen("d", "")], "none of 3 wrong, 1 kept by the filter, 1 not seen (run it as root)", False),
    ],
)
def test_the_last_line(monkeypatch: pytest.MonkeyPatch, found: list[Finding], last: str, well: bool) -> None:
    monkeypatch.setattr(examination, "is_root", lambda: False)
    assert (summary(found), is_well(found)) == (last, well)


def test_findings_for_programs() -> None:
    assert as_json(BAD) == {
        "step": "b", "ok": False, "text": "broken", "fix": "type this", "mend": "type this", "state": "wrong",
    }  # fmt: skip
    assert as_json(KEPT)["state"] == "kept"


@pytest.mark.parametrize(
    ("reply", "own"),
    [
        ("550 not today", True),
        ("451 4.7.1 Greylisted", True),
        ("550 Content Rejected", False),
        ("550 Content Rejected; ValueError: 1", False),
        ("451 4.3.5 Content filter is not available, try again later", False),
        ("451 4.3.2 Content filter does not serve now, try again later", False),
        ("552 5.3.4 Error: the message is larger than the size limit", False),
    ],
)
def test_whose_reply_it_is(reply: str, own: bool) -> None:
    assert may_be_a_filters(reply) is own


def test_the_entry_of_a_mail(monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry of this client and this time; IPv4 clients may be shown as mapped addresses."""
    monkeypatch.setattr("time.monotonic", lambda: 1000.0)
    entries = [
        {"seconds": 1.0, "peer": "192.0.2.1", "coded": False, "reason": "another client"},
        {"seconds": 2.0, "peer": "::ffff:198.18.254.10", "coded": False, "reason": "mine"},
        {"seconds": 50.0, "peer": "198.18.254.10", "coded": True, "reason": "an earlier probe"},
    ]
    status = {"filter": {"worked": None, "failed": entries}}
    mail = {"begun": 997.0, "ended": 999.0}
    assert (verdicts.of_client(status, "198.18.254.10", mail) or {})["reason"] == "mine"
    assert verdicts.of_client(status, "198.18.254.10", {"begun": 999.5, "ended": 999.9}) is None
    assert verdicts.of_client(None, "198.18.254.10", mail) is None
