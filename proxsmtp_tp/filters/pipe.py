"""FilterType pipe: message text to standard input as it arrives, standard output read at the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxsmtp_tp.filters.endings import Ending
from proxsmtp_tp.filters.run import CommandRun
from proxsmtp_tp.filters.spool import Spool

if TYPE_CHECKING:
    from proxsmtp_tp.filters.interface import FilterOwner, FilterRequest
    from proxsmtp_tp.filters.launcher import Launcher
    from proxsmtp_tp.filters.process import Child

INPUT_HIGH = 64 * 1024
"""Octets that may wait for a filter before the client is told to wait: as much as its pipe holds besides."""
INPUT_LOW = 16 * 1024
"""Octets at which the client may go on, so that the pipe does not run dry meanwhile."""

OUTPUT_FACTOR = 4
OUTPUT_ALLOWANCE = 64 * 1024 * 1024
"""A filter may write OUTPUT_FACTOR times what it was given (no transfer encoding grows text by more) and this much more
(footers, reports, attachments). Past that it is a runaway, which must not fill TempDirectory until its time is up."""


class PipeRun(CommandRun):
    """FilterType pipe."""

    def __init__(self, launcher: Launcher, request: FilterRequest, owner: FilterOwner) -> None:
        super().__init__(launcher, request, owner)
        self._early = bytearray()
        self._output = Spool(launcher.temp_directory)
        self._output_closed = False

    def begin(self) -> None:
        """The command starts before the message does."""
        self._enter()
        if self._child is None and not self._settled:
            self._set_paused(True)

    def _take(self, text: bytes) -> None:
        self._given += len(text)
        if self._child is None:
            self._early += text
        else:
            self._child.write(text)
            self._balance()

    def _complete(self) -> None:
        if self._child is None:
            return
        self._child.close_input()
        self._balance()
        self._consider()

    def read(self, size: int) -> bytes:
        """FilterRun. Raises OSError if the judged message can not be read back to its last octet."""
        return self._output.read(size)

    def _launch(self) -> Child:
        return self._launcher.launch(self._request, self)

    def _started(self) -> None:
        child = self._child
        if child is None:
            return
        if self._early:
            child.write(bytes(self._early))
            self._early.clear()
        if self._finished:
            child.close_input()
        self._balance()

    def _balance(self) -> None:
        """The clock runs while we wait for the filter; the client waits while the filter does not keep up."""
        child = self._child
        if child is None:
            return
        if child.stalled or self._finished:
            self._clock.run()
        else:
            self._clock.stop()
        if child.queued > INPUT_HIGH:
            self._set_paused(True)
        elif child.queued <= INPUT_LOW:
            self._set_paused(False)

    def child_input_taken(self) -> None:
        """ChildOwner."""
        self._balance()

    def child_output(self, data: bytes) -> None:
        """ChildOwner."""
        try:
            self._output.write(data)
        except OSError as error:
            self._trouble(Ending.SPOOL_FAILED, error)
            return
        if self._output.size > self._given * OUTPUT_FACTOR + OUTPUT_ALLOWANCE:
            self._trouble(Ending.OUTPUT_TOO_LARGE, self._said())

    def child_output_closed(self) -> None:
        """ChildOwner."""
        self._output_closed = True
        self._consider()

    def _consider(self) -> None:
        if self._status is None or not self._output_closed:
            return
        if self._given and not self._output.size:
            self._trouble(Ending.OUTPUT_EMPTY, self._said())
        elif self._finished:
            self._read_back()

    def _read_back(self) -> None:
        try:
            self._output.rewind()
        except OSError as error:
            self._trouble(Ending.SPOOL_FAILED, error)
        else:
            self._pass(self._output.size)

    def _discard(self) -> None:
        self._early.clear()
        self._output.close()
