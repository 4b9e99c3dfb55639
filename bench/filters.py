"""What a filter costs: messages a second and CPU time of a message for each type, beside Postfix with the same milter.

    make bench-filters                                                                                the table
    .venv/bin/python -m proxsmtp_tp.lab.isolate .venv/bin/python -m bench.filters --json results.json

All daemons run beside each other before one smtp-sink (Postfix), and get the same load of smtp-source in turn. Each
figure is the median of the rounds. For Postfix, which queues, the end is when the queue is empty again. CPU time is
that of the daemon, of Postfix with all its processes; beside it that of what judges: scanners, and the commands that
the daemon starts.

Goals, also of the exit status: one worker or one milter takes at least half of the rate without a filter; `cat` as a
worker at least five times the rate of `cat` as a pipe. The milter of the goal is in C: what one in Python takes is
mostly Python's own.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench.goals import Goal, spread
from bench.measuring import Measured, Pace, Pair, SmtpSource, estimate, measured
from bench.printing import cell, cpu_cell, of_pair, subjects, table, where
from bench.processes import allow_many_descriptors
from bench.result import Result, about
from bench.run import builds, missing, say, work_folder
from bench.scanners import accepting_milter, clamd, rspamd
from bench.subjects import LONG_WAIT, Form, Setting, ours, postfix, sink, worker_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.subjects import Subject

NONE, PIPE, WORKER = "no filter", "pipe, `cat`", "worker, `cat`"
MILTER, PYTHON_MILTER = "milter that accepts, in C", "milter that accepts, in Python"
NEEDED = ("smtp-source", "smtp-sink", "postfix", "rspamd", "clamd", "cc")


@contextlib.contextmanager
def all_subjects(folder: Path) -> Iterator[list[Subject]]:
    """All subjects, running."""
    with contextlib.ExitStack() as stack:
        at = Setting(folder, stack.enter_context(sink(folder)).port)
        libmilter = stack.enter_context(accepting_milter(folder, "C"))
        python = stack.enter_context(accepting_milter(folder, "Python"))
        virus = stack.enter_context(clamd(folder))
        spam = stack.enter_context(rspamd(folder))
        forms = (
            Form(NONE),
            Form(PIPE, "Filter: cat pipe cat\n"),
            Form(WORKER, worker_line()),
            Form(MILTER, f"Filter: m milter {libmilter.sockets[0]} {LONG_WAIT}\n", libmilter.pid),
            Form(PYTHON_MILTER, f"Filter: m milter {python.sockets[0]} {LONG_WAIT}\n", python.pid),
            Form("rspamd by milter", f"Filter: m milter {spam.sockets[1]} {LONG_WAIT}\n", spam.pid),
            Form("rspamd by HTTP", f"Filter: s rspamd {spam.sockets[0]} {LONG_WAIT}\n", spam.pid),
            Form("clamd", f"Filter: v clamd {virus.sockets[0]} {LONG_WAIT}\n", virus.pid),
        )
        build = builds(None)[0]
        found = [stack.enter_context(ours(at, build, form)) for form in forms]
        others = {
            "Postfix, no filter": None,
            "Postfix, milter that accepts, in C": libmilter,
            "Postfix, milter that accepts, in Python": python,
            "Postfix, rspamd by milter": spam,
        }
        yield found + stack.enter_context(postfix(folder / "postfix", at.to, others))


def measure(load: SmtpSource, pace: Pace) -> Measured:
    """All subjects with one load."""
    with work_folder() as folder, all_subjects(folder) as found:
        pairs = [Pair(subject, load) for subject in found]
        say(f"{len(pairs)} rates, about {estimate(pairs, pace):.0f} s")
        return measured(pairs, pace)


def goals(result: Result, load: str) -> list[Goal]:
    """Those whose figures were measured."""
    found = []
    for above, below, least in ((WORKER, NONE, 0.5), (MILTER, NONE, 0.5), (WORKER, PIPE, 5.0)):
        rates = [spread(result, name, load) for name in (above, below)]
        if rates[0] is not None and rates[1] is not None:
            found.append(Goal(f"{above} / {below}", rates[0].median / rates[1].median, least))
    return found


def text(result: Result, load: str) -> str:
    """The table and the goals."""
    rows = []
    for name in subjects(result, [load]):
        samples = of_pair(result, name, load)
        rows.append([name, cell(spread(result, name, load)), cpu_cell(samples), cpu_cell(samples, judging=True)])
    head = ["filter", "messages a second", "CPU time of the daemon, user + system, µs", "of what judges"]
    return "\n\n".join([table(head, rows), "\n".join(goal.line() for goal in goals(result, load))])


def main(given: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description="messages a second and CPU time of a message, by filter type")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a sample")
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--size", type=int, default=1000, help="octets of a message")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write each sample here, too")
    args = parser.parse_args(given)
    if reason := missing(NEEDED):
        print(reason, file=sys.stderr)
        return 1
    allow_many_descriptors()
    load = SmtpSource(str(args.sessions), args.sessions, args.size)
    result = Result(about({**vars(args), "json": str(args.json)}))
    say(f"{where(result.about)}\nmessages of {args.size} octets, {args.sessions} sessions, {args.rounds} rounds\n")
    result.add(measure(load, Pace(args.rounds, args.seconds, say)))
    print(text(result, load.name))
    if args.json:
        result.write(args.json)
    reached = goals(result, load.name)
    return 0 if len(reached) == 3 and all(goal.reached for goal in reached) else 1


if __name__ == "__main__":
    sys.exit(main())
