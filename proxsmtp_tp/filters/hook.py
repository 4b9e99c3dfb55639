"""Runs a command for each of some events, one at a time, and does not wait for it. For the master: no event loop.

At most WAITING_MAX events wait; further ones are dropped and counted. A command that takes longer than TIME_LIMIT is
killed with its process group. Its standard streams are /dev/null, so that it can neither block nor be blocked.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.filters.execution import SHELL
from proxsmtp_tp.filters.launcher import keep_descriptors

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

DEFAULT_SIGNALS = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}

TIME_LIMIT = 10.0
"""Seconds: a mail or a request to another host takes less; the next event should not wait for minutes."""

WAITING_MAX = 100
"""Events that wait: in the worst case the command for the last one runs after TIME_LIMIT * 100 = 17 minutes."""


class Hook:
    """`name` is for log lines; `command` is run by /bin/sh -c, None: never."""

    def __init__(self, name: str, command: str | None) -> None:
        self._name = name
        self.command = command
        self._waiting: deque[dict[str, str]] = deque()
        self._dropped = 0
        self._pid: int | None = None
        self._until = float("inf")
        keep_descriptors()

    def run(self, variables: Mapping[str, str]) -> None:
        """Run the command for one event, with these variables in addition to our own environment."""
        if self.command is None:
            return
        if len(self._waiting) >= WAITING_MAX:
            self._dropped += 1
            return
        self._waiting.append(dict(variables))
        self._start_next()

    def due(self) -> float:
        """When `step` must be called next, on the monotonic clock."""
        return self._until

    def step(self) -> None:
        """Kill a command that takes too long."""
        if self._pid is not None and time.monotonic() >= self._until:
            self._until = float("inf")
            log.warning("%s: not finished after %g s: killed", self._name, TIME_LIMIT)
            self._kill()

    def reaped(self, pid: int, status: int) -> bool:
        """A child of the process has ended. False: it is not ours."""
        if pid != self._pid:
            return False
        self._pid = None
        self._until = float("inf")
        if (code := os.waitstatus_to_exitcode(status)) > 0:
            log.warning("%s: exit status %d", self._name, code)
        if self._dropped and not self._waiting:
            log.warning("%s: not run for %d events: it is too slow", self._name, self._dropped)
            self._dropped = 0
        self._start_next()
        return True

    def close(self) -> None:
        """The daemon ends."""
        self._waiting.clear()
        self._kill()

    def _kill(self) -> None:
        if self._pid is not None:  # not reaped yet: the number cannot have been reused
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, signal.SIGKILL)

    def _start_next(self) -> None:
        while self._pid is None and self._waiting and self.command is not None:
            self._start(self.command, self._waiting.popleft())

    def _start(self, command: str, variables: dict[str, str]) -> None:
        own = {name.encode(): value.encode("utf-8", "replace") for name, value in variables.items()}
        null: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0)]
        null += [(os.POSIX_SPAWN_DUP2, 0, number) for number in (1, 2)]
        try:
            self._pid = os.posix_spawn(
                SHELL,
                ["sh", "-c", command],
                {**os.environb, **own},
                file_actions=null,
                setsid=True,
                setsigmask=(),
                setsigdef=DEFAULT_SIGNALS,
            )
        except (OSError, ValueError) as error:
            log.warning("%s: cannot be run: %s", self._name, error)
            return
        self._until = time.monotonic() + TIME_LIMIT
