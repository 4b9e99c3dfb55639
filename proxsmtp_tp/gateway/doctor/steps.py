"""Runs steps of the examination at the same time, each with a limit, and gives their findings in order.

A step that does not end in time is a finding of its own, not seen: it hangs, or the machine is busy. The other steps
and the answer do not wait for it: its thread ends with this process.
"""

from __future__ import annotations

import os
import queue
import subprocess
import threading
import time
from typing import TYPE_CHECKING

from proxsmtp_tp.gateway.doctor.findings import Finding, unseen
from proxsmtp_tp.gateway.errors import GatewayError
from proxsmtp_tp.gateway.plan import PlanError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Waiting = Callable[[str, float], None]
    """Called with the name of a step that still runs, and the seconds since it began."""

_TELL_SECONDS = 1.0


class Step:
    """One step, which runs from the moment it is made."""

    def __init__(self, name: str, look: Callable[[], Iterable[Finding]], seconds: float) -> None:
        self.name = name
        self._look = look
        self._seconds = seconds
        self._begun = time.monotonic()
        self._found: queue.SimpleQueue[Finding | BaseException | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def findings(self, waiting: Waiting | None = None) -> Iterator[Finding]:
        """The findings, one by one. Raises what the step raised, except errors that say why it could not look."""
        while True:
            try:
                item = self._found.get(timeout=min(_TELL_SECONDS, max(0.001, self._left)))
            except queue.Empty:
                if self._left <= 0:
                    yield unseen(self.name, f"not ended within {self._seconds:.0f} s ({_busy()}): examine it by hand")
                    return
                if waiting is not None:
                    waiting(self.name, time.monotonic() - self._begun)
                continue
            if item is None:
                return
            if isinstance(item, Finding):
                yield item
            elif isinstance(item, (GatewayError, PlanError, OSError, subprocess.SubprocessError)):
                yield unseen(self.name, f"cannot be examined: {item}")
                return
            else:
                raise item

    @property
    def _left(self) -> float:
        return self._begun + self._seconds - time.monotonic()

    def _run(self) -> None:
        try:
            for finding in self._look():
                self._found.put(finding)
        except BaseException as error:  # noqa: BLE001 - raised in the thread that asks
            self._found.put(error)
        self._found.put(None)


def _busy() -> str:
    """How busy the machine is, so that the reader knows whether a step was slow or hangs."""
    return f"load average {os.getloadavg()[0]:.1f}, processors {os.cpu_count()}"
