"""proxsmtp-tp locks: lists the locked clients, locks a client, or unlocks one."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.cli.daemon import NoAnswerError, ask_daemon, complain
from proxsmtp_tp.cli.durations import duration
from proxsmtp_tp.cli.instances import add_options
from proxsmtp_tp.config.reader import printable

if TYPE_CHECKING:
    import argparse


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `locks`."""
    parser = subparsers.add_parser("locks", help="list the clients that are locked, lock one, or unlock one")
    parser.add_argument(
        "action",
        nargs="?",
        choices=["list", "add", "remove"],
        default="list",
        metavar="ACTION",
        help="list (default), add CLIENT, or remove CLIENT",
    )
    parser.add_argument("client", nargs="?", metavar="CLIENT", help="an IP address")
    add_options(parser)
    parser.add_argument("--for", metavar="TIME", type=duration, dest="seconds", help="add: 1h (default: LockDuration)")
    parser.add_argument("--reason", metavar="TEXT", help="add: why, for the list")
    parser.add_argument("--json", action="store_true", help="for programs: one JSON object")
    parser.set_defaults(func=run, complain=parser.error)


def run(args: argparse.Namespace) -> int:
    """0: done. 1: the daemon does not answer, or refuses; or there was no lock to remove. 2: usage; which instance?"""
    if (args.action == "list") != (args.client is None):
        args.complain("write a CLIENT after add or remove, and none after list")
    if args.action != "add" and (args.seconds is not None or args.reason is not None):
        args.complain("--for and --reason are for add")
    fields: dict[str, Any] = {} if args.action == "list" else {args.action: args.client}
    if args.seconds is not None:
        fields["seconds"] = int(args.seconds)
    if args.reason is not None:
        fields["text"] = args.reason
    try:
        answer = ask_daemon(args, "locks", **fields)
    except NoAnswerError as error:
        return complain(error)
    if answer.get("warning"):
        print(f"warning: {printable(answer['warning'])}", file=sys.stderr)
    print(json.dumps(answer) if args.json else describe(answer))
    return 1 if answer.get("removed", True) is None else 0


def describe(answer: dict[str, Any]) -> str:
    """For people."""
    if "locked" in answer:
        return printable(f"locked {line(answer['locked'])}")
    if "removed" in answer:
        removed = answer["removed"]
        return printable(f"unlocked {removed['client']}") if removed else "it was not locked"
    lines = [printable(line(lock)) for lock in answer["locks"]]
    if answer["number"] > len(lines):
        lines.append(f"and {answer['number'] - len(lines)} more")
    return "\n".join(lines) or "no client is locked"


def line(lock: dict[str, Any]) -> str:
    """One lock."""
    text = f": {lock['text']}" if lock["text"] else ""
    before = f", {lock['repeated']} times before" if lock["repeated"] else ""
    return f"{lock['client']} until {lock['until_utc']} ({lock['reason']}{text}){before}"
