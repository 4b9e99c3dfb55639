"""The workers that run with one configuration: started, replaced when they end, drained, and killed if necessary.

Guarantees: there are `settings.workers` of them as long as the generation runs. A worker that ends is logged with its
exit status, its row in the shared table is cleared before another worker gets it, and it is replaced. If it lived for
STABLE seconds, it is replaced at once; otherwise the next start waits 0.1 s, then twice as long each time, up to
BACKOFF_MAX, so forks are never frequent. A worker that has sent nothing for SILENT_PULSES pulses hangs, and is killed.

Nothing here waits: the master calls a method when a child has ended, when a pulse has come, and at `due`.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from proxsmtp_tp.net.admission import WORKERS_MAX
from proxsmtp_tp.service.signals import SIGNALS
from proxsmtp_tp.service.worker import GRACE, RETIRE, STOP_NOW, Job, run_worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxsmtp_tp.config.settings import Settings
    from proxsmtp_tp.net.admission import Admission
    from proxsmtp_tp.net.listening import Listeners
    from proxsmtp_tp.service.worker import ProxyFactory

log = logging.getLogger(__name__)

STABLE = 10.0
"""Seconds after which the end of a worker was not caused by its start."""
BACKOFF_MIN = 0.1
"""Seconds: no more than ten forks a second, whatever happens."""
BACKOFF_MAX = 30.0
"""Seconds: once the cause is gone, service is back within this time."""
SILENT_PULSES = 12
"""A minute at PULSE = 5 s: longer than any pause on a busy host, shorter than clients wait (RFC 5321 section
4.5.3.2)."""


class Phase(Enum):
    """STARTING: not all workers are ready yet. DRAINING: the workers end, and are not replaced."""

    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"


@dataclass(slots=True)
class Worker:
    """One worker process. `pulse` is the end of the pipe from which its pulses are read."""

    pid: int
    row: int
    pulse: int
    born: float
    ready: bool = False
    silent: int = 0


class RowAllocator:
    """Gives rows of the shared table to workers, the lowest free one first."""

    def __init__(self) -> None:
        self._free = set(range(WORKERS_MAX))
        self.replaced = 0
        """Workers that ended and were replaced, of all generations."""

    def __len__(self) -> int:
        return len(self._free)

    def take(self) -> int:
        """Take a free row. Raises ValueError if there is none."""
        row = min(self._free)
        self._free.remove(row)
        return row

    def give_back(self, row: int) -> None:
        """The worker is dead and its row is cleared."""
        self._free.add(row)


class Generation:
    """The workers of one configuration. `close_others` closes, in a worker, what only the master may have."""

    def __init__(
        self,
        settings: Settings,
        listeners: Listeners,
        shared: tuple[Admission, RowAllocator],
        make_proxy: ProxyFactory,
        close_others: Callable[[], None],
    ) -> None:
        self.settings = settings
        self.listeners = listeners
        self.phase = Phase.STARTING
        self.workers: dict[int, Worker] = {}
        self.early_deaths = 0
        """Workers that ended before they were ready, one after the other."""
        self.replaced = 0
        self._admission, self._rows = shared
        self._make_proxy = make_proxy
        self._close_others = close_others
        self.kept = False
        """The service manager keeps the listening sockets over a restart."""
        self._start_at: list[float] = []
        self._kill_at = float("inf")
        self._failures = 0
        self._unstarted = 0
        self._was_ready = False
        self._stopping = False

    @property
    def serves(self) -> bool:
        """Whether clients are served, or will be as soon as a worker that ended is replaced.

        Nothing that clients can do to workers makes this false, even if they crash them: replacements start within
        BACKOFF_MAX. It is false if workers end before they are ready, or hang and cannot be killed.
        """
        if self.phase is Phase.DRAINING:
            return False
        comes_up = self._was_ready and not self.early_deaths and not self._unstarted
        answering = [worker for worker in self.workers.values() if worker.silent <= SILENT_PULSES]
        return any(worker.ready for worker in answering) or (comes_up and bool(answering or self._start_at))

    def start(self) -> None:
        """Fork the workers."""
        for _ in range(self.settings.workers):
            self._start_worker()

    def due(self) -> float:
        """When `tick` must be called next, on the monotonic clock."""
        return min([self._kill_at, *self._start_at])

    def tick(self) -> None:
        """Start the replacements that are due; kill the workers that did not end in time."""
        now = time.monotonic()
        if now >= self._kill_at:
            self._kill_at = float("inf")
            self.signal(signal.SIGKILL)
        if self.phase is not Phase.DRAINING:
            for _ in range(sum(1 for at in self._start_at if at <= now)):
                self._start_worker()
            self._start_at = [at for at in self._start_at if at > now]

    def pulsed(self, worker: Worker) -> None:
        """The worker has sent a pulse, or has closed its pipe."""
        try:
            alive = bool(os.read(worker.pulse, 4096))
        except BlockingIOError:
            return
        if alive:
            worker.silent = 0
            worker.ready = self._was_ready = True
            self.early_deaths = self._unstarted = 0
            if self.phase is Phase.STARTING and self._all_ready():
                self.phase = Phase.RUNNING

    def pulse_passed(self) -> None:
        """PULSE seconds have passed: a worker without pulses for too long hangs."""
        for worker in self.workers.values():
            worker.silent += 1
            if worker.silent > SILENT_PULSES:
                log.error("worker %d hangs: it is killed and replaced", worker.pid)
                self.signal(signal.SIGKILL, worker.pid)

    def reaped(self, pid: int, status: int) -> bool:
        """A child has ended. False: it is not a worker of this generation."""
        worker = self.workers.get(pid)
        if worker is None:
            return False
        self.pulsed(worker)  # its last pulse may still be in the pipe, and tells whether it was ready
        del self.workers[pid]
        os.close(worker.pulse)
        lost = self._admission.counts()[worker.row]
        self._admission.clear(worker.row)
        self._rows.give_back(worker.row)
        expected = self.phase is Phase.DRAINING
        report = log.debug if expected and status == 0 else log.error
        report("worker %d ended: %s; connections lost: %d", pid, ending(status), lost)
        if not expected:
            self._replace(worker)
        return True

    def retire(self) -> None:
        """Other workers accept from now on: serve the accepted connections only."""
        self._wind_down(RETIRE, self.settings.drain_time_out)

    def drain(self) -> None:
        """The daemon stops: accept no more clients, finish running transactions. Called again: end at once."""
        if self._stopping:
            self._wind_down(STOP_NOW, 0)
        else:
            self._stopping = True
            self._wind_down(signal.SIGTERM, self.settings.drain_time_out)

    def _wind_down(self, number: signal.Signals, seconds: float) -> None:
        limit = seconds + GRACE + 1  # later than the worker's own alarm: for a worker that does not get its signals
        self._kill_at = min(self._kill_at, time.monotonic() + limit)
        self.phase = Phase.DRAINING
        self._start_at.clear()
        self.signal(number)

    def signal(self, number: signal.Signals, pid: int | None = None) -> None:
        """Send to one worker, or to all."""
        for target in [pid] if pid is not None else list(self.workers):
            with suppress(ProcessLookupError):  # ended, and not reaped yet
                os.kill(target, number)

    def _all_ready(self) -> bool:
        return len(self.workers) == self.settings.workers and all(w.ready for w in self.workers.values())

    def _replace(self, worker: Worker) -> None:
        now = time.monotonic()
        self.replaced += 1
        self._rows.replaced += 1
        if not worker.ready:
            self.early_deaths += 1
        self._failures = 0 if now - worker.born >= STABLE else self._failures + 1
        self._start_at.append(now + backoff(self._failures))

    def _start_worker(self) -> None:
        row = self._rows.take()
        self._admission.begin(row)
        self._admission.prepare_filters(line.name for line in self.settings.filter)
        pulse_out, pulse_in = os.pipe()
        os.set_blocking(pulse_out, False)
        job = Job(
            settings=self.settings,
            listeners=list(self.listeners.values()),
            admission=self._admission,
            row=row,
            make_proxy=self._make_proxy,
            close_others=self._close_others,
            kept=self.kept,
        )
        try:
            pid = _fork(job, pulse_in, pulse_out)
        except OSError as error:
            os.close(pulse_out)
            self._admission.clear(row)
            self._rows.give_back(row)
            self._failures += 1
            self._unstarted += 1
            self._start_at.append(time.monotonic() + backoff(self._failures))
            log.error("cannot start a worker: %s: raise LimitNPROC or TasksMax", error.strerror)  # noqa: TRY400  (one line)
            return
        finally:
            os.close(pulse_in)
        self.workers[pid] = Worker(pid, row, pulse_out, time.monotonic())
        log.debug("worker %d started", pid)


def backoff(failures: int) -> float:
    """Seconds to wait before the next start, after this number of early ends in a row."""
    return min(BACKOFF_MAX, BACKOFF_MIN * 2 ** min(failures - 1, 20)) if failures else 0.0


def ending(status: int) -> str:
    """How a process ended, for people (wait(2))."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def _fork(job: Job, pulse_in: int, pulse_out: int) -> int:
    """Fork a worker. Signals are blocked meanwhile, because the child still has the handlers of the master."""
    master = os.getpid()
    gc.freeze()  # shared pages are copied when they are written: the worker's garbage collection must not touch them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        if (pid := os.fork()) == 0:
            os.close(pulse_out)
            run_worker(job, pulse_in, master)
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
