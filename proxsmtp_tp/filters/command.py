"""FilterType pipe and file: a command of the shell for each message (proxsmtpd(8), FILTER SCRIPTS).

The command starts when the message is complete: a client that sends slowly does not occupy a process.
pipe: the command reads the message from standard input, and writes the new message to standard output. Both happen at
the same time, so a filter may write before, while or after it reads.
file: the message is in the file that EMAIL names; when the command has ended, the content of that file is the message.

Exit status 0 passes the message; any other refuses it with the last line of standard error (see `stderr`, `endings`). A
message passes only when the shell has exited with 0 and no process can write to its output any more; a refusal is valid
at once. A command need not read all of its input: the rest is dropped, and output and exit status are valid (as in
1.10).

As in 1.10: `/bin/sh -c`, the daemon's working directory and umask, unknown values are not set, SENDER of the null
reverse-path is `<>`, no port in CLIENT and SERVER, standard error is ignored with exit status 0.
Fixed: exit status 0 without output, for a message that was not empty, is a TEMPFAIL (1.10 delivered an empty message: a
script without `cat` emptied all mail). A crash, a limit or a missing command never bounces mail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from proxsmtp_tp.filters.file import FileRun
from proxsmtp_tp.filters.launcher import Launcher
from proxsmtp_tp.filters.pipe import PipeRun

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxsmtp_tp.filters.interface import FilterOwner, FilterRequest
    from proxsmtp_tp.filters.launcher import Command
    from proxsmtp_tp.filters.limit import ProcessLimit
    from proxsmtp_tp.filters.mail import Reader
    from proxsmtp_tp.filters.run import CommandRun
    from proxsmtp_tp.filters.spool_space import SpoolSpace

Kind = Literal["pipe", "file"]

_RUNS: Final[dict[Kind, Callable[[Launcher, FilterRequest, FilterOwner, Reader | None], CommandRun]]] = {
    "pipe": PipeRun,
    "file": FileRun,
}


class CommandFilter:
    """Runs `command` for each message, at most `limit` at once."""

    def __init__(self, command: Command, kind: Kind, space: SpoolSpace, limit: ProcessLimit) -> None:
        self._launcher = Launcher(command, space, limit)
        self._run = _RUNS[kind]

    @property
    def running(self) -> int:
        """How many processes run, or are not reaped yet."""
        return self._launcher.limit.taken

    @property
    def waiting(self) -> int:
        """How many messages wait for a free process."""
        return self._launcher.limit.waiting

    def start(self, request: FilterRequest, owner: FilterOwner) -> CommandRun:
        """Begin to judge a message. Call it inside a running event loop."""
        return self._run(self._launcher, request, owner, None)

    def start_stored(self, request: FilterRequest, owner: FilterOwner, message: Reader) -> CommandRun:
        """The same for a message that is stored already: `finish` is the next call."""
        return self._run(self._launcher, request, owner, message)

    def close(self) -> None:
        """The worker ends: kill all processes at once. No verdict is needed any more."""
        self._launcher.close()
