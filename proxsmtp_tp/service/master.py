"""The master: keeps the listening sockets and the workers, handles signals. No event loop, no thread: it may fork.

TERM, INT  accept no more clients, drain, end; a second time: end at once. Before the start is complete, under a service
           manager: as USR2
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
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.net.listening import close_listeners, stop_listening
from proxsmtp_tp.service import logging as logs
from proxsmtp_tp.service import report, syslog
from proxsmtp_tp.service.activity import summary
from proxsmtp_tp.service.commands import commands_of
from proxsmtp_tp.service.filter_trials import FilterTrials
from proxsmtp_tp.service.generation import Generation, Phase, RowAllocator
from proxsmtp_tp.service.kept_listeners import KeptListeners
from proxsmtp_tp.service.key_files import KeyFileError
from proxsmtp_tp.service.logging import NOTICE
from proxsmtp_tp.service.reload import NewConfiguration, NotReadError, read_again, with_workers
from proxsmtp_tp.service.signals import SignalSocket
from proxsmtp_tp.service.state_directory import pseudonym_keys
from proxsmtp_tp.service.table_space import TableSpace
from proxsmtp_tp.service.version import VERSION
from proxsmtp_tp.service.worker import PULSE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxsmtp_tp.config.settings import Settings
    from proxsmtp_tp.net.admission import Admission
    from proxsmtp_tp.net.listening import Listeners
    from proxsmtp_tp.service.bypass import Bypass
    from proxsmtp_tp.service.environment import Environment
    from proxsmtp_tp.service.in_force import InForce
    from proxsmtp_tp.service.locks import Locks
    from proxsmtp_tp.service.log_levels import LogLevels
    from proxsmtp_tp.telemetry.sessions import SessionTable

log = logging.getLogger(__name__)


class StartError(Exception):
    """The first workers did not start."""


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
        self._signals: SignalSocket
        self._kept = KeptListeners(environment.notifier)
        self._current = self._generation(with_workers(settings), listeners)
        self._next: Generation | None = None
        self._read: NewConfiguration | None = None
        """The configuration of the last reload."""
        self._old: list[Generation] = []
        self._table_space = TableSpace(environment.admission)
        self._trials = FilterTrials(environment.control.path and environment.control.path.parent)
        environment.control.commands = commands_of(self)

    def run(self) -> None:
        """Run until the last worker has ended. Raises StartError if the first ones do not start."""
        self._signals = SignalSocket()
        with self._signals.receiving():
            self._kept.keep(self._current.listeners)
            self._environment.tls.step(self._close_in_minting)  # before the first worker asks it
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
        """Locks, and the table of clients."""
        return self._environment.locks

    @property
    def levels(self) -> LogLevels:
        """The log level and the traces."""
        return self._environment.levels

    @property
    def bypass(self) -> Bypass:
        """The bypass of the filter."""
        return self._environment.bypass

    def try_filter(self, name: str, timeout: float) -> None:
        """Begin a trial of a filter. Raises ControlError."""
        self._trials.start(name, timeout, self._close_in_worker)

    @property
    def filtered(self) -> bool:
        """Whether a filter is configured that judges messages."""
        return self._current.settings.filtered

    @property
    def sessions(self) -> SessionTable:
        """The sessions of all workers."""
        return self._environment.admission.sessions

    @property
    def in_force(self) -> InForce:
        """The configuration that is in force."""
        return self._environment.in_force

    @property
    def stopping(self) -> bool:
        """The daemon accepts no more clients, and ends."""
        return self._stopping

    def want_reload(self) -> None:
        """Read the configuration again as soon as no other reload runs."""
        self._reload_wanted = True

    def report(self) -> dict[str, Any]:
        """The values that `status` shows. Times in seconds."""
        found = report.report(self._environment, self._generations(), self._born, self._rows.replaced, self._stopping)
        found["client_table"] |= self._table_space.report()
        return found

    def exposition(self) -> str:
        """What the metrics socket answers."""
        return report.metrics(self._environment.admission, self.report())

    # One step of the loop.

    def _step(self) -> None:
        self._wait()
        self._reap()
        now = time.monotonic()
        if now >= self._pulse_at:
            self._pulse_at = now + PULSE
            self._table_space.look()
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
        self._environment.id_lease.step()
        self._environment.locks.step()
        self._environment.tls.step(self._close_in_minting)
        for handler in syslog.in_use():
            handler.retry()

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._signals, select.POLLIN)
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
        others = (*others, environment.tls.due())
        due = min(self._pulse_at, environment.fail_open.due(), *others)
        pause = min(max(0.0, due - time.monotonic()), (self._environment.notifier.watchdog or PULSE * 2) / 2)
        for descriptor, _ in poll.poll(pause * 1000 + 1):
            if descriptor == self._signals.fileno():
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
        received = self._signals.read()
        # TERM follows at once, and of two that wait the kernel lets the handler of the second run first.
        if signal.SIGUSR2 in received:
            self._hand_over()
        for number in received:
            if number in {signal.SIGTERM, signal.SIGINT} and not self._handed_over:
                self._end(signal.Signals(number).name)
            elif number == signal.SIGHUP:
                self.want_reload()

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                ours = any(generation.reaped(*ended) for generation in self._generations())
                ours = ours or self._trials.reaped(ended[0]) or self._environment.tls.reaped(*ended)
                _ = ours or self._environment.locks.reaped(*ended)

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
        current = self._current
        try:
            new = read_again(self._environment.load, current.settings, current.listeners, len(self._rows))
            keys = self._environment.tls.read_again(new.settings)
        except NotReadError as error:
            self._not_used(error.problems)
        except KeyFileError as error:
            self._close_unused(new.listeners)
            self._not_used([str(error)])
        else:
            keys()
            self._read = new
            self._next = self._generation(new.settings, new.listeners)
            self._next.start()

    def _not_used(self, problems: list[str]) -> None:
        for problem in problems:
            log.error("%s", problem)
        log.error("the new configuration is not used: the old one stays in force")
        self._old_stays(problems)

    def _old_stays(self, problems: list[str]) -> None:
        self._environment.in_force.reload_failed(problems)
        self._ready("the old configuration stays in force")

    def _take_over(self, new: Generation) -> None:
        old, self._current, self._next = self._current, new, None
        self._environment.fail_open.configure(new.settings)
        self.levels.configure(new.settings.log_level)
        self._environment.locks.configure(new.settings)
        self._environment.admission.set_limit(new.settings.max_connections)
        self._environment.admission.tls_rejections.clear()
        old.retire()
        self._old.append(old)
        self._kept.keep(new.listeners)
        self._close_unused(old.listeners)
        if self._read is not None:
            self._environment.in_force.reload_done(self._read.read, self._read.needs_restart)
        logs.use(new.settings, pseudonym_keys(new.settings.instance))
        log.log(NOTICE, "the new configuration is in force")
        self._ready("accepting connections")

    def _give_up(self, new: Generation) -> None:
        self._next = None
        new.retire()  # workers that did start may already have clients
        self._old.append(new)
        self._close_unused(new.listeners)
        log.error("the new workers do not start: the old configuration stays in force")
        self._old_stays(["the new workers do not start: the log says why"])

    def _close_unused(self, listeners: Listeners) -> None:
        used = set(self._current.listeners.values())
        _close_everywhere({endpoint: sock for endpoint, sock in listeners.items() if sock not in used})

    # The end.

    def _end(self, why: str) -> None:
        if self._announced or self._stopping or not self._kept.possible:
            self._stop(why)
            return
        # A restart during the start: systemd skips ExecStop, so no USR2 comes. In a stop it closes its copies itself.
        log.log(NOTICE, "stopping (%s) before the start is complete", why)
        self._environment.fail_open.close()
        self._leave()

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
        if self._stopping or not self._kept.possible:
            log.warning("USR2 is for a service manager that keeps the listening sockets: ignored")
            return
        draining = sum(self._environment.admission.counts())
        log.log(NOTICE, "the next daemon takes over: %d connections finish beside it", draining)
        self._environment.fail_open.hand_over()
        self._leave()

    def _leave(self) -> None:
        """End at once. The listening sockets stay open in the manager, with the clients in their queues."""
        self._handed_over = True
        self._environment.notifier.stopping()
        if self._next is not None:
            self._close_unused(self._next.listeners)  # the manager has none of them: the next daemon binds them itself
        for generation in self._generations():
            if generation.phase is not Phase.DRAINING:
                generation.retire()
            for listener in generation.listeners.values():
                listener.close()

    # Helpers.

    def _generation(self, settings: Settings, listeners: Listeners) -> Generation:
        shared = (self._environment.admission, self._rows)
        make_proxy = partial(self._environment.make_proxy, keys=self._environment.tls.of_worker())
        made = Generation(settings, listeners, shared, make_proxy, self._close_in_worker)
        made.kept = self._kept.possible
        return made

    def _generations(self) -> list[Generation]:
        return [self._current, *([self._next] if self._next is not None else []), *self._old]

    def _all_workers(self) -> Iterator[tuple[Generation, Any]]:
        for generation in self._generations():
            for worker in generation.workers.values():
                yield generation, worker

    def _close_in_worker(self) -> None:
        self._signals.close()
        for _, worker in self._all_workers():
            os.close(worker.pulse)
        self._environment.fail_open.close_in_worker()
        self._environment.close_in_worker()

    def _close_in_minting(self) -> None:
        for generation in self._generations():
            for listener in generation.listeners.values():
                listener.close()
        self._close_in_worker()

    def _ready(self, status: str) -> None:
        log.debug("%s", status)
        self._environment.notifier.ready(status)


def _close_everywhere(listeners: Listeners) -> None:
    """Stop listening, also in workers that drain."""
    stop_listening(listeners.values())
    close_listeners(listeners)
