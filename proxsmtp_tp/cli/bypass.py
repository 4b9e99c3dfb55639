"""proxsmtp-tp bypass: for a time mail passes without the filter, and is counted."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.cli.daemon import NoAnswerError, ask_daemon, complain
from proxsmtp_tp.cli.durations import duration
from proxsmtp_tp.cli.instances import add_options
from proxsmtp_tp.config.reader import printable
from proxsmtp_tp.service import bypass

if TYPE_CHECKING:
    import argparse


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `bypass`."""
    parser = subparsers.add_parser("bypass", help="let mail pass without the filter for a time")
    add_options(parser)
    parser.add_argument(
        "--for", metavar="TIME", type=duration, dest="seconds", help="how long, such as 30m; at most 7d"
    )
    parser.add_argument("--reason", metavar="TEXT", help="why: for status, doctor and the log")
    parser.add_argument("--end", action="store_true", help="end it now")
    parser.add_argument("--json", action="store_true", help="for programs: one JSON object")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """0: done, or shown. 1: the daemon does not answer, or refuses. 2: usage, or which instance?"""
    if problem := _usage(args):
        print(problem, file=sys.stderr)
        return 2
    given: dict[str, Any] = {"end": True} if args.end else {"seconds": args.seconds, "reason": args.reason}
    try:
        answer = ask_daemon(args, "bypass", **{name: value for name, value in given.items() if value is not None})
    except NoAnswerError as error:
        return complain(error)
    print(json.dumps(answer) if args.json else describe(answer))
    return 0


def _usage(args: argparse.Namespace) -> str | None:
    if args.end and (args.seconds is not None or args.reason is not None):
        return "--end takes neither --for nor --reason"
    if (args.seconds is None) is not (args.reason is None):
        return "write both: --for TIME, such as 30m, and --reason TEXT"
    return None


def describe(answer: dict[str, Any]) -> str:
    """For people."""
    if "passed" in answer:
        return f"the bypass is ended: {answer['passed']} messages passed unjudged; mail is judged again"
    if answer["bypass"] is None:
        return "no bypass: the filter judges mail"
    text = printable(bypass.describe(answer["bypass"]))
    if answer.get("kept") is False:
        text += "\nit cannot be kept over a restart of the daemon: the log says why"
    return text
