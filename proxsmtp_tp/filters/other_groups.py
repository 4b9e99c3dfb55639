"""Processes that left their process group, and not their session: a signal to the group does not reach them.

timeout(1) and shells with job control (set -m) put what they start into groups of its own. Nobody means by that to
outlive the message; setsid(2) is how a script says so, and whoever has called it is left alone.

They are found below the leader, parent by child (proc_pid_task_children(5)), when a child must be ended: that costs
a normal message nothing. Who has lost its parent before is not found; who was found once is remembered.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

MOST = 256
"""Processes of one command that are looked at: more than scripts have, and 20 ms of work."""


class _Process(NamedTuple):
    group: int
    session: int
    born: int
    """In clock ticks: what tells it from a later process of the same number."""


class OtherGroups:
    """Those of the session whose leader is the process `leader`, which is not reaped yet."""

    def __init__(self, leader: int) -> None:
        self._leader = leader
        self._known: dict[int, _Process] = {}

    def look(self) -> None:
        """Find those that there are now. Before a signal: who has lost its parent by it is not found any more."""
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
        """Send to each that was found and is still there."""
        for pid, known in self._known.items():
            with suppress(OSError):  # it is gone, or one that only root may end
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
    """proc_pid_stat(5): pgrp (5), session (6), starttime (22); the name before them may hold anything."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return _Process(int(fields[2]), int(fields[3]), int(fields[19]))
