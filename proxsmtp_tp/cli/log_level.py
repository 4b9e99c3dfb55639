"""proxsmtp-tp log-level: changes how much the running daemon logs, and traces clients, without a restart."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.cli.daemon import NoAnswerError, ask_daemon, complain
from proxsmtp_tp.cli.durations import duration, shown
from proxsmtp_tp.cli.instances import add_options
from proxsmtp_tp.config.reader import printable

if TYPE_CHECKING:
    import argparse

_NAMES = ("errors", "warnings", "notices", "information", "everything")


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `log-level`."""
    parser = subparsers.add_parser("log-level", help="change how much the running daemon logs, or trace a client")
    parser.add_argument(
        "level",
        nargs="?",
        choices=["0", "1", "2", "3", "4", "default"],
        metavar="LEVEL",
        help="0 errors, 1 warnings, 2 notices, 3 information, 4 everything; default: as configured",
    )
    add_options(parser)
    parser.add_argument("--trace", metavar="NET", help="log the whole dialogue of clients in this network, or of one")
    parser.add_argument("--no-trace", metavar="NET", help="end a trace; all: every one")
    parser.add_argument(
        "--for", metavar="TIME", type=duration, dest="seconds", help="how long, such as 10m (a trace: 10m if not given)"
    )
    parser.add_argument("--json", action="store_true", help="for programs: one JSON object")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """0: done, or shown. 1: the daemon does not answer, or refuses. 2: which instance?"""
    given: dict[str, Any] = {"trace": args.trace, "end_trace": args.no_trace, "seconds": args.seconds}
    if args.level is not None:
        given["level"] = args.level if args.level == "default" else int(args.level)
    try:
        answer = ask_daemon(args, "log-level", **{name: value for name, value in given.items() if value is not None})
    except NoAnswerError as error:
        return complain(error)
    print(json.dumps(answer) if args.json else describe(answer))
    return 0


def describe(answer: dict[str, Any]) -> str:
    """For people."""
    level, left = int(answer["level"]), answer["left"]
    until = f", for another {shown(left)}; then {answer['default']}" if left is not None else ""
    lines = [f"log level {level}, {_NAMES[level]} (from {answer['source']}){until}"]
    lines += [f"tracing {traced['network']}, for another {shown(traced['left'])}" for traced in answer["traced"]]
    return "\n".join(printable(line) for line in lines)
