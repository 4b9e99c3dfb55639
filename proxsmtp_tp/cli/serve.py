"""proxsmtp-tp serve: the daemon in the foreground, for a service manager (Type=notify) or a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from proxsmtp_tp.cli.instances import add_options, choose
from proxsmtp_tp.cli.streams import open_standard_streams
from proxsmtp_tp.config.reader import ConfigError, load_config

if TYPE_CHECKING:
    import argparse


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `serve`."""
    parser = subparsers.add_parser("serve", help="run the daemon in the foreground")
    add_options(parser)
    parser.add_argument("-p", "--pid-file", metavar="FILE", help="where to write the process id")
    parser.add_argument(
        "-d",
        "--debug-level",
        type=int,
        choices=range(5),
        metavar="LEVEL",
        help="0 errors, 1 warnings, 2 notices, 3 information, 4 everything (default: LogLevel)",
    )
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """0: stopped as asked. 1: the system refused. 2: the configuration is wrong."""
    open_standard_streams()
    try:
        path = choose(args.file, args.instance).path
        configuration = load_config(path)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    from proxsmtp_tp.service.launch import Launch, launch  # noqa: PLC0415  (a wrong file is told without it)

    wanted = Launch(configuration, path, name="proxsmtp-tp", pid_file=args.pid_file, level=args.debug_level)
    return launch(wanted)
