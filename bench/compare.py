"""Two revisions of this project beside each other in one run, and whether they differ by more than noise.

    make bench-compare BASE=REVISION [COMPILED=1] [QUICK=1]
    .venv/bin/python -m proxsmtp_tp.lab.isolate .venv/bin/python -m bench.compare --help

The base is checked out into a temporary folder, which is removed at the end, also after an interrupt. It is compared
with the tree as it is now, with all changes. Both run with the packages of this environment.

Both get each load in turn, in each round one directly after the other, so that what else the machine does hits both.
The difference is the median over such pairs of samples. Its interval contains the true median in 95 of 100 runs
(`figures.median_interval`); where it contains 0, the same revision twice could have shown this: within the noise.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench import measuring, plan
from bench.figures import FEWEST_ROUNDS, Difference
from bench.goals import cpu_of
from bench.measuring import Measured, Pace, Pair, SmtpSource
from bench.printing import number, of_pair, table, where
from bench.processes import allow_many_descriptors, end_in_order
from bench.result import Result, about, commit
from bench.run import missing, say, work_folder
from bench.subjects import TREE, Build, Form, Setting, ours, sink

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.subjects import Subject

NEEDED = ("smtp-source", "smtp-sink", "git")
COMPILE = """
import pathlib, sys
from tools.compile_core import compile_core
tree = pathlib.Path.cwd()
compile_core(tree, tree, pathlib.Path(sys.argv[1]))
"""
"""What the revision itself says about how it is compiled is done, in its own folder."""


class RevisionError(Exception):
    """A revision cannot be checked out or compiled. The text says why."""


@dataclass(frozen=True, slots=True)
class Way:
    """What is compared: a load through one configuration. The load's name is that of both."""

    load: SmtpSource
    lines: str = ""

    @property
    def name(self) -> str:
        """Its name in the table."""
        return self.load.name


WAYS = (
    Way(SmtpSource("20 sessions", 20)),
    Way(SmtpSource("new sessions", 20, keep=False)),
    Way(SmtpSource("10 MB messages", 4, size=10_000_000)),
    Way(SmtpSource("`cat`, 20 sessions", 20), plan.CAT_LINE),
)


