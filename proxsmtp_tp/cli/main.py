"""proxsmtp-tp SUBCOMMAND: imports only the module of the subcommand that is asked for."""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_CONFIG = "/etc/proxsmtp-tp/proxsmtp-tp.conf"

MODULES = {
    "serve": "proxsmtp_tp.cli.serve",
    "check-config": "proxsmtp_tp.cli.check_config",
    "status": "proxsmtp_tp.cli.status",
    "install-rules": "proxsmtp_tp.cli.rules",
    "remove-rules": "proxsmtp_tp.cli.rules",
    "check-rules": "proxsmtp_tp.cli.rules",
    "doctor": "proxsmtp_tp.cli.doctor",
    "demo": "proxsmtp_tp.cli.demo",
}
"""Which module has which subcommand."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script. Returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = _parser(given[0] if given else "").parse_args(given)
    try:
        return int(args.func(args))
    except KeyboardInterrupt:
        return 130  # as a shell reports a process that SIGINT ended
    except BrokenPipeError:
        sys.stderr.close()  # `| head` has read enough: nothing more to say, also not at exit
        return 1


def _parser(subcommand: str) -> argparse.ArgumentParser:
    """With the parser of the one subcommand; with all of them where help or an error lists them."""
    parser = argparse.ArgumentParser(
        prog="proxsmtp-tp",
        description="Transparent SMTP filtering proxy for gateways.",
        epilog="Exit codes: 0 done, 1 it did not work (one line says why), 2 usage or configuration.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    subparsers = parser.add_subparsers(metavar="SUBCOMMAND", required=True)
    wanted = [MODULES[subcommand]] if subcommand in MODULES else [*dict.fromkeys(MODULES.values())]
    for module in wanted:
        importlib.import_module(module).register(subparsers)
    return parser


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from proxsmtp_tp.service.version import VERSION  # noqa: PLC0415  (costs 20 ms that other commands do not need)

        parser.exit(message=f"proxsmtp-tp {VERSION}\n")
