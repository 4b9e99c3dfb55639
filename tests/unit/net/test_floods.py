"""Refused connections are told once a second by one worker, with the clients that have most; a warning at 80 %."""

from __future__ import annotations

import pytest

from proxsmtp_tp.net.admission import Admission
from proxsmtp_tp.net.floods import CLIENTS_MAX, NAMED, Floods
from proxsmtp_tp.telemetry.refused_connections import RefusedConnections


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    now = [100]
    monkeypatch.setattr("proxsmtp_tp.net.floods.time.monotonic", lambda: now[0])
    return now


def enter(table: Admission, client: str, count: int, worker: int = 0) -> None:
    for _ in range(count):
        assert table.try_enter(worker, client)
        table.add_share(worker, client)


def test_one_worker_reports_the_sum_of_all(caplog: pytest.LogCaptureFixture, second: list[int]) -> None:
    table = Admission(100, 3)
    enter(table, "192.0.2.1", 7)
    enter(table, "2001:db8::", 5, worker=1)
    enter(table, "192.0.2.2", 1, worker=2)
    workers = [Floods(table, row) for row in range(3)]
    for _ in range(1000):
        for worker in workers:
            worker.full()
    for _ in range(2):
        for worker in workers:
            worker.look()
    second[0] += 1
    workers[2].full()
    table.clear(0)  # a worker that died takes no count with it
    for worker in workers:
        worker.look()
    first, second_line = caplog.messages
    assert first.startswith("more than MaxConnections (100): 3000 connections refused; clients with most: ")
    assert first.endswith(" 192.0.2.1 7, 2001:db8:: 5, 192.0.2.2 1")
    assert second_line.endswith(": 1 connections refused; clients with most: 2001:db8:: 5, 192.0.2.2 1")


def test_a_warning_at_80_percent(caplog: pytest.LogCaptureFixture, second: list[int]) -> None:
    table = Admission(10, 1)
    floods = Floods(table, 0)
    told = []
    for used in (7, 8, 9, 7, 8, 6, 8):
        while sum(table.counts()) < used:
            assert table.try_enter(0)
        while sum(table.counts()) > used:
            table.leave(0)
        second[0] += 1
        floods.look()
        told.append(len(caplog.messages))
    assert told == [0, 1, 1, 1, 1, 1, 2]
    assert caplog.messages[0] == "80 % of MaxConnections (10) are in use; clients with most: none"


def test_clients_that_have_too_many(caplog: pytest.LogCaptureFixture, second: list[int]) -> None:
    floods = Floods(Admission(10, 1), 0)
    for number in range(CLIENTS_MAX + 500):
        floods.too_many(f"10.0.{number >> 8}.{number & 255}")
    for _ in range(99):
        floods.too_many("10.0.0.7")
    floods.look()
    floods.look()
    (line,) = caplog.messages
    assert line.startswith(f"{CLIENTS_MAX + 599} connections of clients")
    assert ": 10.0.0.7 100, 10.0" in line
    assert line.count(", 10.") == NAMED - 1


def test_refusals_are_logged_once_in_a_second() -> None:
    refused = RefusedConnections(2)
    refused.count(0)
    refused.count(1)
    assert [refused.untold(5), refused.untold(5)] == [2, 0]
    refused.count(1)
    assert [refused.untold(5), refused.untold(6), refused.untold(7)] == [0, 1, 0]
