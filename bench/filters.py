"""What a filter costs: messages a second and CPU time of a message for each type, beside Postfix with the same milter.

    make bench-filters                                                                                the table
    .venv/bin/python -m proxsmtp_tp.lab.isolate .venv/bin/python -m bench.filters --json results.json

All daemons run beside each other before one smtp-sink (Postfix), and get the same load of smtp-source in turn, so what
else the machine does hits all of them. A rate is that of the quickest round, CPU time that of the cheapest round: what
else the machine does only ever makes them worse. For Postfix, which queues, the end is when the queue is empty again.
CPU time is that of the daemon, of Postfix with all its processes; beside it that of what judges: scanners, and the
commands that the daemon starts.

Goals, also of the exit status: one worker or one milter takes at least half of the rate without a filter; `cat` as a
worker at least five times the rate of `cat` as a pipe. The milter of the goal is in C: what one in Python takes is
mostly Python's own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.filter_subjects import accepting_milter, clamd, ours, postfix, rspamd, sink, worker_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.filter_subjects import Subject

NONE, PIPE, WORKER = "no filter", "pipe, `cat`", "worker, `cat`"
MILTER, PYTHON_MILTER = "milter that accepts, in C", "milter that accepts, in Python"
SLOW = {PIPE: 5}
"""Subjects that get a part of the messages."""
NEEDED = ("smtp-source", "smtp-sink", "postfix", "rspamd", "clamd")


@dataclass
class Figures:
    """Of one subject: messages a second in each round; CPU microseconds of a message."""

    rates: list[float] = field(default_factory=list)
    daemon: list[float] = field(default_factory=list)
    scanner: list[float] = field(default_factory=list)

    def best(self) -> dict[str, float]:
        """The quickest round, and the cheapest."""
        cheapest = min(range(len(self.daemon)), key=lambda at: self.daemon[at] + self.scanner[at])
        return {
            "messages_per_second": round(max(self.rates), 1),
            "daemon_cpu_us": round(self.daemon[cheapest]),
            "scanner_cpu_us": round(self.scanner[cheapest]),
        }


def send(subject: Subject, messages: int, sessions: int, size: int) -> float:
    """Seconds until so many messages have left the subject."""
    command = ["smtp-source", "-d", "-s", str(sessions), "-m", str(messages), "-l", str(size),
               "-f", "a@example.org", "-t", "b@example.org", f"127.0.0.1:{subject.port}"]  # fmt: skip
    began = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=600)
    while subject.queue is not None and any(_holds(subject.queue / each) for each in ("incoming", "active")):
        time.sleep(0.02)
    return time.monotonic() - began


def _holds(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(entry.is_file() for entry in entries)


@contextlib.contextmanager
def subjects(folder: Path) -> Iterator[list[Subject]]:
    """All of them, ready."""
    with contextlib.ExitStack() as stack:
        to = stack.enter_context(sink())
        libmilter = stack.enter_context(accepting_milter(folder, "C"))
        python = stack.enter_context(accepting_milter(folder, "Python"))
        virus = stack.enter_context(clamd(folder))
        spam = stack.enter_context(rspamd(folder))
        chains = (
            (NONE, "", 0),
            (PIPE, "Filter: cat pipe cat\n", 0),
            (WORKER, worker_line(), 0),
            (MILTER, f"Filter: m milter {libmilter.sockets[0]}\n", libmilter.pid),
            (PYTHON_MILTER, f"Filter: m milter {python.sockets[0]}\n", python.pid),
            ("rspamd by milter", f"Filter: m milter {spam.sockets[1]}\n", spam.pid),
            ("rspamd by HTTP", f"Filter: s rspamd {spam.sockets[0]}\n", spam.pid),
            ("clamd", f"Filter: v clamd {virus.sockets[0]}\n", virus.pid),
        )
        found = [stack.enter_context(ours(folder, name, to, lines, scanner=pid)) for name, lines, pid in chains]
        others = {
            "Postfix, no filter": None,
            "Postfix, milter that accepts, in C": libmilter,
            "Postfix, milter that accepts, in Python": python,
            "Postfix, rspamd by milter": spam,
        }
        found += stack.enter_context(postfix(folder / "postfix", to, others))
        yield found


def measured(rounds: int, messages: int, sessions: int, size: int) -> dict[str, Figures]:
    """By subject, in the order of the table."""
    found: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory(prefix="bench.") as name:
        Path(name).chmod(0o755)
        os.environ["RUNTIME_DIRECTORY"] = os.environ["STATE_DIRECTORY"] = name
        with subjects(Path(name)) as all_:
            for each in all_:
                send(each, max(messages // 10, sessions), sessions, size)  # caches; processes that are kept
                found[each.name] = Figures()
            for number in range(rounds):
                start = number % len(all_)
                for each in all_[start:] + all_[:start]:
                    _round(each, found[each.name], messages // SLOW.get(each.name, 1), sessions, size)
    return found


def _round(subject: Subject, figures: Figures, messages: int, sessions: int, size: int) -> None:
    before = subject.seconds()
    figures.rates.append(messages / send(subject, messages, sessions, size))
    after = subject.seconds()
    figures.daemon.append((after[0] - before[0]) / messages * 1e6)
    figures.scanner.append((after[1] - before[1]) / messages * 1e6)


def goals(best: dict[str, dict[str, float]]) -> dict[str, tuple[float, float]]:
    """By goal: what was measured, and the least that it must be."""
    rate = {name: figures["messages_per_second"] for name, figures in best.items()}
    return {
        "worker / no filter": (rate[WORKER] / rate[NONE], 0.5),
        "milter / no filter": (rate[MILTER] / rate[NONE], 0.5),
        "worker / pipe": (rate[WORKER] / rate[PIPE], 5.0),
    }


def show(best: dict[str, dict[str, float]]) -> None:
    """The table and the goals."""
    print("| filter | messages a second | CPU time of the daemon | of what judges |\n|---|---:|---:|---:|")
    for name, figures in best.items():
        scanner = f"{figures['scanner_cpu_us']:.0f} us" if figures["scanner_cpu_us"] else ""
        print(f"| {name} | {figures['messages_per_second']:.0f} | {figures['daemon_cpu_us']:.0f} us | {scanner} |")
    print()
    for name, (value, least) in goals(best).items():
        print(f"{name}: {value:.2f}, at least {least:g}: {'reached' if value >= least else 'MISSED'}")


def machine() -> dict[str, Any]:
    """Where and what was measured."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "commit": commit.stdout.strip(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "processor": model[0].partition(":")[2].strip() if model else platform.machine(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
    }


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description="messages a second and CPU time of a message, by filter type")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--messages", type=int, default=2000, help="in each round; a pipe gets a fifth")
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--size", type=int, default=1000, help="octets of a message")
    parser.add_argument("--json", metavar="FILE", help="write the figures here, too")
    args = parser.parse_args()
    if missing := [tool for tool in NEEDED if shutil.which(tool) is None]:
        print(f"missing: {', '.join(missing)}: run .ci/packages bench", file=sys.stderr)
        return 1
    known = machine()
    print(", ".join(f"{name} {value}" for name, value in known.items()), flush=True)
    print(f"{args.messages} messages of {args.size} octets a round, {args.sessions} sessions, {args.rounds} rounds\n")
    best = {
        name: figures.best() for name, figures in measured(args.rounds, args.messages, args.sessions, args.size).items()
    }
    show(best)
    reached = goals(best)
    if args.json:
        whole = {"machine": known, "load": vars(args), "figures": best, "goals": reached}
        Path(args.json).write_text(json.dumps(whole, indent=1) + "\n")
    return 0 if all(value >= least for value, least in reached.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
