"""Counters and histograms: exact when workers are killed, and when others get their rows."""

from __future__ import annotations

import os
import random
import signal

import pytest

from proxsmtp_tp.telemetry import metrics
from proxsmtp_tp.telemetry.metrics import BOUNDS, FAMILIES, MESSAGES, SIZE, Metrics, by_name, seconds_of

ONE, OTHER = MESSAGES["filtered"], MESSAGES["rejected"]


def test_each_series_has_a_place_of_its_own() -> None:
    places = [family.first + place for family in FAMILIES for place in range(family.words)]
    assert places == list(range(SIZE))
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    for family in FAMILIES:
        assert len(set(family.values)) == len(family.values)
        assert family.histogram == family.name.endswith("_seconds")
        assert family.histogram or family.name.endswith("_total")


def test_what_workers_count_is_summed_and_stays() -> None:
    table = Metrics(8)
    for worker in range(4):
        table.begin(worker)
        table.of(worker).count(ONE, worker + 1)
    table.of(2).count(OTHER)
    assert (table.totals()[ONE], table.totals()[OTHER]) == (10, 1)
    for worker in (1, 2, 2):
        table.keep(worker)
        assert (table.totals()[ONE], table.totals()[OTHER]) == (10, 1)
    table.of(2).count(ONE)
    table.keep(2)
    assert by_name(table.totals())["messages_total"]["filtered"] == 11


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [(0.0, 0), (-1.0, 0), (0.005, 0), (0.0051, 1), (1.0, 4), (300.0, 11), (300.1, 12), (1e6, 12)],
)
def test_a_duration_is_in_the_first_bucket_whose_bound_is_not_less(seconds: float, bucket: int) -> None:
    table = Metrics(1)
    table.begin(0)
    table.of(0).observe(metrics.FILTER, seconds)
    counts, total = seconds_of(table.totals(), metrics.FILTER)
    assert counts == [int(place == bucket) for place in range(len(BOUNDS) + 1)]
    assert total == pytest.approx(max(0.0, seconds), abs=1e-5)
    assert sum(table.totals()) == 1 + int(max(0.0, seconds) * 1e6)


def test_counts_are_exact_after_a_hundred_thousand_messages_with_workers_killed_in_between() -> None:
    """Each worker tells the test of a message only after it has counted it, as a client is answered only then.

    Killed where it was just counting, it may have counted one message of which nobody knows.
    """
    table = Metrics(3)
    generator = random.Random(17)
    told = deaths = 0
    while told < 100_000:
        worker = generator.randrange(3)
        table.begin(worker)
        out, into = os.pipe()
        child = os.fork()
        if child == 0:
            row = table.of(worker)
            while True:
                row.count(ONE)
                row.observe(metrics.FILTER, 0.01)
                os.write(into, b".")
        os.close(into)
        wanted = generator.randrange(1, 20_000)
        heard = 0
        while heard < wanted:
            heard += len(os.read(out, 1 << 16))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while more := len(os.read(out, 1 << 16)):
            heard += more
        os.close(out)
        told += heard
        deaths += 1
        before = table.totals()
        table.keep(worker)
        assert table.totals() == before
        assert told <= before[ONE] <= told + deaths
        assert told <= sum(seconds_of(before, metrics.FILTER)[0]) <= told + deaths
    assert deaths > 3


def test_a_reader_sees_no_value_fall_while_workers_count_and_die() -> None:
    table = Metrics(2)
    table.begin(0)
    last = 0
    for _ in range(10):
        child = os.fork()
        if child == 0:
            row = table.of(0)
            while True:
                row.count(ONE)
        begun, reads = last, 0
        while last == begun or reads < 20:  # it counts: the system may run it much later than this process
            now = table.totals()[ONE]
            assert now >= last
            last, reads = now, reads + 1
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        dead = table.totals()[ONE]
        table.keep(0)
        assert table.totals()[ONE] == dead >= last
        last = dead
