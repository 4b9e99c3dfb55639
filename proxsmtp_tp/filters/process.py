"""One child process: a command of the shell, its pipes, its exit status, and the end of all that it started.

Started with posix_spawn(3), which neither copies our memory nor runs Python code between fork and exec: two to three
times the rate of asyncio's subprocesses. The child gets a session and process group of its own, default signal
handlers and an empty signal mask (Python ignores SIGPIPE, a filter expects to die of it), 0, 1 and 2, and no other
descriptor of ours (all are close-on-exec). Working directory, umask and limits are the daemon's.

It is watched by a pidfd (pidfd_open(2)), so exit statuses can not be mixed up between children, and nobody else's
waitpid can be. It stays a zombie, and its number therefore its own, until no signal will be sent to its group any more.

The end. A child is over when the leader has exited and nobody holds its standard output or error any more: then it
is reaped, and all its descriptors are closed. A group that must go gets SIGTERM, so that scripts with a trap remove
their files also when a client hangs up, and SIGKILL KILL_GRACE later; its standard input stays open meanwhile, because
an end of file would look like a complete message. The same goes to what left the group, but not the session (see
`strays`). After a leader's own exit, whoever still holds standard output or error has LINGER to finish, and is ended
then. Background jobs that let go of both are not ours: they live on; and so does what called setsid(2).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from proxsmtp_tp.filters.other_groups import OtherGroups

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SHELL = "/bin/sh"

KILL_GRACE = 1.0
"""Seconds from SIGTERM to SIGKILL: enough to remove temporary files, and the place stays taken so long."""
LINGER = 1.0
"""Seconds for what a leader left behind on its pipes, such as `tee >(logger)`, which the shell does not wait for."""

READ_SIZE = 64 * 1024
"""Octets read at once: what a pipe holds (pipe(7)). Larger pipes and reads were measured and make nothing faster."""

_SIGNALS = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
_NO_DESCRIPTOR = -1


class ExitStatus:
    """How the leader ended: `code` of exit, or the `signal` that ended it, or neither where the kernel has lost it."""

    __slots__ = ("code", "signal")

    def __init__(self, code: int | None, signal_number: int | None = None) -> None:
        self.code = code
        self.signal = signal_number


class ChildOwner(Protocol):
    """Whom a child tells what happens. Every call comes from the event loop; none comes after `end` or `release`."""

    def child_output(self, data: bytes) -> None:
        """Some of standard output."""

    def child_output_closed(self) -> None:
        """The end of standard output: nobody can write to it any more."""

    def child_errors(self, data: bytes) -> None:
        """Some of standard error."""

    def child_input_taken(self) -> None:
        """Less input waits than before, or the child closed its standard input: see `queued` and `input_open`."""

    def child_exited(self, status: ExitStatus) -> None:
        """The leader has exited. All that it wrote to standard error was given before."""


class Child:
    """A running command.

    With `piped`, standard input and output are pipes; otherwise both are /dev/null. Standard error always is a pipe.
    `freed` is called once, when the child is reaped and all its descriptors are closed. The constructor raises
    OSError if the system has no process or descriptor left, ValueError for a NUL in command or environment.
    """

    def __init__(
        self,
        command: str,
        environment: Mapping[bytes, bytes],
        owner: ChildOwner,
        *,
        piped: bool,
        freed: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._owner: ChildOwner | None = owner
        self._freed = freed
        self._queue = bytearray()
        self._stalled = False
        self._input_complete = False
        self._status: ExitStatus | None = None
        self._killed = False
        self._timer: asyncio.TimerHandle | None = None
        self._stdin = self._stdout = self._stderr = self._pidfd = _NO_DESCRIPTOR
        self._pid = self._spawn(command, environment, piped)
        self._other_groups = OtherGroups(self._pid)
        self._watch()

    def _spawn(self, command: str, environment: Mapping[bytes, bytes], piped: bool) -> int:
        theirs: list[int] = []
        try:
            if piped:
                stdin, self._stdin = _pipe()
                theirs.append(stdin)
                self._stdout, stdout = _pipe()
                theirs.append(stdout)
            self._stderr, stderr = _pipe()
            theirs.append(stderr)
            for ours in (self._stdin, self._stdout, self._stderr):
                if ours != _NO_DESCRIPTOR:
                    os.set_blocking(ours, False)
            null = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0), (os.POSIX_SPAWN_DUP2, 0, 1)]
            pipes = [(os.POSIX_SPAWN_DUP2, their, number) for number, their in enumerate(theirs)]
            pid = os.posix_spawn(
                SHELL,
                ["sh", "-c", command],
                environment,
                file_actions=pipes if piped else [*null, (os.POSIX_SPAWN_DUP2, stderr, 2)],
                setsid=True,
                setsigmask=(),
                setsigdef=_SIGNALS,
            )
        except (OSError, ValueError):
            self._close_all()
            raise
        finally:
            for their in theirs:
                os.close(their)
        return pid

    def _watch(self) -> None:
        watched: list[int] = []
        try:
            self._pidfd = os.pidfd_open(self._pid)
            for descriptor, ready in (
                (self._stdout, self._read_output),
                (self._stderr, self._read_errors),
                (self._pidfd, self._look_for_exit),
            ):
                if descriptor != _NO_DESCRIPTOR:
                    self._loop.add_reader(descriptor, ready)
                    watched.append(descriptor)
        except OSError:  # the whole system is out of descriptors or memory; three of ours have just become free
            os.killpg(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            for descriptor in watched:
                self._loop.remove_reader(descriptor)
            self._close_all()
            raise

    # Standard input.

    @property
    def queued(self) -> int:
        """Octets of input that the child has not taken."""
        return len(self._queue)

    @property
    def stalled(self) -> bool:
        """The child does not take the input that we have for it."""
        return self._stalled

    @property
    def input_open(self) -> bool:
        """False once the child has closed its standard input, or got all of it."""
        return self._stdin != _NO_DESCRIPTOR

    def write(self, data: bytes) -> None:
        """Give input. What the child can not take now is queued; nothing is, once it closed its standard input."""
        if self._stdin == _NO_DESCRIPTOR:
            return
        if not self._stalled:
            written = self._try_write(data)
            if written == len(data) or not self.input_open:
                return
            data = data[written:]
            self._stalled = True
            self._loop.add_writer(self._stdin, self._write_on)
        self._queue += data

    def close_input(self) -> None:
        """The input is complete: end of file after what is queued. Idempotent."""
        self._input_complete = True
        if not self._stalled:
            self._close_stdin()

    def _try_write(self, data: bytes | bytearray) -> int:
        try:
            return os.write(self._stdin, data)
        except BlockingIOError:
            return 0
        except OSError:  # EPIPE: the child wants no more
            self._close_stdin()
            return 0

    def _write_on(self) -> None:
        del self._queue[: self._try_write(self._queue)]
        if not self._queue and self._stalled:
            self._stalled = False
            self._loop.remove_writer(self._stdin)
            if self._input_complete:
                self._close_stdin()
        if self._owner is not None:
            self._owner.child_input_taken()

    def _close_stdin(self) -> None:
        descriptor, self._stdin = self._stdin, _NO_DESCRIPTOR
        if descriptor == _NO_DESCRIPTOR:
            return
        if self._stalled:
            self._stalled = False
            self._loop.remove_writer(descriptor)
        self._queue.clear()
        os.close(descriptor)

    # Standard output and error. After `end` and `release` they are only read to see that nobody holds them any more.

    def _read_output(self) -> None:
        data = _read(self._stdout)
        if data is None:
            return
        if data:
            if self._owner is not None:
                self._owner.child_output(data)
            return
        self._stdout = self._close_reader(self._stdout)
        if self._owner is not None:
            self._owner.child_output_closed()
        self._maybe_over()

    def _read_errors(self) -> None:
        if self._take_errors() == 0:
            self._maybe_over()

    def _take_errors(self) -> int:
        """Octets taken from standard error; 0 at its end, -1 where there is nothing now."""
        data = _read(self._stderr)
        if data is None:
            return -1
        if not data:
            self._stderr = self._close_reader(self._stderr)
        elif self._owner is not None:
            self._owner.child_errors(data)
        return len(data)

    def _close_reader(self, descriptor: int) -> int:
        self._loop.remove_reader(descriptor)
        os.close(descriptor)
        return _NO_DESCRIPTOR

    # The end.

    def _look_for_exit(self) -> None:
        try:
            info = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # somebody else reaped it: its number may be anybody's, so no signal goes there
            status = ExitStatus(None)
            self._killed = True
        else:
            if info is None:
                return
            exited = info.si_code == os.CLD_EXITED
            status = ExitStatus(info.si_status) if exited else ExitStatus(None, info.si_status)
        self._loop.remove_reader(self._pidfd)
        self._status = status
        if self._owner is not None:
            self._take_last_errors()
            self._owner.child_exited(status)
        self._maybe_over()

    def _take_last_errors(self) -> None:
        """All that the leader wrote to standard error is in the pipe; others may go on writing."""
        if self._stderr == _NO_DESCRIPTOR:
            return
        left = fcntl.fcntl(self._stderr, fcntl.F_GETPIPE_SZ)
        while left > 0 and (taken := self._take_errors()) > 0:
            left -= taken

    def release(self) -> None:
        """The leader's exit said all that matters: no more calls. Who still holds the pipes is ended after LINGER."""
        self._owner = None
        if self._pidfd != _NO_DESCRIPTOR and self._timer is None and not self._killed:
            self._timer = self._loop.call_later(LINGER, self._terminate)

    def end(self) -> None:
        """Nobody wants this child any more: no more calls; end the whole session. Idempotent."""
        self._owner = None
        if self._pidfd != _NO_DESCRIPTOR and self._timer is None and not self._killed:
            self._terminate()

    def kill(self) -> None:
        """End the whole session at once: no more calls, and no time for traps. Idempotent."""
        self._owner = None
        if self._pidfd == _NO_DESCRIPTOR:
            return
        self._cancel_timer()
        self._signal(signal.SIGKILL)
        self._killed = True
        self._maybe_over()

    def _terminate(self) -> None:
        self._signal(signal.SIGTERM)
        self._timer = self._loop.call_later(KILL_GRACE, self.kill)

    def _signal(self, number: signal.Signals) -> None:
        """The leader is not reaped: the number of the group can not be anybody else's."""
        self._other_groups.look()
        with suppress(ProcessLookupError, PermissionError):  # all gone; or a set-uid filter that only root may end
            os.killpg(self._pid, number)
        self._other_groups.signal(number)

    def _maybe_over(self) -> None:
        held = self._stdout != _NO_DESCRIPTOR or self._stderr != _NO_DESCRIPTOR
        if self._status is None or self._pidfd == _NO_DESCRIPTOR or (held and not self._killed):
            return
        self._cancel_timer()
        with suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        os.close(self._pidfd)
        self._pidfd = _NO_DESCRIPTOR
        self._close_stdin()
        for descriptor in (self._stdout, self._stderr):
            if descriptor != _NO_DESCRIPTOR:
                self._close_reader(descriptor)
        self._stdout = self._stderr = _NO_DESCRIPTOR
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.child_input_taken()  # what was still queued for it is gone
        self._freed()

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _close_all(self) -> None:
        for descriptor in (self._stdin, self._stdout, self._stderr, self._pidfd):
            if descriptor != _NO_DESCRIPTOR:
                os.close(descriptor)


def _pipe() -> tuple[int, int]:
    """A pipe whose ends are none of 0, 1 and 2, also where the daemon was started with one of those closed."""
    ends = []
    for end in os.pipe():
        if end > 2:
            ends.append(end)
        else:
            ends.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3))
            os.close(end)
    return ends[0], ends[1]


def _read(descriptor: int) -> bytes | None:
    """What is there: b"" at the end, None where there is nothing now."""
    try:
        return os.read(descriptor, READ_SIZE)
    except BlockingIOError:
        return None
