"""Processes of the bench: started, waited for, ended; their CPU time and memory (proc(5))."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_TICKS = os.sysconf("SC_CLK_TCK")
_SCHEDULED = 2
"""Of a clock's number: the time that the scheduler has counted (CPUCLOCK_SCHED in linux/posix-timers.h)."""
START = 120.0
"""Seconds for a daemon to take its first connection, on a busy machine."""
END = 30.0
"""Seconds for a daemon to end, before it is killed."""


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU time in seconds: in the program, and in the kernel for it."""

    user: float = 0.0
    system: float = 0.0

    def __add__(self, other: Cpu) -> Cpu:
        """The sum."""
        return Cpu(self.user + other.user, self.system + other.system)

    def __sub__(self, other: Cpu) -> Cpu:
        """The difference. Neither part is less than 0: what the division into parts took from one is in the other."""
        user, system = round(self.user - other.user, 6) + 0.0, round(self.system - other.system, 6) + 0.0
        return Cpu(max(user, 0.0) + min(system, 0.0), max(system, 0.0) + min(user, 0.0))


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def allow_many_descriptors() -> None:
    """Allow this process and all that it starts as many descriptors as root has allowed: 2,000 sessions are 4,000
    sockets."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def end_in_order() -> None:
    """SIGTERM ends this process as SIGINT does: what it has started and made is ended and removed."""

    def end(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)


@contextlib.contextmanager
def running(
    command: Sequence[str | Path],
    at: int | tuple[str, int],
    log: Path,
    *,
    greets: bool = True,
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon from the moment when it greets (or takes a connection) until the end of the block.

    `at`: a port of 127.0.0.1, or an address. Its output goes to `log`. Raises RuntimeError with the end of the log if
    it takes no connection.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
    try:
        wait_for(at, process, log, greets=greets)
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the whole process group; kill it if it does not end."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(END)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(at: int | tuple[str, int], process: subprocess.Popen[bytes], log: Path, *, greets: bool = True) -> None:
    """Wait until a daemon greets (or takes a connection). Raises RuntimeError with its log if it does not."""
    end = time.monotonic() + START
    while not _answers(("127.0.0.1", at) if isinstance(at, int) else at, greets=greets):
        if process.poll() is not None or time.monotonic() > end:
            said = log.read_text(errors="replace")[-3000:]
            raise RuntimeError(f"{process.args!r} takes no connection at {at}. It says:\n{said}")
        time.sleep(0.05)


def _answers(address: tuple[str, int], *, greets: bool) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(address, 5) as connected:
        if not greets:
            return True
        if connected.recv(100).startswith(b"220"):
            connected.sendall(b"QUIT\r\n")
            return True
    return False


def children(pid: int) -> list[int]:
    """The processes that a process has started, in any thread."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return []


def tree(pid: int) -> list[int]:
    """The process and all its descendants."""
    return [pid, *(each for child in children(pid) for each in tree(child))]


def forks(pid: int) -> list[int]:
    """The process and those in its tree that run the same command: a daemon's workers, without what they execute."""
    return [each for each in tree(pid) if _read(each, "cmdline") == _read(pid, "cmdline")]


def cpu_time(pid: int) -> Cpu:
    """CPU time of a process and of all its descendants, also of those that have ended."""
    return sum((_cpu(each, ended=True) for each in tree(pid)), Cpu())


def own_cpu_time(pid: int) -> Cpu:
    """CPU time of a daemon and its workers, without the commands that they execute."""
    return sum((_cpu(each, ended=False) for each in forks(pid)), Cpu())


def _cpu(pid: int, *, ended: bool) -> Cpu:
    """CPU time of one process; with that of its children that have ended and that it has waited for. 0 if it has ended.

    proc_pid_stat(5) has ticks of 10 ms, cut off. The clock of the process has both parts together in nanoseconds
    (clock_getcpuclockid(3)), so only how they are divided is that coarse.
    """
    stat = _read(pid, "stat")
    with contextlib.suppress(OSError):
        both = time.clock_gettime((~pid << 3) | _SCHEDULED)
        _, system, *of_ended = (int(each) / _TICKS for each in stat.rpartition(b")")[2].split()[11:15])
        own = Cpu(both - system, system)
        return own + Cpu(*of_ended) if ended else own
    return Cpu()


def memory(pid: int) -> int:
    """KiB of a process and all its descendants; a page that several share counts once (Pss)."""
    lines = (line.split() for each in tree(pid) for line in _read(each, "smaps_rollup").splitlines())
    return sum(int(words[1]) for words in lines if words[0] == b"Pss:")


def _read(pid: int, name: str) -> bytes:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/{name}").read_bytes()
    return b""
