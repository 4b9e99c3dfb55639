"""One message and its command: the common part of `pipe` and `file`."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from typing import TYPE_CHECKING

from proxsmtp_tp.filters import stderr
from proxsmtp_tp.filters.endings import Ending, passed, refused
from proxsmtp_tp.filters.judging import Judging
from proxsmtp_tp.filters.stderr import ErrorOutput
from proxsmtp_tp.filters.verdict import Action

if TYPE_CHECKING:
    from proxsmtp_tp.filters.interface import FilterOwner, FilterRequest
    from proxsmtp_tp.filters.launcher import Launcher
    from proxsmtp_tp.filters.mail import Reader, Text
    from proxsmtp_tp.filters.process import Child, ExitStatus
    from proxsmtp_tp.filters.spool import MessageFile, Spool
    from proxsmtp_tp.filters.verdict import Verdict


class CommandRun(Judging):
    """A FilterRun, and the owner of its child."""

    def __init__(
        self, launcher: Launcher, request: FilterRequest, owner: FilterOwner, message: Spool | MessageFile | Reader
    ) -> None:
        super().__init__(launcher.limit, launcher.command.timeout, request, owner, message)
        self._launcher = launcher
        self._child: Child | None = None
        self._status: ExitStatus | None = None
        self.error_output = ErrorOutput()

    # For pipe and file to implement.

    @abstractmethod
    def _launch(self) -> Child:
        """Start the command."""

    def _started(self) -> None:
        """The command runs."""

    @abstractmethod
    def _consider(self) -> None:
        """The command exited with 0: give the verdict, if everything is known that a pass needs."""

    @abstractmethod
    def take_output(self) -> Text:
        """After PASS, for a chain: the judged message, which the caller closes. `read` then gives nothing."""

    # Judging.

    def _start(self) -> None:
        try:
            self._child = self._launch()
        except (OSError, ValueError) as error:
            self._trouble(Ending.NOT_STARTED, error)
        else:
            self._started()

    def _out_of_time(self) -> None:
        self._trouble(Ending.TIMED_OUT if self._status is None else Ending.OUTPUT_HELD, self._said())

    def _let_go(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        if self._status is None:
            child.end()
        else:
            child.release()

    # ChildOwner: the common part of pipe and file.

    def child_not_started(self, error: Exception) -> None:
        """ChildOwner."""
        self._child = None
        self._trouble(Ending.NOT_STARTED, error)

    def child_errors(self, data: bytes) -> None:
        """ChildOwner."""
        self.error_output.feed(data)

    def child_exited(self, status: ExitStatus) -> None:
        """ChildOwner."""
        self._status = status
        if status.code != 0:
            self._settle(refused(status, self.error_output.line, self._launcher.command.default))
        else:
            self._consider()

    # The verdict.

    def _pass(self, size: int) -> None:
        """Give the verdict PASS: the command exited with 0 and left a message of `size` octets."""
        self._settle(passed(size, self.error_output.line))

    def _settle(self, verdict: Verdict) -> None:
        """Set the verdict, with what the command wrote to standard error so far."""
        if not self.error_output.size:
            super()._settle(verdict)
            return
        said, line = self.error_output.logged, self._said()
        known = said == line and line in f"{verdict.detail}\n{verdict.said}" and verdict.action is not Action.PASS
        super()._settle(verdict if known else dataclasses.replace(verdict, errors=said))

    def _said(self) -> str:
        return stderr.parse(self.error_output.line).shown
