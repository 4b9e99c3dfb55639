"""What the daemon answers `top`: sessions and messages by client and by server."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from proxsmtp_tp.net.admission import Admission
from proxsmtp_tp.service import top_report
from proxsmtp_tp.service.control import ControlError
from proxsmtp_tp.telemetry import metrics
from proxsmtp_tp.telemetry.sessions import SessionPhase, Shown


@pytest.fixture
def admission() -> Admission:
    return Admission(100, workers=2)


def begin(
    admission: Admission, client: str, phase: SessionPhase, seconds: float, server: str = "198.51.100.25"
) -> None:
    now = time.monotonic()
    opened = int((now - 100) * 1000)
    row = admission.sessions.of(0).begin("ID", client, now)
    assert row is not None
    row.show(Shown("ID", client, server, b"", 2, None, 0, b"", opened))
    row.enter(phase, now - seconds)


def asked(admission: Admission, since: object = None) -> dict[str, Any]:
    phases, _ = admission.sessions.phases()
    status = {"sessions": {phase.name.lower(): number for phase, number in phases.items()}}
    given = top_report.top_report(admission, status, {} if since is None else {"since": since})
    return dict(json.loads(json.dumps(given)))


def test_sessions_by_client_and_server(admission: Admission) -> None:
    begin(admission, "192.0.2.7:1", SessionPhase.WAITING, 20)
    begin(admission, "192.0.2.7:2", SessionPhase.FILTER, 30)
    begin(admission, "[2001:db8:1:2::1]:1", SessionPhase.FINAL, 40)
    begin(admission, "[2001:db8:1:2:ff::2]:1", SessionPhase.CONNECTING, 50, "203.0.113.25")
    begin(admission, "127.0.0.1:1", SessionPhase.COMMAND, 1)
    begin(admission, "unix", SessionPhase.COMMAND, 1, "")
    seen = asked(admission)
    clients = {row["client"]: row for row in seen["clients"]}
    assert set(clients) == {"192.0.2.7", "2001:db8:1:2::", "127.0.0.1", "unix"}
    one = clients["192.0.2.7"]
    assert (one["sessions"], one["messages"], one["waiting"], one["filter"]) == (2, 4, 1, 1)
    assert 20 <= one["wait"] < 30
    assert 100 <= one["longest"] < 110
    servers = {row["server"]: row for row in seen["servers"]}
    assert set(servers) == {"198.51.100.25", "203.0.113.25", ""}
    assert (servers["203.0.113.25"]["connecting"], servers["198.51.100.25"]["final"]) == (1, 1)
    assert 40 <= servers["198.51.100.25"]["wait"] < 50
    assert (seen["total"], seen["counted"], len(seen["sessions"])) == (6, 6, 6)


def test_messages_since_the_reading_before(admission: Admission) -> None:
    first = asked(admission)
    assert first["clients"] == []
    recent = admission.recent_messages.of(1)
    recent.add("192.0.2.7", "198.51.100.25", b"250 ok\r\n", 100, 0.5)
    recent.add("192.0.2.7", "198.51.100.25", b"550 no\r\n", 50, 2.5)
    recent.add("192.0.2.9", "198.51.100.25", b"451 later\r\n", 1, 0.0)
    recent.add("2001:db8:1:2:3::4", "203.0.113.25", b"", 1, 0.0)
    seen = asked(admission, first["numbers"])
    clients = {row["client"]: row for row in seen["clients"]}
    one = clients["192.0.2.7"]
    assert one["replies"] == {"2xx": 1, "4xx": 0, "5xx": 1, "none": 0}
    assert (one["octets"], one["slowest"], one["sessions"]) == (150, 2.5, 0)
    assert clients["192.0.2.9"]["replies"]["4xx"] == 1
    assert clients["2001:db8:1:2::"]["replies"]["none"] == 1
    assert [sum(row["replies"].values()) for row in seen["servers"]] == [3, 1]
    assert asked(admission, seen["numbers"])["clients"] == []
    assert asked(admission)["clients"] == [], "without an earlier reading nothing has happened"


def test_durations_since_the_start(admission: Admission) -> None:
    admission.metrics.of(0).observe(metrics.FILTER, 0.25)
    admission.metrics.of(1).observe(metrics.FILTER, 0.5)
    assert asked(admission)["times"]["filter"] == [2, 0.75]


def test_an_answer_has_a_bound(admission: Admission, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top_report, "COUNTED_MAX", 5)
    monkeypatch.setattr(top_report, "SESSIONS_MAX", 3)
    monkeypatch.setattr(top_report, "PEERS_MAX", 2)
    for number in range(8):
        begin(admission, f"192.0.2.{number}:1", SessionPhase.COMMAND, number)
    seen = asked(admission)
    assert (seen["total"], seen["counted"], len(seen["sessions"]), len(seen["clients"])) == (8, 5, 3, 2)
    assert seen["sessions"][0]["client"] == "192.0.2.7:1"


@pytest.mark.parametrize("since", ["x", 1, [1.5], [-1], [True], [None], [0] * 513, {}])
def test_requests_that_are_wrong(since: object, admission: Admission) -> None:
    with pytest.raises(ControlError, match="since"):
        asked(admission, since)
