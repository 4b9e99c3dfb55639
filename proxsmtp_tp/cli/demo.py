"""`proxsmtp-tp demo`: a whole gateway in namespaces, with real mail. Nothing is left afterwards."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from proxsmtp_tp.gateway.python import module_command
from proxsmtp_tp.lab.isolate import run_isolated
from proxsmtp_tp.service.installed import packaged

if TYPE_CHECKING:
    import argparse


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "demo",
        help="send real mail through a whole gateway, in namespaces of its own",
        description="Sends real mail through a gateway in namespaces of its own and shows each hop, over IPv4 and IPv6,"
        " in every mode. Touches nothing on this machine. Needs no root if the kernel lets ordinary users make"
        " namespaces; otherwise it says what to type.",
    )
    parser.set_defaults(func=run)


def run(_arguments: argparse.Namespace) -> int:
    """0: every check passed. 1: one failed, or there are no namespaces; the reason was printed."""
    if find_spec("aiosmtpd") is None:
        how = (
            "apt-get install python3-aiosmtpd" if packaged() else f"{sys.executable} -m pip install 'proxsmtp-tp[demo]'"
        )
        print(f"proxsmtp-tp: the demo's mail server needs the Python package aiosmtpd: {how}", file=sys.stderr)
        return 1
    return run_isolated(module_command("proxsmtp_tp.lab.demo"), [sys.argv[0], "demo"])
