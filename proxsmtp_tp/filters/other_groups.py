"""Processes of a command that are in another process group, but still in its session: a signal to the group misses
them.

timeout(1) and shells with job control (set -m) put their children into other groups. Such processes must end with the
message. A process that called setsid(2) may run longer, so it is not ended.

They are looked for only when a child must be ended, from the leader down, children of each process
(proc_pid_task_children(5)): so a normal message has no cost. A process whose parent has already ended is not found,
unless it was found before.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

MOST = 256
"""Processes of one command that are examined, at most: more than scripts have, and 20 ms of work."""


class _Process(NamedTuple):
    group: int
    session: int
    born: int
    """Start time in clock ticks: it differs for a later process with the same number."""


class OtherGroups:
    """The processes of the session of `leader`, a process that is not reaped yet."""

    def __init__(self, leader: int) -> None:
        self._leader = leader
        self._known: dict[int, _Process] = {}

    def look(self) -> None:
        """Find the processes that exist now. Call it before a signal: a process whose parent has ended is not found."""
        seen = {self._leader, *self._known}
        parents = list(seen)
        while parents:
            for pid in _children(parents.pop()) - seen:
                if len(seen) >= MOST:
                    return
                seen.add(pid)
                process = _look_at(pid)
                if process is not None and process.session == self._leader:
                    parents.append(pid)
                    if process.group != self._leader:
                        self._known[pid] = process

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to each process that was found and still exists."""
        for pid, known in self._known.items():
            with suppress(OSError):  # it has ended, or only root may end it
                descriptor = os.pidfd_open(pid)
                try:
                    found = _look_at(pid)
                    if found is not None and found.born == known.born:
                        signal.pidfd_send_signal(descriptor, number)
                finally:
                    os.close(descriptor)


def _children(pid: int) -> set[int]:
    found: set[int] = set()
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found.update(map(int, (thread / "children").read_bytes().split()))
    return found


def _look_at(pid: int) -> _Process | None:
    """proc_pid_stat(5): pgrp (5), session (6), starttime (22); the name before them may have any characters."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return _Process(int(fields[2]), int(fields[3]), int(fields[19]))
