"""Rates, CPU time and latency of this project and its peers, side by side in one run.

    make bench                        the tables of README.md, and the result as a file
    make bench QUICK=1                each figure once, from a short sample; README.md stays as it is
    .venv/bin/python -m bench.run --help

bench/README.md says what each figure means.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench import latency, measuring, plan, tls
from bench.measuring import Pace, Pair
from bench.printing import MarksError, readme_text, where, whole, write_readme
from bench.processes import allow_many_descriptors, end_in_order
from bench.result import Result, ResultError, about, read
from bench.subjects import ORIGINAL, TREE, Build, Subject

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.tls_peers import How

PARTS = ("rates", "latency", "tls")
README = TREE / "README.md"
USERS = Path("/proc/self/uid_map")
"""user_namespaces(7)"""
NEEDED = ("smtp-source", "smtp-sink", "postfix", "haproxy", "openssl", "cc", str(ORIGINAL))
_STARTS = 10.0
"""Seconds until all subjects run."""


def say(line: str) -> None:
    """Print what is being done: on standard error, so that the tables can be redirected."""
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def work_folder() -> Iterator[Path]:
    """For configurations, logs, sockets and spools. Daemons of other users enter it."""
    with tempfile.TemporaryDirectory(prefix="bench.") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def missing(needed: Sequence[str]) -> str:
    """Why the bench cannot run here; "" if it can."""
    if os.geteuid() != 0 or USERS.read_text().split()[2] == "1":  # root of a user namespace has no other user
        return "run it as root: Postfix and smtp-sink change their user"
    absent = [tool for tool in needed if shutil.which(tool) is None]
    return f"missing: {', '.join(absent)}: run .ci/packages bench" if absent else ""


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description="rates, CPU time and latency of this project and its peers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5, help="of a sample")
    parser.add_argument("--quick", action="store_true", help="one round of short samples")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--only", default="", help="subjects whose name contains this")
    parser.add_argument("--loads", nargs="+", default=[], help="only these: 20, new sessions, commands ...")
    parser.add_argument("--compiled", type=Path, metavar="FOLDER", help="that holds the compiled package")
    parser.add_argument("--json", type=Path, metavar="FILE", default=TREE / "build/bench/result.json")
    parser.add_argument("--readme", action="store_true", help="write the tables into README.md")
    parser.add_argument("--stored", type=Path, metavar="FILE", help="measure nothing: the result of this file")
    args = parser.parse_args(given)
    if args.quick:
        args.rounds, args.seconds = 1, 0.3
    if args.readme and (args.quick or args.only or args.loads or tuple(args.parts) != PARTS):
        parser.error("--readme needs the whole run")
    return args


def builds(compiled: Path | None) -> list[Build]:
    """The builds of this tree; the compiled one is in build/compiled. Raises RuntimeError if one is not of its kind."""
    native = any((TREE / "proxsmtp_tp/session").glob("session.*.so"))
    found = [Build(plan.COMPILED if native else plan.PURE, TREE, compiled=native)]
    if compiled is not None:
        found.append(Build(plan.COMPILED, compiled.resolve(), compiled=True))
    for each in found:
        each.check()
    return found


def measure(args: argparse.Namespace) -> Result:
    """Measure all parts that are wanted."""
    forms = builds(args.compiled)
    options = {
        "rounds": args.rounds,
        "seconds": args.seconds,
        "parts": [*args.parts],
        "builds": [each.name for each in forms],
    }
    result = Result(about(options))
    say(where(result.about))
    with work_folder() as folder:
        os.environ["RUNTIME_DIRECTORY"] = os.environ["STATE_DIRECTORY"] = str(folder)
        if {"rates", "latency"} & {*args.parts}:
            with plan.subjects(folder, forms) as found:
                _rates_and_latency(args, result, folder, found)
        if "tls" in args.parts:
            (folder / "tls").mkdir(mode=0o755)
            with tls.subjects(folder / "tls", forms) as of:
                _tls(args, result, [each for each in of if args.only in each[0].name])
    return result


def _rates_and_latency(args: argparse.Namespace, result: Result, folder: Path, found: dict[str, Subject]) -> None:
    pace = Pace(args.rounds, args.seconds, say)
    pairs = [pair for pair in plan.pairs(found) if "rates" in args.parts and _wanted(args, pair)]
    late = [each for each in plan.for_latency(found) if args.only in each.name and "latency" in args.parts]
    say(f"{len(pairs)} rates, about {measuring.estimate(pairs, pace):.0f} s")
    say(f"latency of {len(late)} subjects, about {latency.estimate(len(late), pace):.0f} s")
    result.add(measuring.measured(pairs, pace))
    if late:
        say("latency")
        sender = latency.OpenLoop(latency.compiled_sender(folder))
        times = latency.measured(sender, found[plan.DIRECT], late, pace)
        result.latencies, result.highest = times.samples, times.highest
        result.failures += times.failures


def _wanted(args: argparse.Namespace, pair: Pair) -> bool:
    return args.only in pair.subject.name and (not args.loads or pair.load.name in args.loads)


def _tls(args: argparse.Namespace, result: Result, of: list[tuple[Subject, How]]) -> None:
    pace = Pace(args.rounds, args.seconds, say)
    pairs = [pair for pair in tls.pairs(of) if _wanted(args, pair)]
    say(f"TLS: {len(pairs)} rates, about {measuring.estimate(pairs, pace) + 2 * len(of):.0f} s")
    result.memories += [tls.memory(subject, how) for subject, how in of]
    result.add(measuring.measured(pairs, pace))


def main(given: Sequence[str] | None = None) -> int:
    """Measure and print."""
    args = arguments(given)
    try:
        if args.stored:
            result = read(args.stored)
        elif reason := missing(NEEDED):
            print(reason, file=sys.stderr)
            return 1
        else:
            allow_many_descriptors()
            end_in_order()
            began = time.monotonic()
            result = measure(args)
            result.write(args.json)
            say(f"{time.monotonic() - began:.0f} s; each sample of each round is in {args.json}\n")
        print(whole(result))
        if args.readme and (undone := [each for each in result.failures if each.subject == measuring.ALL]):
            raise RuntimeError(f"README.md stays as it is: {undone[0].load}: {undone[0].reason}")
        if args.readme:
            write_readme(README, readme_text(result))
    except (ResultError, MarksError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
