"""What failed last: the newest first, bounded, and never half an entry."""

from __future__ import annotations

from proxsmtp_tp.telemetry import recent_failures
from proxsmtp_tp.telemetry.recent_failures import ENTRIES, TEXT_MAX, RecentFailures


def test_nothing_yet() -> None:
    assert RecentFailures(3).report() == {"worked": None, "failed": []}


def test_newest_first_of_all_workers() -> None:
    recent = RecentFailures(3)
    recent.failed(2, "192.0.2.1", "exit status 1: 550 no", coded=True)
    recent.failed(0, "2001:db8::1", "killed by: SIGKILL", coded=False)
    recent.worked(1)
    report = recent.report()
    assert 0 <= report["worked"] < 60
    assert [(entry["peer"], entry["coded"], entry["reason"]) for entry in report["failed"]] == [
        ("2001:db8::1", False, "killed by: SIGKILL"),
        ("192.0.2.1", True, "exit status 1: 550 no"),
    ]
    assert all(0 <= entry["seconds"] < 60 for entry in report["failed"])


def test_the_oldest_are_replaced() -> None:
    recent = RecentFailures(2)
    for number in range(3 * ENTRIES):
        recent.failed(1, "192.0.2.1", str(number), coded=False)
    assert [entry["reason"] for entry in recent.report()["failed"]] == [
        str(number) for number in reversed(range(2 * ENTRIES, 3 * ENTRIES))
    ]


def test_a_long_reason_is_cut() -> None:
    recent = RecentFailures(1)
    recent.failed(0, "192.0.2.1", "\u20ac" * 1000, coded=False)
    (entry,) = recent.report()["failed"]
    assert len(entry["reason"].encode()) <= TEXT_MAX + 2
    assert entry["reason"].startswith("\u20ac" * 100)


def test_an_entry_that_is_being_written_is_not_shown() -> None:
    recent = RecentFailures(1)
    recent.failed(0, "192.0.2.1", "whole", coded=False)
    recent_failures._NUMBER.pack_into(recent._rows, recent_failures._LAST.size, 0)
    assert recent.report()["failed"] == []
