"""Network namespaces without a name, which end with the processes in them (network_namespaces(7), unshare(2)).

A link between two namespaces is removed when the first of them ends, with everything configured on it: routes,
addresses, neighbours. Therefore nothing of a replica or a probe remains after a kill -9.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
import traceback
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

CLONE_NEWNET = 0x4000_0000  # linux/sched.h; the os module has unshare only from Python 3.12 on
PR_SET_PDEATHSIG = 1  # linux/prctl.h

_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A child process in a network namespace of its own. It answers calls until the context is left."""

    def __init__(self, pid: int, to_child: int, from_child: int) -> None:
        self.pid = pid
        self._to_child, self._from_child = to_child, from_child

    def tell(self, text: str) -> str:
        """Send one line, and wait for one line."""
        os.write(self._to_child, text.encode() + b"\n")
        return read_line(self._from_child)


def read_line(descriptor: int) -> str:
    """One line from a pipe; empty at its end."""
    data = b""
    while not data.endswith(b"\n") and (byte := os.read(descriptor, 1)):
        data += byte
    return data.decode().rstrip("\n")


@contextmanager
def new_namespace(answer: Callable[[str], str], *, linger: float = 0.0) -> Iterator[Namespace]:
    """A child process in a new namespace. It answers each line with `answer(line)`, and is killed on leaving.

    When its parent is killed, it ends `linger` seconds later: a router must still forward the packets that close the
    connections of its hosts.

    Call it from a process without threads. Raises OSError if this process may not create a namespace.
    """
    to_child, from_parent = os.pipe()
    from_child, to_parent = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(from_parent)
        os.close(from_child)
        _serve(answer, to_child, to_parent, parent, linger)
    os.close(to_child)
    os.close(to_parent)
    try:
        made = read_line(from_child)
        if made != "ready":
            raise OSError(made or "no network namespace could be made")
        yield Namespace(pid, from_parent, from_child)
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(from_parent)
        os.close(from_child)


def _end_later(linger: float, _number: int, _frame: FrameType | None) -> NoReturn:
    time.sleep(linger)
    os._exit(1)


def _serve(answer: Callable[[str], str], heard: int, said: int, parent: int, linger: float) -> NoReturn:
    status = 1
    try:
        if linger:
            signal.signal(signal.SIGTERM, partial(_end_later, linger))
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM if linger else signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        if _libc.unshare(CLONE_NEWNET) != 0:
            os.write(said, os.strerror(ctypes.get_errno()).encode() + b"\n")
            os._exit(1)
        os.write(said, b"ready\n")
        while line := read_line(heard):
            os.write(said, answer(line).encode() + b"\n")
        status = 0
    except BaseException:  # noqa: BLE001 - a forked child must not return into its parent's code
        traceback.print_exc()
    finally:
        os._exit(status)
