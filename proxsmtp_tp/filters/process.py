"""One child process: a command, its pipes, its exit status, and the end of all processes that it started.

It is started by `spawner`, in another thread. What is written before is in its standard input when it starts. The child
gets a session and process group of its own, default signal handlers and an empty signal mask (Python ignores SIGPIPE,
but a filter expects to be ended by it), descriptors 0, 1 and 2, and no other of ours (all are close-on-exec).
Working directory, umask and limits are the daemon's.

It is watched by a pidfd (pidfd_open(2)), so the exit statuses of children cannot be mixed up. It is reaped only when no
more signals will be sent to its group; until then it is a zombie, and its process id cannot be reused.

The end. The leader is the program, or the shell. A child has ended when the leader has exited and no process has its
standard output or error open any more: then it is reaped, and all its descriptors are closed. To end it earlier, its
group gets SIGTERM, so that scripts with a trap can remove their files, and SIGKILL after KILL_GRACE; its standard input
stays open in the meantime, because an end of file would look like a complete message. Processes that left the group,
but not the session, get the same signals (see `other_groups`). After the leader's own exit, processes that still have
standard output or error open get LINGER to finish, and then these signals. Background jobs that have closed both go
on running, and so do processes that called setsid(2).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from proxsmtp_tp.filters.callbacks import callback
from proxsmtp_tp.filters.child_input import ChildInput
from proxsmtp_tp.filters.other_groups import OtherGroups
from proxsmtp_tp.filters.pipes import Pipes, read
from proxsmtp_tp.filters.spawner import Start
from proxsmtp_tp.filters.watching import watch_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxsmtp_tp.filters.execution import Prepared

KILL_GRACE = 1.0
"""Seconds from SIGTERM to SIGKILL: enough to remove temporary files. The place stays occupied for this time."""
LINGER = 1.0
"""Seconds for processes that the leader left with its pipes open, such as `tee >(logger)`: the shell does not wait."""

_NO_DESCRIPTOR = -1


class ExitStatus:
    """How the leader ended: exit `code`, or the `signal` that ended it, or neither if the status is not known."""

    __slots__ = ("code", "signal")

    def __init__(self, code: int | None, signal_number: int | None = None) -> None:
        self.code = code
        self.signal = signal_number


class ChildOwner(Protocol):
    """The receiver of a child's events. All calls come from the event loop; none comes after `end` or `release`."""

    def child_not_started(self, error: Exception) -> None:
        """The system can give no process for it. Nothing else comes."""

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
    """A command that is started, then runs.

    With `piped`, standard input and output are pipes; otherwise both are /dev/null. Standard error is always a pipe.
    `freed` is called once, when the child is reaped and all its descriptors are closed, or could not be started. The
    constructor raises OSError if the system can give no descriptor.
    """

    def __init__(self, prepared: Prepared, owner: ChildOwner, *, piped: bool, freed: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._owner: ChildOwner | None = owner
        self._freed = freed
        self._status: ExitStatus | None = None
        self._ending = False
        self._killed = False
        self._over = False
        self._timer: asyncio.TimerHandle | None = None
        self._watched = watch_of(self._loop)
        self._pipes = Pipes(piped=piped)
        *both, self._stderr = self._pipes.ours
        stdin, self._stdout = both or (_NO_DESCRIPTOR, _NO_DESCRIPTOR)
        self.input = ChildInput(self._loop, stdin, self._input_taken, self.failed)
        """Its standard input."""
        self._pidfd = _NO_DESCRIPTOR
        self._pid = 0
        theirs = self._pipes.theirs
        descriptors = theirs if piped else (None, None, *theirs)
        self._start: Start | None = Start(self._loop, prepared, descriptors, self._start_done)

    # The start.

    @callback
    def _start_done(self) -> None:
        if self._start is not None:
            self._take(self._start)

    def _take(self, start: Start) -> None:
        """It was started, or not."""
        self._start = None
        self._pipes.close_theirs()
        error = start.error
        if start.pid:
            self._pid = start.pid
            self._other_groups = OtherGroups(self._pid)
            try:
                self._watch()
            except OSError as problem:  # no descriptor or memory is left; three of ours have just been closed
                os.killpg(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
                error = problem
            else:
                if self._ending:
                    self._terminate()
                return
        owner = self._owner
        self._close()
        if owner is not None and error is not None:
            owner.child_not_started(error)

    def _watch(self) -> None:
        self._pidfd = os.pidfd_open(self._pid)
        if self._stdout != _NO_DESCRIPTOR:
            self._watched.add(self._stdout, self._read_output)
        self._watched.add(self._stderr, self._read_errors)
        self._watched.add(self._pidfd, self._look_for_exit)

    def _input_taken(self) -> None:
        if self._owner is not None:
            self._owner.child_input_taken()

    # Standard output and error. After `end` and `release` they are read only to see when they are closed.

    @callback
    def _read_output(self) -> None:
        data = read(self._stdout)
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
        data = read(self._stderr)
        if data is None:
            return -1
        if not data:
            self._stderr = self._close_reader(self._stderr)
        elif self._owner is not None:
            self._owner.child_errors(data)
        return len(data)

    def _close_reader(self, descriptor: int) -> int:
        self._watched.remove(descriptor)
        os.close(descriptor)
        return _NO_DESCRIPTOR

    # The end.

    @callback
    def _look_for_exit(self) -> None:
        closed = self._stdout == _NO_DESCRIPTOR and self._stderr == _NO_DESCRIPTOR
        keep = 0 if closed else os.WNOWAIT
        try:
            info = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG | keep)
        except ChildProcessError:  # it was reaped elsewhere: its number may have been reused, so no signal is sent
            status = ExitStatus(None)
            self._killed = True
        else:
            if info is None:
                return
            exited = info.si_code == os.CLD_EXITED
            status = ExitStatus(info.si_status) if exited else ExitStatus(None, info.si_status)
        self._status = status
        if closed:
            self._end_with(status)
            return
        self._watched.remove(self._pidfd)
        if self._owner is not None:
            self._take_last_errors()
            self._owner.child_exited(status)
        self._maybe_over()

    def _end_with(self, status: ExitStatus) -> None:
        """It is reaped, and nothing else is left of it: from here on it gets no signal."""
        self._over = True
        self._cancel_timer()
        try:
            if self._owner is not None:
                self._owner.child_exited(status)
            if self._owner is not None:
                self._owner.child_input_taken()  # the queued input was dropped
        except Exception as error:  # noqa: BLE001  (told now: after `_close` there is no owner)
            self.failed(error)
        finally:
            self._close()

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
        if not self._over and self._timer is None and not self._killed:
            self._timer = self._loop.call_later(LINGER, self._linger_is_over)

    def end(self) -> None:
        """The child is not needed any more: make no more calls, and end the whole session. Idempotent."""
        self._owner = None
        if self._start is not None:
            self._ending = True
        elif not self._over and self._timer is None and not self._killed:
            self._terminate()

    def kill(self) -> None:
        """Kill the whole session at once: make no more calls, and give no time for traps. Idempotent."""
        self._owner = None
        if self._start is not None:
            self._start.cancel()
            self._take(self._start)
        if self._over:
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
        if self._status is None or self._over or (held and not self._killed):
            return
        self._cancel_timer()
        with suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        owner = self._owner
        self._close()
        if owner is not None:
            owner.child_input_taken()  # the queued input was dropped

    def _close(self) -> None:
        """The child has ended: close everything that is open."""
        self._over = True
        self._owner = None
        self.input.end()
        for descriptor in (self._stdout, self._stderr, self._pidfd):
            if descriptor != _NO_DESCRIPTOR:
                self._close_reader(descriptor)
        self._stdout = self._stderr = self._pidfd = _NO_DESCRIPTOR
        freed, self._freed = self._freed, _nothing  # no circle of objects is left for the garbage collector
        freed()

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()


def _nothing() -> None:
    """Replaces `freed` after its call."""
