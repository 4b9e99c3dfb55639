"""proxsmtp-tp sessions: the sessions that run now; `sessions kill ID` ends one."""

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
    """Add `sessions`."""
    parser = subparsers.add_parser("sessions", help="list the sessions that run, or end one")
    add_options(parser)
    parser.add_argument("--json", action="store_true", help="for programs: one JSON object")
    parser.add_argument("action", nargs="?", choices=["list", "kill"], default="list", help="default: list")
    parser.add_argument("id", nargs="?", metavar="ID", help="kill: the session that ends, with 421, within a second")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """0: done, or shown. 1: the daemon does not answer, or there is no such session. 2: usage."""
    kill = args.action == "kill"
    if kill != (args.id is not None):
        print(
            "name the session: sessions kill ID" if kill else "sessions list takes no argument: sessions kill ID?",
            file=sys.stderr,
        )
        return 2
    try:
        answer = ask_daemon(args, "kill-session", id=args.id) if kill else ask_daemon(args, "sessions")
    except NoAnswerError as error:
        return complain(error)
    if args.json:
        print(json.dumps(answer))
    else:
        print(f"session {args.id} ends within a second" if kill else describe(answer))
    return 0


def describe(answer: dict[str, Any]) -> str:
    """For people, in 80 columns: two lines for each session, one more with TLS, and one with an envelope."""
    sessions, total = answer["sessions"], int(answer["total"])
    lines = ["no session" if not total else f"{total} session{'s' if total > 1 else ''}, longest in its phase first"]
    for each in sessions:
        lines.append(
            f"{each['id']}  {each['phase']} for {shown(each['phase_seconds'])}, "
            f"connected for {shown(each['seconds'])}, messages {each['messages']}"
        )
        lines.append(f"    {each['client']} ({each['helo'] or 'no EHLO yet'}) -> {each['server'] or 'no server yet'}")
        if tls := [f"{side} {value}" for side in ("client", "server") if (value := each.get(f"{side}_tls"))]:
            lines.append(f"    TLS: {', '.join(tls)}")
        if rule := each.get("passed_by"):
            lines.append(f"    TLS passes, not judged (Tls: {rule})")
        if each.get("tls_rejected"):
            lines.append("    the client has rejected the gateway's certificate: see status (TlsRejected)")
        if each["from"] is not None:
            more = f" and {each['recipients'] - 1} more" if each["recipients"] > 1 else ""
            lines.append(f"    from {each['from'] or '<>'} to {each['to'] or 'nobody yet'}{more}")
    if total > len(sessions):
        lines.append(f"and {total - len(sessions)} more")
    return "\n".join(printable(line) for line in lines)
