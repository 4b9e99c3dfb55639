"""Trace ids do not repeat after a restart, whatever the clock does."""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxsmtp_tp.service import id_lease
from proxsmtp_tp.service.id_lease import FILE, LEASE, MARGIN, IdLease
from proxsmtp_tp.telemetry import trace_id
from proxsmtp_tp.telemetry.trace_id import EPOCH_MS, TraceIds
from tests.unit.telemetry.test_trace_id import NOW, decoded

if TYPE_CHECKING:
    from pathlib import Path


class Chance(random.Random):
    """The worst that can happen: no two daemons differ by their random numbers."""

    def getrandbits(self, _count: int) -> int:
        return 0


class Daemon:
    """A master and two workers; time is in `now`."""

    def __init__(self, kept: Path, now: list[float]) -> None:
        self.ids = TraceIds(2)
        self.lease = IdLease(self.ids, kept, lambda: now[0])
        self.workers = [self.ids.of(row, lambda: now[0]) for row in range(2)]

    def new(self) -> list[str]:
        return [worker.new() for worker in self.workers]


@pytest.fixture(autouse=True)
def chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_id, "random", Chance())


EVENTS = st.one_of(
    st.tuples(st.just("clock"), st.integers(-400_000, 400_000)),
    st.tuples(st.just("ids"), st.integers(1, 5)),
    st.tuples(st.sampled_from(["step", "restart", "crash", "hand over"]), st.just(0)),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(st.lists(EVENTS, max_size=40))
def test_no_id_twice(tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, int]]) -> None:
    """Restarts, crashes, and a clock that jumps forth and back at any moment, also before the master has seen it."""
    kept = tmp_path_factory.mktemp("state") / FILE
    now = [NOW]
    daemon, made = Daemon(kept, now), []
    for event, number in events:
        if event == "clock":
            now[0] += number / 1000
        elif event == "ids":
            made += [one for _ in range(number) for one in daemon.new()]
        elif event == "step":
            daemon.lease.step()
        else:
            old = daemon
            if event != "crash":
                old.lease.close()
            daemon = Daemon(kept, now)
            made += daemon.new()
            if event == "hand over":
                made += old.new()  # a worker of the old daemon, which has just accepted a client
    assert len(set(made)) == len(made)


def test_two_million_sessions_over_restarts(tmp_path: Path) -> None:
    """2^21 sessions of two workers; the daemon restarts 16 times, and each time the clock goes back an hour."""
    kept, now, seen = tmp_path / FILE, [NOW], set()
    for restart in range(16):
        daemon = Daemon(kept, now)
        for number in range(1 << 16):
            seen.update(daemon.new())
            if not number % 100:
                now[0] += 0.001
        if restart % 2:
            daemon.lease.close()
        now[0] -= 3600
    assert len(seen) == 1 << 21


def test_time_in_the_ids_is_that_of_the_clock(tmp_path: Path) -> None:
    """After a restart in order, at once; after a crash the ids are ahead for as long as the lease at most."""
    kept, now = tmp_path / FILE, [NOW]
    daemon = Daemon(kept, now)
    daemon.lease.close()
    now[0] += MARGIN / 1000
    daemon = Daemon(kept, now)
    milliseconds = int(now[0] * 1000) - EPOCH_MS
    assert decoded(daemon.new()[0])[0] == milliseconds
    ahead = decoded(Daemon(kept, now).new()[0])[0] - milliseconds
    assert 0 < ahead <= LEASE


def test_the_file_is_written_once_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[bytes] = []
    monkeypatch.setattr(id_lease, "replace_file", lambda _path, data: writes.append(data))
    now = [NOW]
    daemon = Daemon(tmp_path / FILE, now)
    for _ in range(600):
        now[0] += 1
        daemon.lease.step()
    assert 8 <= len(writes) <= 12
    assert writes == sorted(writes)


def test_without_a_file_chance_must_do(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "file").write_text("")
    now = [NOW]
    daemon = Daemon(tmp_path / "file" / FILE, now)
    daemon.lease.step()
    daemon.lease.step()
    now[0] += 10_000
    assert decoded(daemon.new()[0])[0] == int(now[0] * 1000) - EPOCH_MS, "the clock is followed all the same"
    daemon.lease.close()
    assert len([record for record in caplog.records if "may repeat" in record.message]) == 1


@pytest.mark.parametrize("content", ["", "x", "-5", "99999999999999999999999", "1099511627776"])
def test_a_file_that_is_no_time(tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str) -> None:
    kept = tmp_path / FILE
    kept.write_text(content)
    daemon = Daemon(kept, [NOW])
    assert "is not used" in caplog.text
    assert decoded(daemon.new()[0])[0] == int(NOW * 1000) - EPOCH_MS
    assert kept.read_text().strip().isdigit()
