"""proxsmtp-tp check-config: every problem of a configuration file, with its line, and nothing started."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from proxsmtp_tp.cli.instances import add_options, choose
from proxsmtp_tp.config.directives import DIRECTIVES
from proxsmtp_tp.config.reader import ConfigError, load_config, printable

if TYPE_CHECKING:
    import argparse

    from proxsmtp_tp.config.settings import Settings


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `check-config`."""
    parser = subparsers.add_parser("check-config", help="read the configuration file and report every problem")
    add_options(parser)
    parser.add_argument("--show", action="store_true", help="print every directive with the value in force")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """0: fine (warnings may be printed). 2: there are problems."""
    try:
        path = choose(args.file, args.instance).path
        configuration = load_config(path)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    for warning in configuration.warnings:
        print(f"{printable(path)}:{warning.line}: warning: {warning.text}", file=sys.stderr)
    if args.show:
        print("\n".join(show(configuration.settings)))
    return 0


def show(settings: Settings) -> list[str]:
    """The configuration as a file would say it; what is not set is a comment."""
    lines = []
    for row in DIRECTIVES:
        value = getattr(settings, row.field)
        absent = value is None or value == () or (row.field == "skip_authenticated" and not value)
        lines.append(f"# {row.name}: {row.shown_default}" if absent else f"{row.name}: {row.kind.show(value)}")
    return [printable(line) for line in lines]