def check_out(repository: Path, revision: str, folder: Path) -> None:
    """Copy the files of a revision into a folder. Raises RevisionError."""
    command = ["git", "-C", str(repository), "archive", "--format=tar", f"{revision}^{{tree}}"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise RevisionError(f"BASE={revision}: {done.stderr.decode(errors='replace').strip()}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")


def compile_tree(tree: Path, work: Path) -> None:
    """Compile a revision's core in its folder. Raises RevisionError."""
    if not (tree / "tools/compile_core.py").exists():
        raise RevisionError("this revision is from before `make compiled`: compare without COMPILED=1")
    say("compiling the base: a minute or more")
    command = [sys.executable, "-c", COMPILE, str(work)]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RevisionError(f"{tree} cannot be compiled:\n{(done.stdout + done.stderr)[-3000:]}")


@contextlib.contextmanager
def builds(repository: Path, base: str, compiled: Path | None) -> Iterator[tuple[Build, Build]]:
    """The base, and the tree as it is now; with `compiled`, the folder of its compiled copy. Raises RevisionError."""
    with work_folder() as folder:
        old, now = folder / "base", repository if compiled is None else compiled
        old.mkdir()
        check_out(repository, base, old)
        if compiled is not None:
            compile_tree(old, folder / "work")
        native = compiled is not None
        both = Build("base", old.resolve(), compiled=native), Build("now", now.resolve(), compiled=native)
        for each in both:
            each.check()
        yield both


def measured(both: Sequence[Build], ways: Sequence[Way], pace: Pace) -> Measured:
    """Measure both; the samples of a revision have its name."""
    with work_folder() as folder, contextlib.ExitStack() as stack:
        at = Setting(folder, stack.enter_context(sink(folder)).port)
        subjects: dict[tuple[str, str], Subject] = {}
        for build in both:
            for lines in dict.fromkeys(way.lines for way in ways):
                subjects[build.name, lines] = stack.enter_context(ours(at, build, Form(build.name, lines)))
        pairs = [Pair(subjects[build.name, way.lines], way.load) for way in ways for build in both]
        say(f"{len(pairs)} figures, {pace.rounds} rounds, about {measuring.estimate(pairs, pace):.0f} s")
        return measuring.measured(pairs, pace)


def differences(result: Result, way: Way) -> list[tuple[str, Difference, bool]]:
    """Of one way: the figure, by how much it differs, and whether more is better. None where a sample failed."""
    base, now = (of_pair(result, name, way.name) for name in ("base", "now"))
    if len(base) != len(now) or len(base) < FEWEST_ROUNDS:
        return []
    found = [("messages a second", [each.rate for each in base], [each.rate for each in now], True)]
    found.append(("CPU time of a message, µs", list(map(cpu_of, base)), list(map(cpu_of, now)), False))
    return [(name, Difference.of(before, after), more) for name, before, after, more in found if all(before)]


def verdict(difference: Difference, *, more_is_better: bool) -> str:
    """The difference in words."""
    if difference.within_noise:
        return "within the noise"
    return "better" if (difference.percent.median > 0) is more_is_better else "WORSE"


def text(result: Result, ways: Sequence[Way]) -> str:
    """The table, and what could not be measured."""
    rows = []
    for way in ways:
        for name, found, more in differences(result, way):
            percent = found.percent
            rows.append([
                f"{way.name}: {name}", number(found.base), number(found.now), f"{percent.median:+.1f} %",
                f"{percent.low:+.1f} to {percent.high:+.1f} %", verdict(found, more_is_better=more),
            ])  # fmt: skip
    head = ["", "base", "now", "difference", "its interval", "verdict"]
    failed = [f"failed: {each.subject}: {each.load}: {each.reason}" for each in result.failures]
    return "\n".join([table(head, rows), *failed])


def compare(repository: Path, args: argparse.Namespace) -> Result:
    """Measure both. Raises RevisionError."""
    options = {"base": args.base, "base_commit": commit(args.base, repository), "rounds": args.rounds,
               "seconds": args.seconds, "compiled": args.compiled is not None}  # fmt: skip
    result = Result(about(options, repository))
    say(f"base: {options['base_commit']}. now: {where(result.about)}")
    with builds(repository, args.base, args.compiled) as both:
        result.add(measured(both, wanted(args.only), Pace(args.rounds, args.seconds, say)))
    return result


def wanted(only: str) -> list[Way]:
    """Those whose name contains this."""
    return [way for way in WAYS if only in way.name]


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description="two revisions of this project beside each other")
    parser.add_argument("--base", required=True, metavar="REVISION")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a sample")
    parser.add_argument("--quick", action="store_true", help=f"{FEWEST_ROUNDS} rounds of short samples")
    parser.add_argument("--compiled", type=Path, metavar="FOLDER", help="of `make compiled`; compile the base, too")
    parser.add_argument("--only", default="", help="what contains this: " + ", ".join(way.name for way in WAYS))
    parser.add_argument("--json", type=Path, metavar="FILE", default=TREE / "build/bench/compare.json")
    args = parser.parse_args(given)
    if args.quick:
        args.rounds, args.seconds = FEWEST_ROUNDS, 0.3
    if args.rounds < FEWEST_ROUNDS:
        parser.error(f"--rounds: at least {FEWEST_ROUNDS}, or no interval can be given")
    if not wanted(args.only):
        parser.error(f"--only: nothing contains {args.only!r}")
    return args


def main(given: Sequence[str] | None = None, repository: Path = TREE) -> int:
    """Measure and print."""
    args = arguments(given)
    if reason := missing(NEEDED):
        print(reason, file=sys.stderr)
        return 1
    allow_many_descriptors()
    end_in_order()
    try:
        result = compare(repository, args)
    except (RevisionError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    result.write(args.json)
    print(text(result, wanted(args.only)))
    say(f"each sample of each round is in {args.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
