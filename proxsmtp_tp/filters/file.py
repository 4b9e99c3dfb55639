"""FilterType file: the message is written to the file that EMAIL names, the command runs, and the file is read back.

Standard input and output are /dev/null.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxsmtp_tp.filters.callbacks import callback
from proxsmtp_tp.filters.endings import Ending
from proxsmtp_tp.filters.mail import CHUNK
from proxsmtp_tp.filters.run import CommandRun
from proxsmtp_tp.filters.spool import MessageFile

if TYPE_CHECKING:
    from proxsmtp_tp.filters.interface import FilterOwner, FilterRequest
    from proxsmtp_tp.filters.launcher import Launcher
    from proxsmtp_tp.filters.mail import Reader
    from proxsmtp_tp.filters.process import Child


class FileRun(CommandRun):
    """FilterType file."""

    def __init__(
        self, launcher: Launcher, request: FilterRequest, owner: FilterOwner, stored: Reader | None = None
    ) -> None:
        self._stored = stored
        self._file = MessageFile(launcher.space, launcher.ownership)
        super().__init__(launcher, request, owner, self._file)

    def read(self, size: int) -> bytes:
        """FilterRun. Raises OSError if the judged message cannot be read back completely."""
        return self._file.read(size)

    def finish(self) -> None:
        """FilterRun. A message of a chain is copied first, one chunk in a loop iteration."""
        if self._stored is None or not self._stored.left:
            super().finish()
        else:
            self._copy(self._stored)

    @callback
    def _copy(self, stored: Reader) -> None:
        if self._settled:
            return
        try:
            self.write(stored.read(CHUNK))
        except OSError as error:
            self._not_stored(error)
            return
        self._loop.call_soon(self._copy, stored) if stored.left else super().finish()

    def take_output(self) -> MessageFile:
        """CommandRun."""
        output = self._file
        self._message = self._file = MessageFile(self._launcher.space, self._launcher.ownership)
        return output

    def _launch(self) -> Child:
        return self._launcher.launch(self._request, self, file=self._file.name)

    def child_output(self, data: bytes) -> None:
        """ChildOwner: never called, standard output is /dev/null."""

    def child_output_closed(self) -> None:
        """ChildOwner: never called."""

    def child_input_taken(self) -> None:
        """ChildOwner: never called, there is no input."""

    def _consider(self) -> None:
        given = self._file.size
        try:
            self._file.reopen()
        except OSError as error:
            self._trouble(Ending.OUTPUT_UNREADABLE, error)
            return
        if given and not self._file.size:
            self._trouble(Ending.OUTPUT_EMPTY, self._said())
        else:
            self._pass(self._file.size)
