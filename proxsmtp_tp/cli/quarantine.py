"""proxsmtp-tp quarantine: messages that the filters kept (QuarantineDirectory): list, show, release, delete."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.cli.instances import add_options, chosen_settings, prints_config_errors
from proxsmtp_tp.config.reader import printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from proxsmtp_tp.config.settings import Settings
    from proxsmtp_tp.filters.quarantine import Entry, QuarantineFolder

SHOWN_MAX = 64 * 1024
"""Octets of a message that `show` prints; the file has the rest."""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `quarantine`."""
    parser = subparsers.add_parser("quarantine", help="list messages in quarantine; show, release or delete them")
    parser.add_argument(
        "action",
        nargs="?",
        choices=["list", "show", "release", "delete"],
        default="list",
        metavar="ACTION",
        help="list (default), show NAME, release NAME .. or delete NAME ..",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="as list shows them")
    add_options(parser)
    parser.add_argument("--server", metavar="HOST:PORT", help="release: send there instead of to the original server")
    parser.add_argument("--keep", action="store_true", help="release: do not delete the message afterwards")
    parser.add_argument("--json", action="store_true", help="for programs: one JSON object for each message")
    parser.set_defaults(func=run, complain=parser.error)


@prints_config_errors
def run(args: argparse.Namespace) -> int:
    """0: done. 1: there is no such message, or it was not released. 2: usage or configuration."""
    from proxsmtp_tp.filters.quarantine import QuarantineFolder  # noqa: PLC0415  (not for --help)

    if (args.action == "list") == bool(args.names):
        args.complain("write the NAME of a message after show, release or delete, and none after list")
    if args.action != "release" and (args.server or args.keep):
        args.complain("--server and --keep are for release")
    settings = chosen_settings(args)
    if settings.quarantine_directory is None:
        print("there is no quarantine: write QuarantineDirectory", file=sys.stderr)
        return 2
    folder = QuarantineFolder(settings.quarantine_directory)
    if args.action == "list":
        return _list(args, folder)
    return max([_one(args, folder, name, settings) for name in args.names])


def _list(args: argparse.Namespace, folder: QuarantineFolder) -> int:
    for entry in folder.entries():
        print(json.dumps(entry.facts) if args.json else printable(_line(entry)))
    return 0


def _line(entry: Entry) -> str:
    facts = entry.facts
    envelope = facts.get("envelope", {})
    recipients = envelope.get("recipients", [])
    more = f" and {len(recipients) - 1} more" if len(recipients) > 1 else ""
    to = f"<{recipients[0]}>{more}" if recipients else "nobody"
    when = datetime.fromtimestamp(facts["time"], UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    return (
        f"{entry.name}  {when}  {facts.get('kind')}  {facts.get('size')}  <{envelope.get('sender')}> to {to}"
        f"  {facts.get('reason')}"
    )


def _one(args: argparse.Namespace, folder: QuarantineFolder, name: str, settings: Settings) -> int:
    """Show, release or delete one message. 0: done."""
    try:
        entry = folder.entry(name)
        if args.action == "show":
            _show(args, entry)
        elif args.action == "delete":
            folder.delete(name)
            print(f"deleted {name}")
        else:
            return _release(args, folder, entry, settings)
    except (OSError, ValueError) as error:
        print(printable(f"{name}: {getattr(error, 'strerror', None) or error}"), file=sys.stderr)
        return 1
    return 0


def _show(args: argparse.Namespace, entry: Entry) -> None:
    if args.json:
        print(json.dumps(entry.facts))
        return
    for line in _facts(entry.facts):
        print(printable(line))
    print()
    with entry.open() as file:
        text = file.read(SHOWN_MAX)
    for row in text.decode("utf-8", "backslashreplace").splitlines():
        print(printable(row.expandtabs()))
    if entry.facts.get("size", 0) > SHOWN_MAX:
        print(f"(only the first {SHOWN_MAX} octets are shown: {entry.path})")


def _facts(facts: dict[str, Any], before: str = "") -> Iterator[str]:
    for key, value in facts.items():
        if isinstance(value, dict):
            yield from _facts(value, f"{before}{key}.")
        else:
            yield f"{before}{key}: {', '.join(map(str, value)) if isinstance(value, list) else value}"


def _release(args: argparse.Namespace, folder: QuarantineFolder, entry: Entry, settings: Settings) -> int:
    from proxsmtp_tp.cli.release import ReleaseError, release  # noqa: PLC0415
    from proxsmtp_tp.gateway.options import user_id  # noqa: PLC0415
    from proxsmtp_tp.gateway.plan import PlanError  # noqa: PLC0415

    try:
        user = user_id(settings.user) if settings.rule_local and settings.user else None
        reply = release(entry, args.server, user, wrapped=settings.tls_wrapped)
    except (ReleaseError, PlanError) as error:
        print(printable(f"{entry.name}: not released: {error}"), file=sys.stderr)
        return 1
    print(printable(f"released {entry.name}: {reply}"))
    if not args.keep:
        folder.delete(entry.name)
    return 0
