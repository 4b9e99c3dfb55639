"""What all runs of one command share: the command, its environment, its limits, and its running processes.

The environment is the daemon's, with the variables of proxsmtpd(8), which replace variables of the same names. Their
values are octets from the envelope: the maker of a FilterRequest keeps NUL and line ends out of them. One string of an
environment may have 128 KiB (execve(2), MAX_ARG_STRLEN); the session limits the recipients accordingly.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from proxsmtp_tp.config.settings import FilterDefault
from proxsmtp_tp.filters.execution import Execution
from proxsmtp_tp.filters.ownership import Ownership, remove_abandoned
from proxsmtp_tp.filters.process import Child
from proxsmtp_tp.filters.watching import watch_of
from proxsmtp_tp.tls.facts import NO_TLS, environment

if TYPE_CHECKING:
    from proxsmtp_tp.filters.interface import FilterRequest
    from proxsmtp_tp.filters.limit import ProcessLimit
    from proxsmtp_tp.filters.process import ChildOwner
    from proxsmtp_tp.filters.spool_space import SpoolSpace
    from proxsmtp_tp.filters.watching import Watch

_OWN_VARIABLES = frozenset(
    (
        b"CLIENT",
        b"SERVER",
        b"SENDER",
        b"RECIPIENTS",
        b"REMOTE",
        b"REMOTE_HELO",
        b"HELO",
        b"EMAIL",
        b"TMPDIR",
        b"TRACE_ID",
        *(name.encode() for name in environment(NO_TLS)),
    )
)


@dataclass(frozen=True, slots=True)
class Command:
    """FilterCommand as it is written, FilterTimeout in seconds, and FilterDefault."""

    text: str
    timeout: float
    default: FilterDefault = FilterDefault.REJECT


class Launcher:
    """Starts `command`, at most `limit` at once."""

    def __init__(self, command: Command, space: SpoolSpace, limit: ProcessLimit) -> None:
        self.command = command
        self.space = space
        self.ownership = Ownership(space.directory)
        self.limit = limit
        self._children: set[Child] = set()
        self._watch: Watch | None = None
        self._execution = Execution(command.text, common_environment(space.directory))
        keep_descriptors()
        keep_exit_statuses()
        remove_abandoned(space.directory)

    def launch(self, request: FilterRequest, owner: ChildOwner, *, file: str | None = None) -> Child:
        """Start the command for a run that has a place of `limit`; the place is given back when the child is reaped.

        `file`: the value of EMAIL; None: the message goes through pipes. Raises OSError if the system can give no
        descriptor, ValueError for a NUL in a variable; then the place has been given back.
        """

        if self._watch is None:
            self._watch = watch_of(asyncio.get_running_loop())
            self._watch.hold()

        def freed() -> None:
            self._children.discard(child)
            self.limit.leave(request.client)

        try:
            variables = _variables(request)
            if file is not None:
                variables[b"EMAIL"] = os.fsencode(file)
            child = Child(self._execution.prepared(variables), owner, piped=file is None, freed=freed)
        except Exception:
            self.limit.leave(request.client)
            raise
        self._children.add(child)
        return child

    def close(self) -> None:
        """Kill every process now, start no more, and release the ownership of message files."""
        self.limit.close()
        self.ownership.close()
        for child in list(self._children):
            child.kill()
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.let_go()


def common_environment(directory: str) -> dict[bytes, bytes]:
    """The variables that are the same for all messages; `directory` is TempDirectory."""
    inherited = {name: value for name, value in os.environb.items() if name not in _OWN_VARIABLES}
    return inherited | {b"TMPDIR": os.fsencode(directory)}


def keep_descriptors() -> None:
    """Do not pass descriptors on to filters that were open when the daemon started (those that we open: PEP 446)."""
    for entry in Path("/proc/self/fd").iterdir():
        descriptor = int(entry.name)
        with suppress(OSError):  # the descriptor that listed the directory
            if descriptor > 2 and os.get_inheritable(descriptor):
                os.set_inheritable(descriptor, False)


def keep_exit_statuses() -> None:
    """Reset SIGCHLD: if the daemon inherited that it is ignored, the kernel discards exit statuses (sigaction(2))."""
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _variables(request: FilterRequest) -> dict[bytes, bytes]:
    """The variables of a message. Unknown values are not set, as in 1.10."""
    envelope = request.envelope
    known = {
        b"CLIENT": os.fsencode(request.client),
        b"SERVER": os.fsencode(request.server),
        b"SENDER": envelope.sender or b"<>",
        b"RECIPIENTS": b"\n".join(envelope.recipients),
        b"HELO": request.helo,
        b"REMOTE": request.remote,
        b"REMOTE_HELO": request.remote_helo,
        b"TRACE_ID": request.trace_id.encode(),
    }
    if request.tls != NO_TLS:
        known |= {name.encode(): value.encode() for name, value in environment(request.tls).items()}
    return {name: value for name, value in known.items() if value}
