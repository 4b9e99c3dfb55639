"""FilterType pipe: the complete message goes to standard input, and standard output is read at the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxsmtp_tp.filters.callbacks import callback
from proxsmtp_tp.filters.endings import Ending
from proxsmtp_tp.filters.run import CommandRun
from proxsmtp_tp.filters.spool import Spool

if TYPE_CHECKING:
    from proxsmtp_tp.filters.interface import FilterOwner, FilterRequest
    from proxsmtp_tp.filters.launcher import Launcher
    from proxsmtp_tp.filters.mail import Reader
    from proxsmtp_tp.filters.process import Child

CHUNK = 64 * 1024
"""Octets written at a time, one chunk in a loop iteration: the capacity of a pipe (pipe(7))."""

OUTPUT_FACTOR = 4
OUTPUT_ALLOWANCE = 64 * 1024 * 1024
"""A filter may write OUTPUT_FACTOR times what it was given (no transfer encoding makes text larger than that) and this
many octets more (footers, reports, attachments). A filter that writes more has a fault, and must not fill
TempDirectory."""


class PipeRun(CommandRun):
    """FilterType pipe."""

    def __init__(
        self, launcher: Launcher, request: FilterRequest, owner: FilterOwner, stored: Reader | None = None
    ) -> None:
        self._input: Spool | Reader = stored or Spool(launcher.space)
        super().__init__(launcher, request, owner, self._input)
        self._output = Spool(launcher.space)
        self._output_closed = False

    def read(self, size: int) -> bytes:
        """FilterRun. Raises OSError if the judged message can not be read back to its last octet."""
        return self._output.read(size)

    def take_output(self) -> Spool:
        """CommandRun."""
        output, self._output = self._output, Spool(self._launcher.space)
        return output

    def _launch(self) -> Child:
        return self._launcher.launch(self._request, self)

    def _started(self) -> None:
        self._feed()

    @callback
    def _feed(self) -> None:
        """The next chunk of the message, where the command takes it; what it does not read is dropped."""
        child = self._child
        if child is None or child.input.stalled or not child.input.open:
            return
        try:
            chunk = self._input.read(CHUNK)
        except OSError as error:
            self._not_stored(error)
            return
        child.input.write(chunk)
        if not self._input.left:
            child.input.complete()
            self._input.close()
        elif not child.input.stalled:
            self._loop.call_soon(self._feed)

    def child_input_taken(self) -> None:
        """ChildOwner."""
        self._clock.start()
        self._feed()

    def child_output(self, data: bytes) -> None:
        """ChildOwner."""
        if not self._kept(self._output.write, data):
            return
        if self._output.size > self._input.size * OUTPUT_FACTOR + OUTPUT_ALLOWANCE:
            self._trouble(Ending.OUTPUT_TOO_LARGE, self._said())

    def child_output_closed(self) -> None:
        """ChildOwner."""
        self._output_closed = True
        self._consider()

    def _consider(self) -> None:
        if self._status is None or not self._output_closed:
            return
        if self._input.size and not self._output.size:
            self._trouble(Ending.OUTPUT_EMPTY, self._said())
        elif self._kept(self._output.complete):
            self._pass(self._output.size)

    def _let_go(self) -> None:
        super()._let_go()
        self._input.close()

    def _discard(self) -> None:
        super()._discard()
        self._output.close()
