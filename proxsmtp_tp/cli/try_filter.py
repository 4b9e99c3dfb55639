"""proxsmtp-tp try-filter: lets the configured filter judge messages from files, and shows the result."""

from __future__ import annotations

import json
import os
import pwd
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.cli.instances import add_options, chosen_settings, prints_config_errors
from proxsmtp_tp.config.reader import printable
from proxsmtp_tp.config.settings import FilterMode, FilterType
from proxsmtp_tp.filters.plain_command import how_it_runs, how_line_runs

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from proxsmtp_tp.cli.filter_process import Place
    from proxsmtp_tp.config.settings import Settings

_STANDARD_INPUT = "-"


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `try-filter`."""
    parser = subparsers.add_parser("try-filter", help="let the filter judge messages from files")
    add_options(parser)
    parser.add_argument("--sender", metavar="ADDRESS", default="sender@example.com", help="default: %(default)s")
    parser.add_argument("--recipient", metavar="ADDRESS", action="append", help="repeatable; default: you@example.net")
    parser.add_argument("--client", metavar="IP", default="192.0.2.1", help="default: %(default)s")
    parser.add_argument("--server", metavar="IP", default="198.51.100.1", help="default: %(default)s")
    parser.add_argument("--helo", metavar="NAME", default="client.example.com", help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="for programs: one JSON object for each message")
    parser.add_argument("files", metavar="FILE", nargs="*", help="messages; - or none: standard input")
    parser.set_defaults(func=run)


@prints_config_errors
def run(args: argparse.Namespace) -> int:
    """0: every message passed. 1: one did not, or could not be tried. 2: usage or configuration."""
    from proxsmtp_tp.cli.filter_process import TrialError, place  # noqa: PLC0415  (not for --help)

    settings = chosen_settings(args)
    if not settings.filtered:
        print("no filter is configured: write Filter, or FilterCommand and a FilterType that judges", file=sys.stderr)
        return 2
    try:
        messages = [(name, _read(name)) for name in args.files or [_STANDARD_INPUT]]
        with place(settings) as where:
            return _try_all(args, settings, where, messages)
    except TrialError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(printable(f"{error.filename or 'standard input'}: {error.strerror}"), file=sys.stderr)
        return 2


def _read(name: str) -> bytes:
    return sys.stdin.buffer.read() if name == _STANDARD_INPUT else Path(name).read_bytes()


def _try_all(args: argparse.Namespace, settings: Settings, where: Place, messages: list[tuple[str, bytes]]) -> int:
    notes = [*_how(where), *_commands(settings), *where.notes]
    if settings.filter_mode is FilterMode.MONITOR:
        notes.append("FilterMode monitor: the daemon passes each message, whatever this says")
    results = []
    for name, text in messages:
        result = _try(args, settings, where, name, text)
        results.append(result)
        if args.json:
            print(json.dumps(result | {"notes": notes}))
    if not args.json:
        lines = _describe(results[0]) if len(results) == 1 else _table(results)
        print("\n".join(printable(line) for line in [*lines, *(f"note: {note}" for note in notes)]))
    return 0 if all(result["verdict"] == "pass" for result in results) else 1


def _try(args: argparse.Namespace, settings: Settings, where: Place, name: str, text: bytes) -> dict[str, Any]:
    from proxsmtp_tp.cli.difference import difference, normalized  # noqa: PLC0415
    from proxsmtp_tp.service.trial_link import order  # noqa: PLC0415
    from proxsmtp_tp.telemetry.trace_id import EPOCH_MS, encoded  # noqa: PLC0415

    given = normalized(text)
    header = order(
        settings,
        id=encoded(int(time.time() * 1000) - EPOCH_MS, 0, 0),
        sender="" if args.sender == "<>" else args.sender,
        recipients=args.recipient or ["you@example.net"],
        client=args.client,
        server=args.server,
        helo=args.helo,
    )
    answer, judged = where.try_message(header, given)
    passed = answer["verdict"] == "pass"
    changes = difference(given, judged) if passed else []
    return {"file": name, **answer, "changed": bool(changes) if passed else None, "difference": changes}


def _how(where: Place) -> Iterator[str]:
    who = where.who
    try:
        user = pwd.getpwuid(who["uid"]).pw_name
    except KeyError:
        user = f"uid {who['uid']}"
    if "daemon" in who:
        yield (
            f"run by the daemon (pid {who['daemon']}) as {user}: its sandbox, limits and environment are those of mail;"
            " FilterProcesses does not count it"
        )
    else:
        yield f"run by this command as {user}{', as no User is configured' if os.geteuid() == who['uid'] == 0 else ''}"


def _commands(settings: Settings) -> Iterator[str]:
    """How each command is run."""
    for line in settings.filter:
        if how := how_line_runs(line):
            yield f"{line.name}: {how}"
    if settings.filter_command is not None and settings.filter_type is not FilterType.SMTP:
        yield f"{settings.filter_command}: {how_it_runs(settings.filter_command)}"


def _describe(result: dict[str, Any]) -> Iterator[str]:
    yield f"{result['file']}: {_verdict(result)}"
    if result["reply"]:
        yield f"reply: {result['reply']}"
    yield f"filter: {result['detail']}"
    for each in result["filters"]:
        text = f": {each['text']}" if each["text"] else ""
        yield f"  {each['name']}: {each['verdict']} after {each['seconds']:.3f} s{text}"
    yield from (f"edit: {edit}" for edit in result["edits"])
    if (envelope := result["envelope"]) is not None:
        yield f"envelope: <{envelope['sender']}> to {', '.join(f'<{each}>' for each in envelope['recipients'])}"
    yield f"seconds: {result['seconds']:.3f}"
    if result["errors"].strip():
        yield "standard error:"
        yield from (f"  {line.expandtabs()}" for line in result["errors"].rstrip("\n").split("\n"))
    if result["changed"]:
        yield "difference:"
        yield from result["difference"]
    elif result["changed"] is False:
        yield "difference: none"


def _verdict(result: dict[str, Any]) -> str:
    return f"{result['verdict']} (the filter failed)" if result["failed"] else str(result["verdict"])


def _table(results: list[dict[str, Any]]) -> Iterator[str]:
    changed = {True: "yes", False: "no", None: "-"}
    rows = [
        (
            result["file"],
            result["verdict"],
            f"{result['seconds']:.3f}",
            changed[result["changed"]],
            result["reply"] or result["detail"],
        )
        for result in results
    ]
    rows = [("FILE", "VERDICT", "SECONDS", "CHANGED", "REPLY"), *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        yield "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]).rstrip()
