"""A full table of clients: a warning once an hour with the number, and what `doctor` is told."""

from __future__ import annotations

import pytest

from proxsmtp_tp.config.directives.table import DIRECTIVES
from proxsmtp_tp.config.rates import RateLimit
from proxsmtp_tp.config.settings import Settings
from proxsmtp_tp.gateway.doctor.load import TABLE_MAX
from proxsmtp_tp.net.admission import Admission
from proxsmtp_tp.net.client_limits import WorkerLimits
from proxsmtp_tp.service.table_space import HOUR, TableSpace


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("proxsmtp_tp.service.table_space.time.monotonic", lambda: now[0])
    return now


def test_the_first_one_is_logged_at_once_and_the_others_once_an_hour(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    admission = Admission(100, 2, clients=8)
    settings = Settings(client_messages=RateLimit(1, 60, 1))
    workers = [WorkerLimits(settings, admission.clients, row, lambda counter: None) for row in range(2)]
    for row, limits in enumerate(workers):
        limits.count = lambda counter, row=row: admission.counters.count(row, counter)  # type: ignore[misc]
    space = TableSpace(admission)
    kept = [workers[0].enter(f"192.0.2.{number}") for number in range(8)]
    space.look()
    assert space.report() == {"untracked": 0, "untracked_before": None}
    assert not caplog.messages
    for second in range(int(HOUR) // 10 + 1):  # look every ten seconds, one connection in each
        kept.append(workers[second % 2].enter("198.51.100.7"))
        space.look()
        clock[0] += 10
    first, later = caplog.messages
    assert first == "no space in the table of clients (ClientTableSize 8): 1 connections without limits"
    assert later == "no space in the table of clients (ClientTableSize 8): 360 connections without limits"
    assert space.report() == {"untracked": 361, "untracked_before": 10}
    clock[0] += 2 * HOUR
    admission.clear(0)  # a worker that died takes no number with it
    space.look()
    assert len(caplog.messages) == 2
    assert space.report() == {"untracked": 361, "untracked_before": 10 + 2 * HOUR}
    kept += [workers[1].enter(f"203.0.113.{number}") for number in range(9)]
    space.look()
    assert caplog.messages[-1].endswith(": 1 connections without limits")


def test_doctor_knows_the_largest_size() -> None:
    (directive,) = (row for row in DIRECTIVES if row.name == "ClientTableSize")
    assert directive.kind.syntax.endswith(f"..{TABLE_MAX}")
