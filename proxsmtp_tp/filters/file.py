"""FilterType file: the message is written to the file that EMAIL names, the command runs, and the file is read back.

Standard input and output are /dev/null.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxsmtp_tp.filters.endings import Ending
from proxsmtp_tp.filters.run import CommandRun
from proxsmtp_tp.filters.spool import MessageFile

if TYPE_CHECKING:
    from proxsmtp_tp.filters.interface import FilterOwner, FilterRequest
    from proxsmtp_tp.filters.launcher import Launcher
    from proxsmtp_tp.filters.process import Child


class FileRun(CommandRun):
    """FilterType file."""

    def __init__(self, launcher: Launcher, request: FilterRequest, owner: FilterOwner) -> None:
        self._file = MessageFile(launcher.space, launcher.ownership)
        super().__init__(launcher, request, owner, self._file)

    def read(self, size: int) -> bytes:
        """FilterRun. Raises OSError if the judged message cannot be read back completely."""
        return self._file.read(size)

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
