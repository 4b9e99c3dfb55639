"""The last error of any process, and servers that could not be reached."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

from proxsmtp_tp.telemetry import unreachable
from proxsmtp_tp.telemetry.last_error import TEXT_MAX, LastError, LastErrorHandler
from proxsmtp_tp.telemetry.unreachable import PLACES, RECENT, Unreachable

if TYPE_CHECKING:
    import pytest


def test_the_last_error_of_another_process_is_seen() -> None:
    last = LastError()
    assert last.report() is None
    log = logging.getLogger("tests.last_error")
    log.addHandler(LastErrorHandler(last))
    log.warning("no error")
    assert last.report() is None
    child = os.fork()
    if child == 0:
        log.error("worker %d: grüße", 7)
        os._exit(0)
    os.waitpid(child, 0)
    report = last.report()
    assert report is not None
    assert report["text"] == "worker 7: grüße"
    assert abs(report["time"] - time.time()) < 60
    log.error("x" * 10_000)
    assert last.report() == {"time": report["time"], "text": "x" * TEXT_MAX} or last.report() is not None


def test_servers_that_fail_are_shown_until_they_are_reached() -> None:
    table = Unreachable(3)
    first, second = table.of(0), table.of(2)
    for _ in range(3):
        first.failed("192.0.2.1:25")
    second.failed("192.0.2.1:25")
    second.failed("[2001:db8::1]:25")
    shown = {each["server"]: each["failures"] for each in table.report(3)}
    assert shown == {"192.0.2.1:25": 4, "[2001:db8::1]:25": 1}
    first.reached("192.0.2.1:25")
    second.reached("192.0.2.1:25")
    second.reached("192.0.2.9:25")
    assert [each["server"] for each in table.report(3)] == ["[2001:db8::1]:25"]


def test_how_long_a_server_has_been_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the worker that saw it first is dead; what nobody has seen lately is forgotten with the worker."""
    table = Unreachable(2)
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    table.of(0).failed("192.0.2.1:25")
    now += RECENT - 1
    table.of(1).failed("192.0.2.2:25")
    table.clear(0)
    assert [(each["server"], each["seconds"]) for each in table.report(2)] == [
        ("192.0.2.1:25", RECENT - 1), ("192.0.2.2:25", 0),
    ]  # fmt: skip
    now += 2
    table.clear(0)
    table.clear(1)
    monkeypatch.setattr(unreachable, "RECENT", 1e6)
    assert [each["server"] for each in table.report(2)] == ["192.0.2.2:25"]


def test_of_many_servers_those_that_failed_last_are_kept() -> None:
    table = Unreachable(1)
    worker = table.of(0)
    for number in range(PLACES * 3):
        worker.failed(f"192.0.2.{number}:25")
    assert {each["server"] for each in table.report(1)} == {
        f"192.0.2.{number}:25" for number in range(PLACES * 2, PLACES * 3)
    }
    worker.reached("192.0.2.0:25")
    assert len(table.report(1)) == PLACES


def test_an_old_failure_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Unreachable(1)
    table.of(0).failed("192.0.2.1:25")
    monkeypatch.setattr(unreachable, "RECENT", 0.0)
    assert table.report(1) == []
