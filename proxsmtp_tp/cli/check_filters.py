"""proxsmtp-tp check-filters: connects to each filter of the chain and shows what it is, without a message."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING

from proxsmtp_tp.cli.instances import add_options, chosen_settings, prints_config_errors
from proxsmtp_tp.config.reader import printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from proxsmtp_tp.filters.describing import Described


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `check-filters`."""
    parser = subparsers.add_parser("check-filters", help="connect to each filter of the chain and show what it is")
    add_options(parser)
    parser.add_argument("--json", action="store_true", help="for programs: one JSON object for each filter")
    parser.set_defaults(func=run)


@prints_config_errors
def run(args: argparse.Namespace) -> int:
    """0: all answer. 1: one does not. 2: usage or configuration."""
    from proxsmtp_tp.filters.describing import describe_all  # noqa: PLC0415  (not for --help)

    settings = chosen_settings(args)
    if not settings.filter:
        print("there is no chain: write Filter lines; try-filter and doctor look at FilterCommand", file=sys.stderr)
        return 2
    found = asyncio.run(describe_all(settings))
    for each in found:
        if args.json:
            facts = {"name": each.line.name, "type": each.line.type.value, "says": each.says, "problem": each.problem}
            print(json.dumps(facts))
        else:
            print("\n".join(printable(line) for line in _lines(each)))
    return 1 if any(each.problem for each in found) else 0


def _lines(found: Described) -> Iterator[str]:
    name = f"{found.line.name} ({found.line.type.value})"
    if found.problem:
        yield f"{name}: {found.problem}"
        return
    yield f"{name}: {found.says[0] if found.says else 'it answers'}"
    yield from (f"  {line}" for line in found.says[1:])
