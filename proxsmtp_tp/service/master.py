"""The master: keeps the listening sockets and the workers, handles signals. No event loop, no thread: it may fork.

TERM, INT  accept no more clients, drain, end; a second time: end at once
USR2       the next daemon takes over (systemctl restart): end at once; the workers drain beside the next daemon. Only
           where a service manager keeps the listening sockets: clients wait for the next daemon, and are not refused
HUP        read the configuration again: new workers take over when all of them are ready, the old ones drain;
           errors before that are logged, and nothing changes
CHLD       a worker has ended (see `generation`)

A listening socket whose address stays the same is kept over a reload: clients in its queue are served.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.config.reader import ConfigError
from proxsmtp_tp.config.settings import FilterType, TransparentProxy
from proxsmtp_tp.net.listening import ListenError, close_listeners, renew_listeners, stop_listening
from proxsmtp_tp.service import logging as logs
from proxsmtp_tp.service import syslog
from proxsmtp_tp.service.activity import activity, summary
from proxsmtp_tp.service.commands import commands_of
from proxsmtp_tp.service.filter_trials import FilterTrials
from proxsmtp_tp.service.generation import Generation, Phase, RowAllocator
from proxsmtp_tp.service.kept_listeners import KeptListeners
from proxsmtp_tp.service.logging import NOTICE
from proxsmtp_tp.service.privileges import has_net_raw
from proxsmtp_tp.service.state_directory import pseudonym_keys
from proxsmtp_tp.service.version import VERSION
from proxsmtp_tp.service.worker import PULSE
from proxsmtp_tp.telemetry.exposition import exposition, gauges_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from proxsmtp_tp.config.reader import Configuration
    from proxsmtp_tp.config.settings import Settings
    from proxsmtp_tp.net.admission import Admission
    from proxsmtp_tp.net.listening import Listeners
    from proxsmtp_tp.service.bypass import Bypass
    from proxsmtp_tp.service.control import ControlSocket
    from proxsmtp_tp.service.fail_open import FailOpen
    from proxsmtp_tp.service.in_force import InForce
    from proxsmtp_tp.service.locks import Locks
    from proxsmtp_tp.service.log_levels import LogLevels
    from proxsmtp_tp.service.metrics_socket import MetricsSocket
    from proxsmtp_tp.service.readiness import Notifier
    from proxsmtp_tp.service.status import StatusSocket
    from proxsmtp_tp.service.worker import ProxyFactory
    from proxsmtp_tp.telemetry.sessions import SessionTable

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD)
# Settings that needed privileges at the start, a name that others already use, or the size of shared memory.
_FIXED = {"user": "User", "pid_file": "PidFile", "instance": "Instance", "client_table_size": "ClientTableSize"}


class StartError(Exception):
    """The first workers did not start."""


class ReloadError(Exception):
    """The new configuration cannot be used without a restart."""


@dataclass(frozen=True, slots=True)
class Environment:
    """The objects and functions that the master uses.

    `load` reads the configuration again. `on_ready` is called once, when all workers are ready; its PidFileError ends
    the daemon. `on_stop` is called once, when the listening sockets are closed. `close_in_worker` closes what the
    caller keeps open and a worker must not have.
    """

    admission: Admission
    locks: Locks
    fail_open: FailOpen
    make_proxy: ProxyFactory
    load: Callable[[], Configuration]
    in_force: InForce
    notifier: Notifier
    status: StatusSocket
    control: ControlSocket
    metrics: MetricsSocket
    levels: LogLevels
    bypass: Bypass
    on_ready: Callable[[], None]
    on_stop: Callable[[], None]
    close_in_worker: Callable[[], None]


def with_workers(settings: Settings) -> Settings:
    """The settings with the number of workers in them: one for each core that we may use, unless given."""
    return settings if settings.workers else replace(settings, workers=len(os.sched_getaffinity(0)))


class Master:
    """One object in the daemon's first process."""

    def __init__(self, settings: Settings, listeners: Listeners, environment: Environment) -> None:
        self._environment = environment
        self._rows = RowAllocator()
        self._born = time.monotonic()
        self._stopping = False
        self._failed = False
        self._handed_over = False
        self._announced = False
        self._reload_wanted = False
        self._pulse_at = self._born + PULSE
        self._wakeup: socket.socket
        self._signalled: socket.socket
        self._kept = KeptListeners(environment.notifier)
        self._current = self._generation(with_workers(settings), listeners)
        self._next: Generation | None = None
        self._read: tuple[Settings, list[str]] | None = None
        """Of the reload that runs: the settings of the file, and the directives that need a restart."""
        self._old: list[Generation] = []
        self._trials = FilterTrials(environment.control.path and environment.control.path.parent)
        environment.control.commands = commands_of(self)

    def run(self) -> None:
        """Run until the last worker has ended. Raises StartError if the first ones do not start."""
        self._wakeup, self._signalled = socket.socketpair()
        with self._wakeup, self._signalled, self._hearing_signals():
            self._kept.keep(self._current.listeners)
            self._current.start()
            while not self._has_ended():
                self._step()
        if self._failed:
            raise StartError("a worker ended before it was ready: the log says why")
        log.debug("stopped processing")

    def _has_ended(self) -> bool:
        drained = self._stopping and not any(generation.workers for generation in self._generations())
        return drained or self._handed_over

    @property
    def admission(self) -> Admission:
        """The table of all workers."""
        return self._environment.admission

    @property
    def locks(self) -> Locks:
        """Locks, and what is known of clients."""
        return self._environment.locks

    @property
    def levels(self) -> LogLevels:
        """How much is logged."""
        return self._environment.levels

    @property
    def bypass(self) -> Bypass:
        """Whether mail passes unjudged."""
        return self._environment.bypass

    def try_filter(self, name: str, timeout: float) -> None:
        """Begin a trial of a filter. Raises ControlError."""
        self._trials.start(name, timeout, self._close_in_worker)

    @property
    def filtered(self) -> bool:
        """Whether a filter judges messages, if it is not bypassed."""
        settings = self._current.settings
        return settings.filter_command is not None and settings.filter_type is not FilterType.REJECT

    @property
    def sessions(self) -> SessionTable:
        """The sessions of all workers."""
        return self._environment.admission.sessions

    @property
    def in_force(self) -> InForce:
        """Which configuration is in force."""
        return self._environment.in_force

    @property
    def stopping(self) -> bool:
        """The daemon accepts no more clients, and ends."""
        return self._stopping

    def want_reload(self) -> None:
        """Read the configuration again as soon as no other reload runs."""
        self._reload_wanted = True

    def report(self) -> dict[str, Any]:
        """What `status` shows. Times in seconds."""
        now = time.monotonic()
        counts = self._environment.admission.counts()
        counters = self._environment.admission.counters.totals()
        return {
            "instance": self._current.settings.instance,
            "version": VERSION,
            "pid": os.getpid(),
            "uptime": round(now - self._born),
            "stopping": self._stopping,
            "configuration": self._environment.in_force.report(),
            "listen": [str(endpoint) for endpoint in self._current.listeners],
            "connections": sum(counts),
            "max_connections": self._environment.admission.limit,
            "replaced_workers": self._rows.replaced,
            "counters": {counter.name.lower(): total for counter, total in counters.items()},
            "log": self.levels.report() | {"syslog": any(syslog.in_use())},
            "bypass": self.bypass.report(),
            "filter": self._environment.admission.recent_verdicts.report(),
            **activity(self._environment.admission, self._current.settings),
            "workers": [
                {
                    "pid": worker.pid,
                    "phase": generation.phase.value,
                    "uptime": round(now - worker.born),
                    "connections": counts[worker.row],
                    "silent": round(worker.silent * PULSE),
                }
                for generation in self._generations()
                for worker in generation.workers.values()
            ],
        }

    def exposition(self) -> str:
        """What the metrics socket answers."""
        admission = self._environment.admission
        return exposition(admission.metrics.totals(), admission.counters.totals(), gauges_of(self.report()))

    # One step of the loop.

    def _step(self) -> None:
        self._wait()
        self._reap()
        now = time.monotonic()
        if now >= self._pulse_at:
            self._pulse_at = now + PULSE
            for generation in self._generations():
                generation.pulse_passed()
            if self._announced and not self._stopping:
                self._environment.notifier.status(summary(self.report()))
        for generation in self._generations():
            generation.tick()
        self._old = [generation for generation in self._old if generation.workers]
        self._environment.notifier.alive()
        self._go_on()
        self._environment.fail_open.step(self._current.serves)
        self._environment.control.step()
        self.levels.step()
        self.bypass.step()
        self._environment.locks.step()
        for handler in syslog.in_use():
            handler.retry()

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._wakeup, select.POLLIN)
        if (status := self._environment.status.fileno()) is not None:
            poll.register(status, select.POLLIN)
        if (metrics := self._environment.metrics.fileno()) is not None:
            poll.register(metrics, select.POLLIN)
        self._environment.control.register(poll)
        poll.register(self._environment.admission.clients, select.POLLIN)  # wakes up for `locks.step`
        workers = {worker.pulse: (generation, worker) for generation, worker in self._all_workers()}
        for pulse in workers:
            poll.register(pulse, select.POLLIN)
        others = (
            *(handler.due for handler in syslog.in_use()),
            *(generation.due() for generation in self._generations()),
        )
        environment = self._environment
        others = (*others, environment.control.due(), environment.locks.due(), self.levels.due(), self.bypass.due())
        due = min(self._pulse_at, environment.fail_open.due(), *others)
        pause = min(max(0.0, due - time.monotonic()), (self._environment.notifier.watchdog or PULSE * 2) / 2)
        for descriptor, _ in poll.poll(pause * 1000 + 1):
            if descriptor == self._wakeup.fileno():
                self._hear()
            elif descriptor in workers:
                generation, worker = workers[descriptor]
                generation.pulsed(worker)
            elif descriptor == status:
                self._environment.status.answer(self.report)
            elif descriptor == metrics:
                self._environment.metrics.answer(self.exposition)
            else:
                self._environment.control.step(descriptor)

    def _hear(self) -> None:
        with suppress(BlockingIOError):
            heard = self._wakeup.recv(4096)
            # TERM follows at once, and of two that wait the kernel lets the handler of the second run first.
            if signal.SIGUSR2 in heard:
                self._hand_over()
            for number in heard:
                if number in {signal.SIGTERM, signal.SIGINT} and not self._handed_over:
                    self._stop(signal.Signals(number).name)
                elif number == signal.SIGHUP:
                    self.want_reload()

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                ours = any(generation.reaped(*ended) for generation in self._generations())
                _ = ours or self._trials.reaped(ended[0]) or self._environment.locks.reaped(*ended)

    def _go_on(self) -> None:
        """Do what the phases of the generations need next."""
        current, new = self._current, self._next
        if self._stopping:
            return
        if not self._announced and current.phase is Phase.RUNNING:
            self._announced = True
            self._environment.on_ready()
            where, workers = ", ".join(map(str, current.listeners)), len(current.workers)
            log.log(NOTICE, "started: version %s, listening on %s, %d workers", VERSION, where, workers)
            self._ready("accepting connections")
        elif current.phase is Phase.STARTING and current.early_deaths:
            self._failed = True
            self._stop("no worker")
        elif new is not None and new.phase is Phase.RUNNING:
            self._take_over(new)
        elif new is not None and new.early_deaths:
            self._give_up(new)
        elif self._reload_wanted and self._announced and new is None:
            self._reload_wanted = False
            self._reload()

    # Reload.

    def _reload(self) -> None:
        log.log(NOTICE, "reading the configuration again")
        self._environment.notifier.reloading()
        self._environment.in_force.reload_begins()
        problems: list[str] = []
        try:
            configuration = self._environment.load()
            settings, needs_restart = self._acceptable(configuration.settings)
            listeners = renew_listeners(settings, self._current.listeners)
        except ConfigError as error:
            problems = error.lines()
        except (ListenError, ReloadError) as error:
            problems = [str(error)]
        else:
            for warning in configuration.warnings:
                log.warning("%s", warning)
            self._read = configuration.settings, needs_restart
            self._next = self._generation(settings, listeners)
            self._next.start()
            return
        for problem in problems:
            log.error("%s", problem)
        log.error("the new configuration is not used: the old one stays in force")
        self._old_stays(problems)

    def _old_stays(self, problems: list[str]) -> None:
        self._environment.in_force.reload_failed(problems)
        self._ready("the old configuration stays in force")

    def _acceptable(self, settings: Settings) -> tuple[Settings, list[str]]:
        """The new settings without the changes that need a restart, and the names of those. Raises ReloadError."""
        settings = with_workers(settings)
        if len(self._rows) < settings.workers:
            raise ReloadError("workers of earlier reloads still drain: try again in DrainTimeOut seconds")
        if settings.transparent_proxy is TransparentProxy.FULL and not has_net_raw():
            raise ReloadError("TransparentProxy full needs CAP_NET_RAW, which was given up: restart the daemon")
        old = self._current.settings
        changed = {field: name for field, name in _FIXED.items() if getattr(settings, field) != getattr(old, field)}
        for name in changed.values():
            log.warning("%s: the change needs a restart of the daemon; the other changes are in force", name)
        return replace(settings, **{field: getattr(old, field) for field in changed}), list(changed.values())

    def _take_over(self, new: Generation) -> None:
        old, self._current, self._next = self._current, new, None
        self._environment.fail_open.configure(new.settings)
        self.levels.configure(new.settings.log_level)
        self._environment.locks.configure(new.settings)
        self._environment.admission.set_limit(new.settings.max_connections)
        old.retire()
        self._old.append(old)
        self._kept.keep(new.listeners)
        self._close_unused(old.listeners)
        if self._read is not None:
            self._environment.in_force.reload_done(*self._read)
        logs.use(new.settings, pseudonym_keys(new.settings.instance))
        log.log(NOTICE, "the new configuration is in force")
        self._ready("accepting connections")

    def _give_up(self, new: Generation) -> None:
        self._next = None
        new.retire()  # those that did start may already have clients
        self._old.append(new)
        self._close_unused(new.listeners)
        log.error("the new workers do not start: the old configuration stays in force")
        self._old_stays(["the new workers do not start: the log says why"])

    def _close_unused(self, listeners: Listeners) -> None:
        used = set(self._current.listeners.values())
        _close_everywhere({endpoint: sock for endpoint, sock in listeners.items() if sock not in used})

    # The end.

    def _stop(self, why: str) -> None:
        if not self._stopping:
            log.log(NOTICE, "stopping (%s): waiting for running transactions", why)
            self._environment.notifier.stopping()
            self._environment.fail_open.stop()
        first, self._stopping = not self._stopping, True
        for generation in self._generations():
            generation.drain()
        if first:
            self._kept.keep({})
            _close_everywhere(self._current.listeners)
            if self._next is not None:
                self._close_unused(self._next.listeners)
            self._environment.on_stop()

    def _hand_over(self) -> None:
        """End at once, and leave the listening sockets as they are, with the clients in their queues."""
        if self._stopping or not self._kept.possible:
            log.warning("USR2 is for a service manager that keeps the listening sockets: ignored")
            return
        self._handed_over = True
        draining = sum(self._environment.admission.counts())
        log.log(NOTICE, "the next daemon takes over: %d connections finish beside it", draining)
        self._environment.notifier.stopping()
        self._environment.fail_open.hand_over()
        for generation in self._generations():
            if generation.phase is not Phase.DRAINING:
                generation.retire()
            for listener in generation.listeners.values():
                listener.close()

    # Helpers.

    def _generation(self, settings: Settings, listeners: Listeners) -> Generation:
        shared = (self._environment.admission, self._rows)
        made = Generation(settings, listeners, shared, self._environment.make_proxy, self._close_in_worker)
        made.kept = self._kept.possible
        return made

    def _generations(self) -> list[Generation]:
        return [self._current, *([self._next] if self._next is not None else []), *self._old]

    def _all_workers(self) -> Iterator[tuple[Generation, Any]]:
        for generation in self._generations():
            for worker in generation.workers.values():
                yield generation, worker

    def _close_in_worker(self) -> None:
        self._wakeup.close()
        self._signalled.close()
        for _, worker in self._all_workers():
            os.close(worker.pulse)
        self._environment.fail_open.close_in_worker()
        self._environment.close_in_worker()

    def _ready(self, status: str) -> None:
        log.debug("%s", status)
        self._environment.notifier.ready(status)

    @contextmanager
    def _hearing_signals(self) -> Iterator[None]:
        """Receive signals as bytes in a socket, so that they interrupt nothing."""
        for end in (self._wakeup, self._signalled):
            end.setblocking(False)
        old = {number: signal.signal(number, _nothing) for number in _SIGNALS}
        old_wakeup = signal.set_wakeup_fd(self._signalled.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(old_wakeup)
            for number, handler in old.items():
                signal.signal(number, handler)


def _close_everywhere(listeners: Listeners) -> None:
    """Stop listening, also in workers that drain."""
    stop_listening(listeners.values())
    close_listeners(listeners)


def _nothing(*_: object) -> None:
    """The byte in the wake-up socket is what counts."""
