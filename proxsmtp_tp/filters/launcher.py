"""What all runs of one command share: the command, its environment, its limits, and the processes that run.

The environment is the daemon's, with the variables of proxsmtpd(8) instead of any that it has under these names. Their
values are octets from the envelope: whoever builds a FilterRequest keeps NUL and line ends out of them. One string of
an environment may have 128 KiB (execve(2), MAX_ARG_STRLEN); the session bounds the recipients accordingly.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from proxsmtp_tp.filters.ownership import Ownership, remove_abandoned
from proxsmtp_tp.filters.process import Child

if TYPE_CHECKING:
    from proxsmtp_tp.filters.interface import FilterRequest
    from proxsmtp_tp.filters.limit import ProcessLimit
    from proxsmtp_tp.filters.process import ChildOwner
    from proxsmtp_tp.filters.spool_space import SpoolSpace

_OWN_VARIABLES = frozenset(
    (b"CLIENT", b"SERVER", b"SENDER", b"RECIPIENTS", b"REMOTE", b"REMOTE_HELO", b"HELO", b"EMAIL", b"TMPDIR")
)


class Launcher:
    """Starts `command`, at most `limit` at once. `timeout` is FilterTimeout in seconds."""

    def __init__(self, command: str, timeout: float, space: SpoolSpace, limit: ProcessLimit) -> None:
        self.command = command
        self.timeout = timeout
        self.space = space
        self.ownership = Ownership(space.directory)
        self.limit = limit
        self._children: set[Child] = set()
        self._environment = {name: value for name, value in os.environb.items() if name not in _OWN_VARIABLES}
        self._environment[b"TMPDIR"] = os.fsencode(space.directory)
        _keep_descriptors()
        _keep_exit_statuses()
        remove_abandoned(space.directory)

    def launch(self, request: FilterRequest, owner: ChildOwner, *, file: str | None = None) -> Child:
        """Start the command for who holds a place of `limit`, which is given back when the child is reaped.

        With `file`, that is EMAIL; without, the message goes through pipes. Raises what `Child` raises, the place given
        back at once.
        """
        environment = self._environment | _variables(request)
        if file is not None:
            environment[b"EMAIL"] = os.fsencode(file)

        def freed() -> None:
            self._children.discard(child)
            self.limit.leave(request.client)

        try:
            child = Child(self.command, environment, owner, piped=file is None, freed=freed)
        except (OSError, ValueError):
            self.limit.leave(request.client)
            raise
        self._children.add(child)
        return child

    def close(self) -> None:
        """End every process now, and start none any more. No message is in a file any more."""
        self.limit.close()
        self.ownership.close()
        for child in list(self._children):
            child.kill()


def _keep_descriptors() -> None:
    """Descriptors that our own starter left open must not reach a filter; those that we open never do (PEP 446)."""
    for entry in Path("/proc/self/fd").iterdir():
        descriptor = int(entry.name)
        with suppress(OSError):  # the one that listed the directory
            if descriptor > 2 and os.get_inheritable(descriptor):
                os.set_inheritable(descriptor, False)


def _keep_exit_statuses() -> None:
    """A starter that ignores SIGCHLD bequeaths that, and the kernel then throws exit statuses away (sigaction(2))."""
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _variables(request: FilterRequest) -> dict[bytes, bytes]:
    """What is known of a message. What is not known is not set, as in 1.10."""
    envelope = request.envelope
    known = {
        b"CLIENT": os.fsencode(request.client),
        b"SERVER": os.fsencode(request.server),
        b"SENDER": envelope.sender or b"<>",
        b"RECIPIENTS": b"\n".join(envelope.recipients),
        b"HELO": request.helo,
        b"REMOTE": request.remote,
        b"REMOTE_HELO": request.remote_helo,
    }
    return {name: value for name, value in known.items() if value}
