"""Whether memory and descriptors stay as they are, at full rate through a chain of three filters.

    .venv/bin/python -m proxsmtp_tp.lab.isolate .venv/bin/python -m bench.flat_memory --minutes 10

The chain is a milter (the real libmilter), `cat` as a worker and clamd; 20 sessions of smtp-source send without pause.
Messages have 1 kB, each tenth run 200 kB: larger than what a message keeps in memory. Memory (VmRSS), descriptors and
processes of the daemon are looked at each second: of its own processes, and of all that it has started.

The first third is the time to reach its size: caches, the interpreter's arenas, processes that are kept. Then the
median of the last third may be larger than that of the second by MORE_MEMORY and MORE_DESCRIPTORS. The exit status says
so, too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from bench.plan import PURE
from bench.processes import tree
from bench.scanners import accepting_milter, clamd
from bench.subjects import LONG_WAIT, TREE, Build, Form, Setting, ours, sink, worker_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.subjects import Subject

MORE_MEMORY = 1.03
MORE_DESCRIPTORS = 5
"""What the last third may have more: a median of open connections differs by a few."""
_OF_A_PROCESS = 4
RUN, LARGE = 200, 20
"""Messages of one run of smtp-source: small ones, large ones."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What was measured at one moment: kilobytes and descriptors of the daemon, kilobytes and number of the processes
    of filters.

    The descriptors of each such process (three pipes, a pidfd) are not among them: their number goes up and down.
    """

    seconds: float
    memory: int
    descriptors: int
    filters_memory: int
    filters: int
    messages: int


class Load:
    """Sends from a thread of its own. `failed`: the error of smtp-source."""

    def __init__(self, port: int) -> None:
        self.messages = 0
        self.failed = ""
        self._port = port
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _send(self) -> None:
        number = 0
        while not self._end.is_set() and not self.failed:
            number += 1
            messages, size = (LARGE, 200_000) if number % 10 == 0 else (RUN, 1000)
            command = ["smtp-source", "-d", "-s", "20", "-m", str(messages), "-l", str(size),
                       "-f", "a@example.org", "-t", "b@example.org", f"127.0.0.1:{self._port}"]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            self.messages += messages
            if done.returncode:
                self.failed = done.stderr or f"exit status {done.returncode}"


def sample(subject: Subject, began: float, messages: int) -> Sample:
    """Now."""
    own = [subject.pid, *map(int, Path(f"/proc/{subject.pid}/task/{subject.pid}/children").read_text().split())]
    filters = set(tree(subject.pid)) - set(own)
    return Sample(
        round(time.monotonic() - began, 1),
        sum(map(_memory, own)),
        sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in own) - _OF_A_PROCESS * len(filters),
        sum(map(_memory, filters)),
        len(filters),
        messages,
    )


def _memory(pid: int) -> int:
    """Kilobytes (proc_pid_status(5)); 0 of a process that has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    return 0


def sampled(subject: Subject, seconds: float) -> Iterator[Sample]:
    """Take a sample each second, while messages are sent. Raises RuntimeError if a message is refused."""
    began = time.monotonic()
    with Load(subject.port) as load:
        while (now := time.monotonic() - began) < seconds and not load.failed:
            time.sleep(1 - now % 1)
            yield sample(subject, began, load.messages)
    if load.failed:
        raise RuntimeError(f"smtp-source: {load.failed}")


def run(seconds: float) -> list[Sample]:
    """Start everything, and take the samples."""
    with tempfile.TemporaryDirectory(prefix="bench.") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        os.environ["RUNTIME_DIRECTORY"] = os.environ["STATE_DIRECTORY"] = name
        to = stack.enter_context(sink(folder)).port
        milter = stack.enter_context(accepting_milter(folder, "Python"))
        virus = stack.enter_context(clamd(folder))
        lines = (
            f"Filter: m milter {milter.sockets[0]} {LONG_WAIT}\n"
            f"{worker_line()}"
            f"Filter: v clamd {virus.sockets[0]} {LONG_WAIT}\n"
        )
        subject = stack.enter_context(ours(Setting(folder, to), Build(PURE, TREE), Form("chain", lines)))
        return list(sampled(subject, seconds))


def growth(samples: list[Sample]) -> dict[str, tuple[float, float]]:
    """For each value that is measured: the medians of the second and of the last third."""
    third = len(samples) // 3
    parts = samples[third : 2 * third], samples[2 * third :]
    names = ("memory", "descriptors", "filters_memory", "filters")
    return {name: tuple(statistics.median(getattr(each, name) for each in part) for part in parts) for name in names}


def flat(found: dict[str, tuple[float, float]]) -> bool:
    """Whether nothing of the daemon has grown."""
    memory, descriptors = found["memory"], found["descriptors"]
    return memory[1] <= memory[0] * MORE_MEMORY and descriptors[1] <= descriptors[0] + MORE_DESCRIPTORS


def main() -> int:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description="memory and descriptors at full rate with a chain of three filters")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--json", metavar="FILE", help="write all samples here")
    args = parser.parse_args()
    samples = run(args.minutes * 60)
    found = growth(samples)
    if args.json:
        rows = [{name: getattr(each, name) for name in Sample.__slots__} for each in samples]
        Path(args.json).write_text(json.dumps({"growth": found, "samples": rows}) + "\n")
    print(f"{samples[-1].messages} messages in {samples[-1].seconds:.0f} s, load {os.getloadavg()[0]:.1f}\n")
    print("| | median of the second third | of the last third |\n|---|---:|---:|")
    for name, (before, after) in found.items():
        print(f"| {name.replace('_', ' ')}{' (kB)' if 'memory' in name else ''} | {before:.0f} | {after:.0f} |")
    print("\nflat" if flat(found) else "\nIT GROWS")
    return 0 if flat(found) else 1


if __name__ == "__main__":
    sys.exit(main())
