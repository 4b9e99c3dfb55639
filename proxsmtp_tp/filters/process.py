"""One child process: a shell command, its pipes, its exit status, and the end of all processes that it started.

It is started with posix_spawn(3), which neither copies our memory nor runs Python code between fork and exec: two to
three times the rate of asyncio's subprocesses. The child gets a session and process group of its own, default signal
handlers and an empty signal mask (Python ignores SIGPIPE, but a filter expects to be ended by it), descriptors 0, 1 and
2, and no other descriptor of ours (all are close-on-exec). Working directory, umask and limits are the daemon's.

It is watched by a pidfd (pidfd_open(2)), so the exit statuses of children cannot be mixed up. It is reaped only when no
more signals will be sent to its group; until then it is a zombie, and its process id cannot be reused.

The end. The leader is the shell. A child has ended when the leader has exited and no process has its standard output or
error open any more: then it is reaped, and all its descriptors are closed. To end it earlier, its group gets
SIGTERM, so that scripts with a trap can remove their files, and SIGKILL after KILL_GRACE; its standard input stays
open in the meantime, because an end of file would look like a complete message. Processes that left the group, but
not the session, get the same signals (see `other_groups`). After the leader's own exit, processes that still have
standard output or error open get LINGER to finish, and then these signals. Background jobs that have closed both go
on running, and so do processes that called setsid(2).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
import termios
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from proxsmtp_tp.filters.callbacks import callback
from proxsmtp_tp.filters.other_groups import OtherGroups

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SHELL = "/bin/sh"

KILL_GRACE = 1.0
"""Seconds from SIGTERM to SIGKILL: enough to remove temporary files. The place stays occupied for this time."""
LINGER = 1.0
"""Seconds for processes that the leader left with its pipes open, such as `tee >(logger)`: the shell does not wait."""

READ_SIZE = 64 * 1024
"""Octets read at once: the capacity of a pipe (pipe(7)). Larger pipes and reads were measured and are not faster."""

DEFAULT_SIGNALS = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
_NO_DESCRIPTOR = -1


class ExitStatus:
    """How the leader ended: exit `code`, or the `signal` that ended it, or neither if the status is not known."""

    __slots__ = ("code", "signal")

    def __init__(self, code: int | None, signal_number: int | None = None) -> None:
        self.code = code
        self.signal = signal_number


class ChildOwner(Protocol):
    """The receiver of a child's events. All calls come from the event loop; none comes after `end` or `release`."""

    def child_output(self, data: bytes) -> None:
        """A piece of standard output."""

    def child_output_closed(self) -> None:
        """The end of standard output: no process can write to it any more."""

    def child_errors(self, data: bytes) -> None:
        """A piece of standard error."""

    def child_input_taken(self) -> None:
        """The child has read input, or closed its standard input: see `queued` and `input_open`."""

    def child_exited(self, status: ExitStatus) -> None:
        """The leader has exited. Everything that it wrote to standard error came before."""

    def failed(self, error: Exception) -> None:
        """A bug, here or in a call to the owner. The child is killed; nothing else comes."""


