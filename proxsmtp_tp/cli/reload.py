"""proxsmtp-tp reload: the running daemon reads its configuration again; the exit status says whether the daemon uses
the new one.

This is the unit's ExecReload. This process checks the file first: the daemon is not asked to read a file with errors.
Then it waits for the result, because some errors are found only by the daemon (an address is in use).
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.cli.daemon import NoAnswerError, ask_daemon, complain
from proxsmtp_tp.cli.instances import add_options, choose
from proxsmtp_tp.config.reader import ConfigError, load_config, printable

if TYPE_CHECKING:
    import argparse

WAIT = 75.0
"""Seconds. After a minute the master kills new workers that hang; after 90 s systemd ends this command
(TimeoutStartSec)."""
_POLL = 0.1


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `reload`."""
    parser = subparsers.add_parser("reload", help="let the running daemon read its configuration again, and wait")
    add_options(parser)
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """0: the file is in force. 1: it is not, and why. 2: the file is wrong, or which instance?"""
    try:
        instance = choose(args.file, args.instance)
        load_config(instance.path)
    except ConfigError as error:
        return _say([*error.lines(), "the old configuration stays in force"], error.exit_code)
    args.file, args.instance = instance.path, None
    try:
        number = int(ask_daemon(args, "reload")["number"])
        report = _outcome(args, number)
    except NoAnswerError as error:
        return complain(error)
    if report is None:
        return _say([f"no outcome after {WAIT:.0f} s: the daemon's log says why"], 1)
    reload = report["reload"]
    if reload["state"] != "done":
        return _say([*map(str, reload["problems"]), "the old configuration stays in force"], 1)
    if report["needs_restart"]:
        _say([f"used after a restart only: {', '.join(report['needs_restart'])}"], 0)
    print(f"{printable(report['file'])} is in force")
    return 0


def _outcome(args: argparse.Namespace, number: int) -> dict[str, Any] | None:
    """The daemon's report when this reload, or a later one, has ended. None: it has not ended."""
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        report = ask_daemon(args, "configuration")
        if report["reload"]["number"] >= number and report["reload"]["state"] != "running":
            return report
        time.sleep(_POLL)
    return None


def _say(lines: list[str], status: int) -> int:
    for line in lines:
        print(f"proxsmtp-tp: {printable(line)}", file=sys.stderr)
    return status
