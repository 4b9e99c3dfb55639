"""FilterType file: the complete message in a file that EMAIL names, then the command, then what the file has become.

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
        super().__init__(launcher, request, owner)
        self._file: MessageFile | None = None

    def begin(self) -> None:
        """Only the file is made: the command starts with a complete message."""
        try:
            self._file = MessageFile(self._launcher.temp_directory, self._launcher.claim.prefix())
        except OSError as error:
            self._trouble(Ending.SPOOL_FAILED, error)

    def _take(self, text: bytes) -> None:
        if self._file is None:
            return
        self._given += len(text)
        try:
            self._file.write(text)
        except OSError as error:
            self._trouble(Ending.SPOOL_FAILED, error)

    def _complete(self) -> None:
        if self._file is None:
            return
        try:
            self._file.complete()
        except OSError as error:
            self._trouble(Ending.SPOOL_FAILED, error)
            return
        self._enter()

    def read(self, size: int) -> bytes:
        """FilterRun. Raises OSError if the judged message can not be read back to its last octet."""
        return b"" if self._file is None else self._file.read(size)

    def _launch(self) -> Child:
        if self._file is None:
            raise RuntimeError("a command without its message")
        return self._launcher.launch(self._request, self, file=self._file.name)

    def _started(self) -> None:
        self._clock.run()

    def child_output(self, data: bytes) -> None:
        """ChildOwner: never, standard output is /dev/null."""

    def child_output_closed(self) -> None:
        """ChildOwner: never."""

    def child_input_taken(self) -> None:
        """ChildOwner: there is no input."""

    def _consider(self) -> None:
        if self._file is None:
            return
        try:
            self._file.reopen()
        except OSError as error:
            self._trouble(Ending.OUTPUT_UNREADABLE, error)
            return
        if self._given and not self._file.size:
            self._trouble(Ending.OUTPUT_EMPTY, self._said())
        else:
            self._pass(self._file.size)

    def _discard(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()
