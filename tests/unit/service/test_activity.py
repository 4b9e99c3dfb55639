"""What `status` and systemctl show of the work of all workers."""

from __future__ import annotations

import time

import pytest

from proxsmtp_tp.config.settings import Settings
from proxsmtp_tp.net.admission import Admission
from proxsmtp_tp.service.activity import activity, summary
from proxsmtp_tp.telemetry.metrics import MESSAGES
from proxsmtp_tp.telemetry.sessions import SessionPhase


def test_the_work_of_all_workers() -> None:
    admission = Admission(10, 2)
    now = time.monotonic()
    for worker, phase in ((0, SessionPhase.FILTER), (1, SessionPhase.FILTER), (1, SessionPhase.WAITING)):
        row = admission.sessions.of(worker).begin("1", "", now)
        assert row is not None
        row.enter(phase, now - 5)
    admission.metrics.begin(0)
    admission.metrics.of(0).count(MESSAGES["filtered"], 2)
    admission.unreachable.of(1).failed("192.0.2.1:25")
    admission.last_error.write("broken", 1_795_000_000.0)
    shown = activity(admission, Settings(filter_command="cat", filter_processes=64))
    assert {phase: number for phase, number in shown["sessions"].items() if number} == {"filter": 2, "waiting": 1}
    oldest = shown["filters"].pop("oldest_wait")
    assert shown["filters"] == {"configured": True, "running": 2, "limit": 64, "waiting": 1}
    assert 5 <= oldest < 60
    assert shown["totals"]["messages_total"]["filtered"] == 2
    assert [server["server"] for server in shown["servers_down"]] == ["192.0.2.1:25"]
    assert shown["last_error"] == {"time": 1_795_000_000, "text": "broken"}
    assert activity(admission, Settings())["filters"]["configured"] is False


@pytest.mark.parametrize(("configured", "words"), [(True, ", 2 messages at filters, 1 waiting"), (False, "")])
def test_the_line_for_systemctl(configured: bool, words: str) -> None:
    report = {
        "connections": 3,
        "max_connections": 64,
        "filters": {"configured": configured, "running": 2, "waiting": 1},
        "totals": {"messages_total": {"filtered": 5, "rejected": 2}},
    }
    assert summary(report) == f"3 of 64 connections{words}, 7 messages since the start"
