"""The messages that filters kept last: the newest first, bounded, and never half an entry."""

from __future__ import annotations

from proxsmtp_tp.telemetry import recent_verdicts
from proxsmtp_tp.telemetry.recent_verdicts import ENTRIES, TEXT_MAX, RecentVerdicts


def test_nothing_yet() -> None:
    assert RecentVerdicts(3).report() == {"passed": None, "kept": []}


def test_newest_first_of_all_workers() -> None:
    recent = RecentVerdicts(3)
    recent.kept(2, "192.0.2.1", "exit status 1: 550 no", coded=True)
    recent.kept(0, "2001:db8::1", "killed by: SIGKILL", coded=False)
    recent.passed(1)
    report = recent.report()
    assert 0 <= report["passed"] < 60
    assert [(entry["client"], entry["coded"], entry["reason"]) for entry in report["kept"]] == [
        ("2001:db8::1", False, "killed by: SIGKILL"),
        ("192.0.2.1", True, "exit status 1: 550 no"),
    ]
    assert all(0 <= entry["seconds"] < 60 for entry in report["kept"])


def test_the_oldest_are_replaced() -> None:
    recent = RecentVerdicts(2)
    for number in range(3 * ENTRIES):
        recent.kept(1, "192.0.2.1", str(number), coded=False)
    assert [entry["reason"] for entry in recent.report()["kept"]] == [
        str(number) for number in reversed(range(2 * ENTRIES, 3 * ENTRIES))
    ]


def test_a_long_reason_is_cut() -> None:
    recent = RecentVerdicts(1)
    recent.kept(0, "192.0.2.1", "\u20ac" * 1000, coded=False)
    (entry,) = recent.report()["kept"]
    assert len(entry["reason"].encode()) <= TEXT_MAX + 2
    assert entry["reason"].startswith("\u20ac" * 100)


def test_an_entry_that_is_being_written_is_not_shown() -> None:
    recent = RecentVerdicts(1)
    recent.kept(0, "192.0.2.1", "whole", coded=False)
    recent_verdicts._NUMBER.pack_into(recent._rows, recent_verdicts._PASSED.size, 0)
    assert recent.report()["kept"] == []
