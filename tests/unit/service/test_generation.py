"""A generation of workers: replaced, later if they end early, and ended."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from proxsmtp_tp.config.settings import Settings
from proxsmtp_tp.net.admission import WORKERS_MAX, Admission
from proxsmtp_tp.service import generation as generations
from proxsmtp_tp.service.generation import Generation, Phase, RowAllocator, Worker, backoff, ending
from proxsmtp_tp.service.worker import make_proxy
from tests.unit.service.conftest import eventually, is_stopped


def test_starts_come_slower_and_slower_and_never_stop() -> None:
    waits = [backoff(failures) for failures in range(100)]
    assert waits[:4] == [0.0, 0.1, 0.2, 0.4]
    assert waits == sorted(waits)
    assert waits[-1] == generations.BACKOFF_MAX


@pytest.mark.parametrize(
    ("code", "said"),
    [("raise SystemExit(3)", "exit status 3"), ("import os; os.kill(os.getpid(), 9)", "signal SIGKILL")],
)
def test_every_ending_has_a_name(code: str, said: str) -> None:
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", code], os.environ)
    assert ending(os.waitpid(pid, 0)[1]) == said


def test_rows_are_given_lowest_first() -> None:
    rows = RowAllocator()
    assert [rows.take() for _ in range(3)] == [0, 1, 2]
    rows.give_back(1)
    assert rows.take() == 1
    assert len(rows) == WORKERS_MAX - 3


class Case:
    """A generation with a child that is no real worker, but a process that sleeps."""

    def __init__(self) -> None:
        self.table = Admission(9, 0)
        rows = RowAllocator()
        shared = (self.table, rows)
        self.generation = Generation(Settings(workers=1), {}, shared, make_proxy, lambda: None)
        self.pid = os.posix_spawn("/bin/sleep", ["sleep", "600"], os.environ)
        self.out, self.into = os.pipe()
        os.set_blocking(self.out, False)
        row = rows.take()
        self.table.begin(row)
        self.worker = Worker(self.pid, row, self.out, time.monotonic())
        self.generation.workers[self.pid] = self.worker

    def end(self) -> int:
        """Reap it; how it ended."""
        os.close(self.into)
        _, status = os.waitpid(self.pid, 0)
        assert self.generation.reaped(self.pid, status)
        return status


def test_a_worker_without_heartbeat_is_killed_and_one_with_it_is_not(caplog: pytest.LogCaptureFixture) -> None:
    case = Case()
    for _ in range(3 * generations.SILENT_PULSES):
        os.write(case.into, b".")
        case.generation.pulsed(case.worker)
        case.generation.pulse_passed()
    assert case.generation.phase is Phase.RUNNING
    assert "hangs" not in caplog.text
    for _ in range(generations.SILENT_PULSES):
        case.generation.pulse_passed()
    assert "hangs" in caplog.text
    assert ending(case.end()) == "signal SIGKILL"


def test_a_worker_that_ended_early_is_replaced_later_and_an_old_one_at_once() -> None:
    young = Case()
    os.kill(young.pid, signal.SIGKILL)
    before = time.monotonic()
    young.end()
    assert before + generations.BACKOFF_MIN <= young.generation.due() <= time.monotonic() + generations.BACKOFF_MIN
    assert young.generation.early_deaths == 1
    old = Case()
    old.worker.born -= generations.STABLE
    old.worker.ready = True
    os.kill(old.pid, signal.SIGKILL)
    old.end()
    assert old.generation.due() <= time.monotonic()
    assert old.generation.early_deaths == 0


def test_a_dead_worker_leaves_no_connection(caplog: pytest.LogCaptureFixture) -> None:
    case = Case()
    case.table.try_enter(0)
    case.table.try_enter(0)
    os.kill(case.pid, signal.SIGKILL)
    case.end()
    assert case.table.counts() == [0]
    assert "connections lost: 2" in caplog.text
    assert not case.generation.reaped(case.pid, 0)


def test_a_worker_that_ignores_term_is_killed_in_the_end() -> None:
    case = Case()
    os.kill(case.pid, signal.SIGSTOP)
    eventually(lambda: is_stopped(case.pid))
    case.generation.drain()
    case.generation.tick()
    assert case.generation.due() > time.monotonic() + 30
    case.generation._kill_at = 0.0
    case.generation.tick()
    assert ending(case.end()) == "signal SIGKILL"
    assert case.generation.due() == float("inf")  # and nobody takes its place


def test_no_worker_is_replaced_during_a_drain() -> None:
    case = Case()
    case.generation.drain()
    assert ending(case.end()) == "signal SIGTERM"
    case.generation._kill_at = float("inf")
    assert case.generation.due() == float("inf")


def test_it_serves_whatever_clients_do_to_workers_that_were_ready() -> None:
    case = Case()
    assert not case.generation.serves  # nobody has been ready yet
    os.write(case.into, b".")
    case.generation.pulsed(case.worker)
    for _ in range(generations.SILENT_PULSES):
        case.generation.pulse_passed()
        assert case.generation.serves  # it is busy
    case.generation.pulse_passed()
    assert not case.generation.serves  # killed, and not ended: it hangs in the kernel
    case.end()
    assert case.generation.serves  # another one is about to start
    assert case.generation.due() < float("inf")
    case.generation.early_deaths = 1
    assert not case.generation.serves
    case.generation.early_deaths = 0
    assert case.generation.serves
    case.generation.drain()
    assert not case.generation.serves


def test_a_worker_whose_only_pulse_came_with_its_end_was_ready() -> None:
    case = Case()
    os.write(case.into, b".")
    os.kill(case.pid, signal.SIGKILL)
    case.end()
    assert case.generation.early_deaths == 0
    assert case.generation.serves


def test_no_client_is_served_while_no_worker_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case()
    os.write(case.into, b".")
    case.generation.pulsed(case.worker)
    os.kill(case.pid, signal.SIGKILL)
    case.end()
    assert case.generation.serves

    def no_more(*_: object) -> int:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(generations, "_fork", no_more)
    case.generation._start_worker()
    assert not case.generation.serves
