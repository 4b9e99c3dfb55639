"""Runs the filter for the command try-filter, in a process that the master forks.

So the filter has the same user, capabilities, namespaces, seccomp filters, limits, environment and working directory as
in a worker. FilterProcesses does not count the process, and it serves no client.

The command makes a socket in the folder of the control socket, and sends its name; the process connects to it.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from proxsmtp_tp.service.control import ControlError
from proxsmtp_tp.service.trial_link import SECONDS, serve
from proxsmtp_tp.service.worker import settle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import NoReturn

log = logging.getLogger(__name__)

AT_ONCE = 4
"""Trials at once: an administrator tries one filter at a time."""


class FilterTrials:
    """The trials in the master. `folder` is that of the control socket."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._running: set[int] = set()

    def start(self, name: str, timeout: float, close_others: Callable[[], None]) -> None:
        """Begin a trial for the command that listens on the socket `name` in the folder. Raises ControlError."""
        if self._folder is None or "/" in name or not name.startswith("try-"):
            raise ControlError(f"{name!r} is no socket of try-filter")
        if len(self._running) >= AT_ONCE:
            raise ControlError(f"{AT_ONCE} trials run already: try again later")
        master = os.getpid()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            child = os.fork()
            if child == 0:
                _run(self._folder / name, timeout, close_others, master)
            self._running.add(child)
        except OSError as error:
            raise ControlError(f"no process for a trial: {error.strerror}") from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def reaped(self, pid: int) -> bool:
        """A child of the master has ended. False: it is not ours."""
        ours = pid in self._running
        self._running.discard(pid)
        return ours


def _run(path: Path, timeout: float, close_others: Callable[[], None], master: int) -> NoReturn:
    """The life of the process. Never returns into the master's code."""
    try:
        settle(close_others, master)
        with socket.socket(socket.AF_UNIX) as connected:
            connected.settimeout(SECONDS + timeout)
            connected.connect(str(path))
            serve(connected, daemon=master)
    except BaseException as error:  # noqa: BLE001  (whatever it is, only this process ends)
        with suppress(BaseException):
            log.warning("try-filter: %s", error)
    finally:
        with suppress(BaseException):
            logging.shutdown()
        os._exit(0)