class Child:
    """A running command.

    With `piped`, standard input and output are pipes; otherwise both are /dev/null. Standard error is always a pipe.
    `freed` is called once, when the child is reaped and all its descriptors are closed. The constructor raises
    OSError if the system can give no process or descriptor, ValueError for a NUL in command or environment.
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
                setsigdef=DEFAULT_SIGNALS,
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
        except OSError:  # the system has no descriptors or memory left; three of ours have just been closed
            os.killpg(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            for descriptor in watched:
                self._loop.remove_reader(descriptor)
            self._close_all()
            raise

    # Standard input.

    @property
    def queued(self) -> int:
        """Octets of input that the child has not read."""
        return len(self._queue)

    @property
    def stalled(self) -> bool:
        """Whether the child does not read the input that waits for it."""
        return self._stalled

    @property
    def input_open(self) -> bool:
        """False after the child has closed its standard input, or has got all of it."""
        return self._stdin != _NO_DESCRIPTOR

    @property
    def unread(self) -> int:
        """Octets of input that the child has not read: those that are queued, and those in the pipe (pipe(7))."""
        if self._stdin == _NO_DESCRIPTOR:
            return 0
        in_pipe = fcntl.ioctl(self._stdin, termios.FIONREAD, bytes(4))
        return len(self._queue) + int.from_bytes(in_pipe, sys.byteorder)

    def write(self, data: bytes) -> None:
        """Write input. What the child does not read now is queued; after it closed its standard input, input is
        dropped.
        """
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
        """The input is complete: send end of file after the queued input. Idempotent."""
        self._input_complete = True
        if not self._stalled:
            self._close_stdin()

    def _try_write(self, data: bytes | bytearray) -> int:
        try:
            return os.write(self._stdin, data)
        except BlockingIOError:
            return 0
        except OSError:  # EPIPE: the child has closed its standard input
            self._close_stdin()
            return 0

    @callback
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

    # Standard output and error. After `end` and `release` they are read only to see when they are closed.

    @callback
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

    @callback
    def _read_errors(self) -> None:
        if self._take_errors() == 0:
            self._maybe_over()

    def _take_errors(self) -> int:
        """Octets read from standard error; 0 at its end, -1 if there is nothing now."""
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

    @callback
    def _look_for_exit(self) -> None:
        try:
            info = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # it was reaped elsewhere: its number may have been reused, so no signal is sent
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
        """Read what is in the pipe of standard error: all that the leader wrote is there; other processes may write
        more.
        """
        if self._stderr == _NO_DESCRIPTOR:
            return
        left = fcntl.fcntl(self._stderr, fcntl.F_GETPIPE_SZ)
        while left > 0 and (taken := self._take_errors()) > 0:
            left -= taken

    def release(self) -> None:
        """The leader's exit was enough: make no more calls. Processes that still have the pipes open are ended
        after LINGER.
        """
        self._owner = None
        if self._pidfd != _NO_DESCRIPTOR and self._timer is None and not self._killed:
            self._timer = self._loop.call_later(LINGER, self._linger_is_over)

    def end(self) -> None:
        """The child is not needed any more: make no more calls, and end the whole session. Idempotent."""
        self._owner = None
        if self._pidfd != _NO_DESCRIPTOR and self._timer is None and not self._killed:
            self._terminate()

    def kill(self) -> None:
        """Kill the whole session at once: make no more calls, and give no time for traps. Idempotent."""
        self._owner = None
        if self._pidfd == _NO_DESCRIPTOR:
            return
        self._cancel_timer()
        self._signal(signal.SIGKILL)
        self._killed = True
        self._maybe_over()

    @callback
    def _linger_is_over(self) -> None:
        self._terminate()

    def _terminate(self) -> None:
        self._signal(signal.SIGTERM)
        self._timer = self._loop.call_later(KILL_GRACE, self._grace_is_over)

    @callback
    def _grace_is_over(self) -> None:
        self.kill()

    def failed(self, error: Exception) -> None:
        """CallbackOwner. The loop would call again and again for output that nobody reads: kill the child at once."""
        owner = self._owner
        if owner is not None:
            owner.failed(error)
        self.kill()
        if owner is None:
            raise error  # nobody waits for it any more: the event loop logs it

    def _signal(self, number: signal.Signals) -> None:
        """Send a signal. The leader is not reaped yet, so the number of the group cannot have been reused."""
        self._other_groups.look()
        with suppress(ProcessLookupError, PermissionError):  # all have ended, or only root may end them
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
            owner.child_input_taken()  # the queued input was dropped
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
    """A pipe with no end among 0, 1 and 2, also if the daemon was started with one of those closed."""
    ends = []
    for end in os.pipe():
        if end > 2:
            ends.append(end)
        else:
            ends.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3))
            os.close(end)
    return ends[0], ends[1]


def _read(descriptor: int) -> bytes | None:
    """What can be read now: b"" at the end, None if there is nothing now."""
    try:
        return os.read(descriptor, READ_SIZE)
    except BlockingIOError:
        return None
