"""The processes that this process has started and not reaped, zombies included."""

from __future__ import annotations

from pathlib import Path

_earlier: set[int] = set()


def child_processes() -> set[int]:
    """The ids of those that this test has started."""
    return _all() - _earlier


def a_test_begins() -> None:
    """Processes that a failed test has left do not count for the next test."""
    _earlier.clear()
    _earlier.update(_all())


def _all() -> set[int]:
    """See proc_pid_task_children(5)."""
    while True:
        try:
            return {int(pid) for task in _tasks() for pid in (task / "children").read_text().split()}
        except (FileNotFoundError, ProcessLookupError):
            continue  # a thread has just ended: its children are now those of another thread


def _tasks() -> list[Path]:
    return list(Path("/proc/self/task").iterdir())
