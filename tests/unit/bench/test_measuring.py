"""bench.measuring: how many messages, in which order, and what happens when a subject fails."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from bench import measuring
from bench.measuring import LoadError, Pace, Pair, SmtpSource, calibrated, measured
from bench.processes import Cpu
from bench.subjects import Subject

A, B, C = (Subject(name, 0, 0) for name in "abc")
QUIET = Pace(3, 1.5, lambda _: None)


@dataclass
class Fake:
    """A load of so many messages a second. `done`: what it was asked for."""

    name: str
    rate: float = 1000.0
    fewest: int = 1
    fails_at: int = 0
    done: list[tuple[str, int]] = field(default_factory=list)

    def fitting(self, messages: int) -> int:
        return max(self.fewest, messages)

    def run(self, subject: Subject, messages: int) -> float:
        self.done.append((subject.name, messages))
        if len(self.done) == self.fails_at:
            raise LoadError("554 no")
        return messages / self.rate


def test_a_sample_gets_the_messages_of_its_time() -> None:
    load = Fake("x")
    assert calibrated(Pair(A, load), 1.5) == Pair(A, load, 1500, 1.5)
    assert [messages for _, messages in load.done] == [measuring.PROBE, 250]


def test_a_slow_subject_is_looked_at_once_and_gets_what_the_load_needs() -> None:
    load = Fake("x", rate=10.0, fewest=40)
    assert calibrated(Pair(A, load), 1.5) == Pair(A, load, 40, 4.0)
    assert load.done == [("a", 40)]


def test_smtp_source_sends_at_least_two_messages_a_session_and_not_too_many() -> None:
    load = SmtpSource("2000", 2000)
    assert load.fitting(1) == 4000
    assert load.fitting(10**9) == measuring.MOST_MESSAGES


def test_each_load_meets_all_subjects_in_turn_and_each_round_begins_with_another() -> None:
    first, second = Fake("first"), Fake("second")
    found = measured([Pair(each, load) for each in (A, B, C) for load in (first, second)], QUIET)
    order = [(each.round, each.load, each.subject) for each in found.samples]
    assert order == [
        (number, load, subject)
        for number, subjects in enumerate(("abc", "bca", "cab"))
        for load in ("first", "second")
        for subject in subjects
    ]
    assert found.failures == []
    assert {round(each.rate) for each in found.samples} == {1000}


def test_a_failure_is_reported_once_and_the_others_continue() -> None:
    said: list[str] = []
    bad, good = Fake("bad", fails_at=4), Fake("good")
    found = measured([Pair(A, bad), Pair(A, good)], replace(QUIET, say=said.append))
    assert [(each.subject, each.load, each.reason) for each in found.failures] == [("a", "bad", "554 no")]
    assert [each.load for each in found.samples] == ["bad", "good", "good", "good"]
    assert "a: bad: 554 no" in said


def test_what_fails_at_the_first_look_is_not_measured() -> None:
    found = measured([Pair(A, Fake("bad", fails_at=1))], QUIET)
    assert found.samples == []
    assert len(found.failures) == 1


def test_on_a_machine_that_is_too_busy_the_run_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "LATE", 0.0)
    found = measured([Pair(A, Fake("x"))], QUIET)
    assert found.samples == []
    assert "too busy" in found.failures[0].reason


def test_a_sample_is_per_message() -> None:
    found = measuring.Sample("a", "x", 0, 2000, 4.0, Cpu(0.2, 0.1), Cpu(1.0, 0.0))
    assert found.rate == 500
    assert [found.microseconds.user, found.microseconds.system] == pytest.approx([100, 50])
    assert found.judging_microseconds == Cpu(500, 0)


@pytest.mark.parametrize("said", ["500 5.5.1 no", ""])
def test_a_command_that_fails_is_quoted(said: str) -> None:
    with pytest.raises(LoadError, match=said or "exit status 3"):
        measuring.timed(["sh", "-c", f"echo '{said}' >&2; exit 3"], A)


def test_a_command_that_hangs_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "RUN_LIMIT", 0.2)
    with pytest.raises(LoadError, match="not done after"):
        measuring.timed(["sleep", "60"], A)
