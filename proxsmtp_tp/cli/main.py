"""proxsmtp-tp SUBCOMMAND: imports only the module of the subcommand that is asked for."""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SUBCOMMANDS = {
    "serve": ("serve", "run the daemon in the foreground"),
    "check-config": ("check_config", "read the configuration file and report every problem"),
    "reload": ("reload", "let the running daemon read its configuration again, and wait for the result"),
    "status": ("status", "show what the running instances do"),
    "metrics": ("metrics", "print the numbers for Prometheus, or serve them"),
    "sessions": ("sessions", "list the sessions that run, or end one"),
    "top": ("top", "show live what the daemon does: clients, servers, sessions, filters"),
    "try-filter": ("try_filter", "let the filter judge messages from files"),
    "check-filters": ("check_filters", "connect to each filter of the chain and show what it is"),
    "quarantine": ("quarantine", "list messages in quarantine; show, release or delete them"),
    "bypass": ("bypass", "let mail pass without the filter for a time"),
    "events": ("events", "show what became of messages, from the file that EventLog names"),
    "log-level": ("log_level", "change how much the running daemon logs, or trace a client"),
    "install-rules": ("rules", "redirect the mail that passes this machine to the daemon"),
    "remove-rules": ("rules", "remove the rules: firewall, routing and settings are as before"),
    "check-rules": ("rules", "compare the rules in place with those that are wanted"),
    "rules": ("rules_list", "list all rules of proxsmtp-tp on this host, by instance"),
    "watch-rules": ("watch_rules", "put rules back that another program removes, until TERM"),
    "doctor": ("doctor", "examine each step of interception, and name the fix"),
    "install-service": ("service", "install, enable and start the systemd units"),
    "remove-service": ("service", "stop and remove the systemd units"),
    "limits": ("limits", "show what a client has used of its limits, or forget it"),
    "locks": ("locks", "list the clients that are locked, lock one, or unlock one"),
    "explain": ("explain", "say what the rules, the limits and the filter do with a connection"),
    "tls-policy": ("tls_policy", "say which Tls and UpstreamTls lines count for a client and a server"),
    "tls-ca": ("tls_ca", "show the CA that clients must trust, or write it for trust stores"),
    "demo": ("demo", "send real mail through a whole gateway, in namespaces of its own"),
}
"""Each subcommand: the module in this package, and what the command does."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script. Returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = _parser(given[0] if given else "").parse_args(given)
    try:
        return int(args.func(args))
    except KeyboardInterrupt:
        return 130  # as a shell reports a process that SIGINT ended
    except BrokenPipeError:
        sys.stderr.close()  # `| head` has ended: write nothing more, also not at exit
        return 1


def _parser(subcommand: str) -> argparse.ArgumentParser:
    """The parser of one subcommand; for --help, or after an error, of all of them."""
    parser = argparse.ArgumentParser(
        prog="proxsmtp-tp",
        description="Transparent SMTP filtering proxy for gateways.",
        epilog="Exit codes: 0 done, 1 it did not work (one line says why), 2 usage or configuration.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    subparsers = parser.add_subparsers(metavar="SUBCOMMAND", required=True)
    if subcommand in SUBCOMMANDS:
        module, _ = SUBCOMMANDS[subcommand]
        importlib.import_module(f"proxsmtp_tp.cli.{module}").register(subparsers)
    else:
        for name, (_, what) in SUBCOMMANDS.items():
            subparsers.add_parser(name, help=what, add_help=False)
    return parser


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from proxsmtp_tp.service.version import BUILD, VERSION  # noqa: PLC0415  (costs 20 ms that other commands do not need)

        print(f"proxsmtp-tp {VERSION} ({BUILD})")
        parser.exit()
