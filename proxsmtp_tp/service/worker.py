"""One worker process: an event loop with a Proxy in it, from fork to exit.

TERM   drain: the Proxy accepts no more clients, and ends within DrainTimeOut. A second TERM: stop at once. The kernel
       also sends TERM when the master has ended (prctl(2), PR_SET_PDEATHSIG): then the worker stops the listening
       sockets in all processes, so that a new master can bind at once, unless the service manager keeps them
USR2   stop at once. The master sends it instead of a second TERM, because two waiting TERM are one (signal(7))
USR1   drain for a reload or a restart: accepted connections may finish one transaction. TERM may follow
ALRM   the kernel ends the process if the loop hangs while it drains

INT and HUP, which a terminal sends to all processes, are handled by the master only.

The worker sends a byte (a pulse) to the master when it is ready, and another one every PULSE seconds. Without pulses
the master kills and replaces it.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import uvloop

from proxsmtp_tp.config.settings import Settings
from proxsmtp_tp.net.admission import Admission
from proxsmtp_tp.net.listening import stop_listening
from proxsmtp_tp.net.tls_certificates import WorkerKeys
from proxsmtp_tp.service import logging as logs
from proxsmtp_tp.service import syslog
from proxsmtp_tp.service.state_directory import pseudonym_keys
from proxsmtp_tp.session.state import Reason

if TYPE_CHECKING:
    from typing import NoReturn


log = logging.getLogger(__name__)

PULSE = 5.0
"""Seconds between pulses. After `generation.SILENT_PULSES` missing pulses the master kills the worker."""

GRACE = 5.0
"""Seconds after DrainTimeOut for the last replies; then the process ends in any case."""

RETIRE = signal.SIGUSR1
"""From the master: other workers have taken over."""

STOP_NOW = signal.SIGUSR2
"""From the master: end every connection now."""

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


NO_KEYS = WorkerKeys()


class ProxyLike(Protocol):
    """What a worker runs: `net.proxy.Proxy`."""

    async def run(self) -> None:
        """Serve until drained or stopped."""

    def drain(self, reason: Reason) -> None:
        """Accept no more clients; let transactions finish within DrainTimeOut. STOP may follow RELOAD."""

    def stop(self) -> None:
        """End every connection now."""


class ProxyFactory(Protocol):
    """Makes what a worker runs, inside its event loop."""

    def __call__(
        self,
        settings: Settings,
        listeners: Sequence[socket.socket],
        admission: Admission,
        worker: int,
        *,
        keys: WorkerKeys = NO_KEYS,
    ) -> ProxyLike:
        """Make it. `worker` is the row in the table."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker gets from its master. `close_others` closes descriptors that only the master may have."""

    settings: Settings
    listeners: Sequence[socket.socket]
    admission: Admission
    row: int
    make_proxy: ProxyFactory
    close_others: Callable[[], None]
    kept: bool = False
    """The service manager keeps the listening sockets for the next daemon, even if this one crashes."""


def make_proxy(
    settings: Settings,
    listeners: Sequence[socket.socket],
    admission: Admission,
    worker: int,
    *,
    keys: WorkerKeys = NO_KEYS,
) -> ProxyLike:
    """Make a `Proxy`. Its module is imported before privileges are dropped: afterwards its file may not be readable."""
    from proxsmtp_tp.net.proxy import Proxy  # noqa: PLC0415
    from proxsmtp_tp.net.tls_worker import make_worker_tls  # noqa: PLC0415

    return Proxy(settings, listeners, admission, worker, tls=make_worker_tls(settings, keys, admission.tls_rejections))


def run_worker(job: Job, pulse: int, master: int) -> NoReturn:
    """Run a worker in a process that was just forked, with signals still blocked. Never returns."""
    code = 1
    try:
        settle(job.close_others, master)
        logs.use(job.settings, pseudonym_keys(job.settings.instance))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(job, pulse, master))
        code = 0
    except BaseException:
        log.critical("worker %d: internal error", os.getpid(), exc_info=True)
    finally:
        with suppress(BaseException):
            logging.shutdown()
        os._exit(code)


def settle(close_others: Callable[[], None], master: int) -> None:
    """Close the master's descriptors and remove its signal handlers in a process that was just forked."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGALRM, RETIRE, STOP_NOW):
        signal.signal(number, signal.SIG_DFL)
    close_others()
    for handler in syslog.in_use():
        handler.start_anew()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != master:  # it ended before prctl, so no signal comes
        os._exit(1)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


async def _serve(job: Job, pulse: int, master: int) -> None:
    loop = asyncio.get_running_loop()
    for handler in syslog.in_use():
        handler.attach(loop)
    proxy = job.make_proxy(job.settings, job.listeners, job.admission, job.row)
    last_hour = _Ending(job, proxy, loop, master)

    def beat() -> None:
        with suppress(OSError):  # if the master has ended, TERM follows; if it is busy, it has enough bytes
            os.write(pulse, b".")
        loop.call_later(PULSE, beat)

    os.set_blocking(pulse, False)
    signal.signal(signal.SIGTERM, last_hour.on_term)
    signal.signal(RETIRE, last_hour.on_retire)
    signal.signal(STOP_NOW, last_hour.on_stop_now)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _nothing)  # not SIG_IGN, which filters would inherit
    loop.call_soon(beat)
    await proxy.run()


class _Ending:
    """Signal handlers for the end of the worker. They run at any point of the program; the loop may hang."""

    def __init__(self, job: Job, proxy: ProxyLike, loop: asyncio.AbstractEventLoop, master: int) -> None:
        self._job = job
        self._proxy = proxy
        self._loop = loop
        self._master = master
        self._limited = False
        self._retired = False
        self._terms = 0

    def on_retire(self, *_: object) -> None:
        """A reload, or the next daemon takes over."""
        self._retired = True
        self._drain_soon(Reason.RELOAD)

    def on_term(self, *_: object) -> None:
        """Drain; the second time: stop at once."""
        if os.getppid() != self._master and not self._job.kept:
            stop_listening(self._job.listeners)  # the master was killed: it cannot do this itself
        elif os.getppid() != self._master and self._retired:
            return  # it has handed over and ended: continue as after a reload
        self._terms += 1
        if self._terms == 1:
            self._drain_soon(Reason.STOP)
        else:
            self.on_stop_now()

    def on_stop_now(self, *_: object) -> None:
        """Stop at once. A TERM that was sent earlier may come later: waiting signals come in the order of their
        numbers.
        """
        if not self._terms:
            self._terms = 1
            self._drain_soon(Reason.STOP)
        self._end_within(0)
        self._soon(self._proxy.stop)

    def _drain_soon(self, reason: Reason) -> None:
        if not self._limited:  # DrainTimeOut begins with the first of the two signals
            self._limited = True
            self._end_within(self._job.settings.drain_time_out)
        self._soon(self._drain, reason)

    def _end_within(self, seconds: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, seconds + GRACE)

    def _soon(self, what: Callable[..., None], *arguments: object) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(what, *arguments)

    def _drain(self, reason: Reason) -> None:
        self._job.admission.end_accepting(self._job.row)
        self._proxy.drain(reason)
        # Others accept from now on: to ss(8) and doctor this process must not look as if it did. If no process accepts,
        # a socket that stays open here would keep clients waiting, and its address from the next daemon.
        for listener in self._job.listeners:
            listener.close()


def _nothing(*_: object) -> None:
    """Ignore a signal that is for the master."""
