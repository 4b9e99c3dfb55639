"""Trace ids: unique over workers, restarts of workers and clocks that go back; they sort by time."""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.net.admission import WORKERS_MAX
from proxsmtp_tp.telemetry import trace_id
from proxsmtp_tp.telemetry.trace_id import EPOCH_MS, LENGTH, TraceIds, encoded

NOW = (EPOCH_MS + 28_000_000_000) / 1000  # November 2026


def decoded(text: str) -> tuple[int, int, int]:
    """Milliseconds, row and number of an id."""
    bits = 0
    for letter in text:
        bits = bits * 32 + "0123456789ABCDEFGHJKMNPQRSTVWXYZ".index(letter)
    return bits >> 25, bits >> 16 & 511, bits & 65535


@given(st.integers(0, 2**40 - 1), st.integers(0, 511), st.integers(0, 65535))
def test_every_part_fits(milliseconds: int, row: int, number: int) -> None:
    text = encoded(milliseconds, row, number)
    assert len(text) == LENGTH
    assert decoded(text) == (milliseconds, row, number)


def test_every_row_of_the_table_fits() -> None:
    TraceIds(WORKERS_MAX)
    with pytest.raises(ValueError, match="513 rows"):
        TraceIds(513)


@given(st.lists(st.integers(-5_000, 5_000), max_size=200), st.integers(0, 200))
def test_a_clock_that_goes_back_and_a_worker_that_is_replaced(steps: list[int], death: int) -> None:
    table = TraceIds(3)
    now = [NOW]
    ids = table.of(2, lambda: now[0])
    made = []
    for count, step in enumerate(steps):
        if count == death:
            ids = table.of(2, lambda: now[0])  # the next worker in this row
        now[0] += step / 1000
        made.append(ids.new())
    assert len(set(made)) == len(made)
    assert [decoded(one)[::2] for one in made] == sorted(decoded(one)[::2] for one in made)


def test_a_stopped_clock_has_enough_ids() -> None:
    """More than 2^16 sessions in one millisecond: the time in the id goes on."""
    ids = TraceIds(1).of(0, lambda: NOW)
    made = [ids.new() for _ in range(70_000)]
    assert len(set(made)) == 70_000
    assert made == sorted(made)


def test_two_million_sessions_of_a_daemon_that_restarts() -> None:
    """2^21 ids, of four daemons one after the other, the clock of each behind that of the one before: all differ."""
    last, used = "", -1
    for restart in range(4):
        table = TraceIds(1)
        table.begin(used + 1)
        ids = table.of(0, lambda: NOW - restart)  # noqa: B023  (used within the turn)
        new = ids.new
        for _ in range(1 << 19):
            one = new()
            assert one > last
            last = one
        used = table.used


def test_a_clock_before_the_epoch() -> None:
    """A machine without a clock starts in 1970."""
    ids = TraceIds(1).of(0, lambda: 12.5)
    assert len({ids.new() for _ in range(1000)}) == 1000


def test_ids_sort_by_time() -> None:
    ticks = iter(range(1000))
    ids = TraceIds(4).of(3, lambda: NOW + next(ticks))
    made = [ids.new() for _ in range(1000)]
    assert made == sorted(made)
    assert decoded(made[0])[:2] == (28_000_000_000, 3)


def test_two_daemons_in_the_same_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second instance, or a daemon started again after its clock went back: the random number differs."""
    monkeypatch.setattr(trace_id, "random", random.Random(17))
    first, second = (TraceIds(1).of(0, lambda: NOW) for _ in range(2))
    both = [ids.new() for _ in range(8) for ids in (first, second)]
    assert len(set(both)) == 16


def test_processes_share_the_table() -> None:
    """A worker that was forked writes its last id where the next worker of the row finds it."""
    table = TraceIds(1)
    child = os.fork()
    if child == 0:
        table.of(0, lambda: NOW + 3600).new()
        os._exit(0)
    os.waitpid(child, 0)
    assert decoded(table.of(0, lambda: NOW).new())[0] == 28_003_600_000


def test_the_alphabet_has_no_letter_that_looks_like_another() -> None:
    assert not set("ILOU") & set(trace_id.encoded(2**40 - 1, 511, 65535))
