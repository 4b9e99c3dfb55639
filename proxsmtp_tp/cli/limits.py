"""proxsmtp-tp limits: shows what one client has used of its limits, or forgets it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.cli.daemon import NoAnswerError, ask_daemon, complain
from proxsmtp_tp.cli.durations import shown
from proxsmtp_tp.cli.instances import add_options
from proxsmtp_tp.config.reader import printable

if TYPE_CHECKING:
    import argparse


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `limits`."""
    parser = subparsers.add_parser("limits", help="show what a client has used of its limits, or forget it")
    parser.add_argument(
        "action", choices=["show", "reset"], metavar="ACTION", help="show, or reset: as if it had done nothing yet"
    )
    parser.add_argument("client", metavar="CLIENT", help="an IP address")
    add_options(parser)
    parser.add_argument("--json", action="store_true", help="for programs: one JSON object")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """0: done. 1: the daemon does not answer, or refuses. 2: which instance?"""
    reset = {"reset": True} if args.action == "reset" else {}
    try:
        answer = ask_daemon(args, "limits", client=args.client, **reset)
    except NoAnswerError as error:
        return complain(error)
    if answer.get("warning"):
        print(f"warning: {printable(answer['warning'])}", file=sys.stderr)
    print(json.dumps(answer) if args.json else describe(answer))
    return 0


def describe(answer: dict[str, Any]) -> str:
    """For people."""
    known = f"connections {answer['connections']}" if answer["known"] else "nothing is known of it"
    lines = [f"{answer['client']}: {known}"]
    lines += usage(answer["limits"]) or ["  no limit is configured"]
    if lock := answer["lock"]:
        lines.append(f"  locked until {lock['until_utc']}: {lock['reason']}")
    return "\n".join(printable(line) for line in lines)


def usage(rows: list[dict[str, Any]]) -> list[str]:
    """One line for each limit."""
    lines = []
    for row in rows:
        full = f", reached for {shown(row['seconds'])}" if row["seconds"] else ""
        lines.append(f"  {row['limit']} {row['value']}: {row['used']} of {row['burst']} used{full}")
    return lines
