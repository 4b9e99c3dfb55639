"""Counters in shared memory: nothing is lost when workers write at once, or die."""

from __future__ import annotations

from proxsmtp_tp.telemetry.counters import Counter, Counters

ONE = Counter.POSSIBLE_DUPLICATES


def test_begin_at_zero() -> None:
    assert Counters(3).totals() == dict.fromkeys(Counter, 0)


def test_workers_count_together() -> None:
    counters = Counters(4)
    for row in (0, 1, 1, 3):
        counters.count(row, ONE)
    assert counters.totals()[ONE] == 4


def test_what_a_dead_worker_counted_stays() -> None:
    counters = Counters(2)
    counters.count(0, ONE)
    counters.count(1, ONE)
    counters.keep(1)
    assert counters.totals()[ONE] == 2
    counters.count(1, ONE)
    counters.keep(1)
    counters.keep(1)
    assert counters.totals()[ONE] == 3
