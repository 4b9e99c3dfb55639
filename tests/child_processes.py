"""The processes that this process has started and not reaped, zombies included."""

from __future__ import annotations

from pathlib import Path


def child_processes() -> set[int]:
    """Their ids (proc_pid_task_children(5))."""
    while True:
        try:
            return {int(pid) for task in _tasks() for pid in (task / "children").read_text().split()}
        except (FileNotFoundError, ProcessLookupError):
            continue  # a thread has just ended: its children are now those of another thread


def _tasks() -> list[Path]:
    return list(Path("/proc/self/task").iterdir())
