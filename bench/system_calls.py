"""The system calls of a session with one message in a worker: `accept` of `instructions` under strace(1).

.venv/bin/python -m bench.system_calls
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

FEW, MANY = 10, 60
"""Sessions of the two runs: their difference is counted, so start and end of the program cost nothing."""

EVENT_LOOP = ("epoll_", "io_uring_")
"""Calls that wait for events: how many there are depends on the kernel, and on what comes at the same time."""


def system_calls() -> dict[str, float]:
    """By name, how many a session takes, without those of the event loop. One session after the other."""
    few, many = _counted(FEW), _counted(MANY)
    each = {name: (many[name] - few[name]) / (MANY - FEW) for name in many}
    return {name: calls for name, calls in each.items() if calls >= 0.1 and not name.startswith(EVENT_LOOP)}


def _counted(sessions: int) -> Counter[str]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "calls"
        command = [sys.executable, "-m", "bench.instructions", "--run", "accept", str(sessions)]
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        subprocess.run(["strace", "-c", "-o", out, *command], check=True, env=environment, stdout=subprocess.DEVNULL)
        rows = re.findall(r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+) +(?:\d+ +)?([a-z]\w*)$", out.read_text(), re.MULTILINE)
    return Counter({name: int(calls) for calls, name in rows if name != "total"})


if __name__ == "__main__":
    found = system_calls()
    for called, times in sorted(found.items(), key=lambda pair: -pair[1]):
        print(f"{times:6.2f} {called}")
    print(f"{sum(found.values()):6.2f} together")
