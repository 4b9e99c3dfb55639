"""One message and its command: what `pipe` and `file` have in common.

A run settles once, with a verdict that the owner hears of from the event loop. After that, or after `abort`, nothing
of what the command still does matters.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from proxsmtp_tp.filters import stderr
from proxsmtp_tp.filters.clock import Clock
from proxsmtp_tp.filters.endings import Ending, refused, trouble
from proxsmtp_tp.filters.stderr import LastLine
from proxsmtp_tp.filters.verdict import Action

if TYPE_CHECKING:
    from proxsmtp_tp.filters.interface import FilterOwner, FilterRequest
    from proxsmtp_tp.filters.launcher import Launcher
    from proxsmtp_tp.filters.process import Child, ExitStatus
    from proxsmtp_tp.filters.verdict import Verdict

log = logging.getLogger(__name__)


class CommandRun(ABC):
    """A FilterRun: begin, write.., finish, and a verdict at any point of it; the owner of its child."""

    def __init__(self, launcher: Launcher, request: FilterRequest, owner: FilterOwner) -> None:
        self._launcher = launcher
        self._request = request
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._clock = Clock(self._loop, launcher.timeout, self._waited_in_vain)
        self._child: Child | None = None
        self._status: ExitStatus | None = None
        self._errors = LastLine()
        self._given = 0
        self._finished = False
        self._settled = False
        self._aborted = False
        self._paused = False
        self._told_paused = False

    # What pipe and file do in their own way.

    @abstractmethod
    def begin(self) -> None:
        """The first step, from `start`."""

    @abstractmethod
    def write(self, text: bytes) -> None:
        """FilterRun."""

    @abstractmethod
    def finish(self) -> None:
        """FilterRun."""

    @abstractmethod
    def read(self, size: int) -> bytes:
        """FilterRun. Raises OSError if the judged message can not be read back to its last octet."""

    @abstractmethod
    def _launch(self) -> Child:
        """Start the command."""

    @abstractmethod
    def _started(self) -> None:
        """The command runs."""

    @abstractmethod
    def _consider(self) -> None:
        """The command exited with 0: settle, if all is known that a pass needs."""

    @abstractmethod
    def _discard(self) -> None:
        """Free the message. Idempotent."""

    # FilterRun.

    def abort(self) -> None:
        """FilterRun."""
        self._aborted = True
        if not self._settled:
            self._stop()
        self._discard()

    def close(self) -> None:
        """FilterRun."""
        self.abort()

    # The process and its limits.

    def _enter(self) -> None:
        """Start the command now, or when a place becomes free."""
        if self._launcher.limit.enter(self._granted):
            self._start()
        else:
            self._clock.run()

    def _granted(self) -> None:
        if self._settled:
            self._launcher.limit.leave()
        else:
            self._start()

    def _start(self) -> None:
        self._clock.stop()
        self._clock = Clock(self._loop, self._launcher.timeout, self._out_of_time)
        try:
            self._child = self._launch()
        except (OSError, ValueError) as error:
            self._trouble(Ending.NOT_STARTED, error)
        else:
            self._started()

    def _waited_in_vain(self) -> None:
        self._trouble(Ending.LINE_TIMED_OUT)

    def _out_of_time(self) -> None:
        self._trouble(Ending.TIMED_OUT if self._status is None else Ending.OUTPUT_HELD)

    # ChildOwner: what pipe and file have in common.

    def child_errors(self, data: bytes) -> None:
        """ChildOwner."""
        self._errors.feed(data)

    def child_exited(self, status: ExitStatus) -> None:
        """ChildOwner."""
        self._status = status
        if status.code != 0:
            self._settle(refused(status, self._errors.line))
        else:
            self._consider()

    # The verdict.

    def _settle(self, verdict: Verdict) -> None:
        """That is the verdict. The owner hears of it from the event loop."""
        if self._settled:
            return
        self._stop()
        if verdict.action is not Action.PASS:
            self._discard()
        elif self._errors.line:
            log.info("%s: filter %s", self._request.connection, verdict.detail)
        self._loop.call_soon(self._tell_verdict, verdict)

    def _trouble(self, ending: Ending, error: Exception | None = None) -> None:
        """Settle with what the command did not mean."""
        self._settle(trouble(ending, error or self._said()))

    def _said(self) -> str:
        return stderr.parse(self._errors.line).shown

    def _stop(self) -> None:
        """Nothing more is wanted of the command."""
        self._settled = True
        self._clock.stop()
        self._launcher.limit.forget(self._granted)
        child, self._child = self._child, None
        if child is None:
            return
        if self._status is None:
            child.end()
        else:
            child.release()

    def _tell_verdict(self, verdict: Verdict) -> None:
        self._paused = False
        self._tell_flow()
        if not self._aborted:
            self._owner.filter_verdict(verdict)

    def _set_paused(self, paused: bool) -> None:
        if paused != self._paused:
            self._paused = paused
            self._loop.call_soon(self._tell_flow)

    def _tell_flow(self) -> None:
        if self._paused == self._told_paused or self._aborted:
            return
        self._told_paused = self._paused
        if self._paused:
            self._owner.pause_filter_input()
        else:
            self._owner.resume_filter_input()
