"""proxsmtp-tp watch-rules: puts rules back that another program removed, until TERM. A unit runs it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from proxsmtp_tp.cli.instances import add_options, choose
from proxsmtp_tp.config.reader import ConfigError, printable

if TYPE_CHECKING:
    import argparse


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `watch-rules`."""
    parser = subparsers.add_parser("watch-rules", help="put rules back that another program removes")
    add_options(parser)
    parser.add_argument("--state-dir", type=Path, metavar="DIR", help="the directory for the state of installed rules")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """0: ended by TERM. 1: not root. 2: which instance?"""
    from proxsmtp_tp.gateway import survey  # noqa: PLC0415 - netlink is loaded only for this
    from proxsmtp_tp.gateway.errors import GatewayError  # noqa: PLC0415
    from proxsmtp_tp.gateway.state import DIRECTORY  # noqa: PLC0415

    try:
        instance = choose(args.file, args.instance, file_needed=False).name
        survey.require_root()
    except ConfigError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except GatewayError as error:
        print(f"proxsmtp-tp: {printable(str(error))}", file=sys.stderr)
        return 1
    _watch(instance, args.state_dir or DIRECTORY)
    return 0


def _watch(instance: str, directory: Path) -> None:
    from proxsmtp_tp.gateway import watch  # noqa: PLC0415
    from proxsmtp_tp.gateway.state import Store  # noqa: PLC0415
    from proxsmtp_tp.gateway.watch_record import forget  # noqa: PLC0415
    from proxsmtp_tp.service import logging as logs  # noqa: PLC0415
    from proxsmtp_tp.service.readiness import Notifier  # noqa: PLC0415

    logs.set_up(logs.StreamHandler("proxsmtp-tp"), 3)
    end, told = os.pipe()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.write(told, b"."))
    store = Store(directory)
    try:
        watch.watch(instance, store, end, lambda: Notifier().ready("watching"))
    finally:
        forget(instance, store)
