"""install-rules, remove-rules, check-rules on the command line. What they do is in `rule_actions`.

Exit status: 0 done (check-rules: in place); 1 it did not work (check-rules: absent or drifted), with the reason;
2 usage or configuration.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.cli import instances
from proxsmtp_tp.config import values
from proxsmtp_tp.config.settings import RuleExisting, RuleFail, RuleForward, RuleMethod, RuleMode

if TYPE_CHECKING:
    from collections.abc import Callable

_TRIAL_MAX = 86400  # a day: later no confirmation can be expected


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the three commands."""
    install = _command(
        subparsers, "install", "install the rules; again: change nothing, or replace them by new ones in one step"
    )
    remove = _command(subparsers, "remove", "remove the rules, and leave the host as it was")
    check = _command(subparsers, "check", "compare the rules on the host with the configuration")
    for parser in (install, remove):
        parser.add_argument("--dry-run", action="store_true", help="print what would be done, and change nothing")
    trial = install.add_mutually_exclusive_group()
    trial.add_argument(
        "--confirm",
        type=_value(_seconds),
        metavar="SECONDS",
        help="undo the rules after this time unless they are confirmed: here, or by install-rules without --confirm",
    )
    trial.add_argument(
        "--or-refuse-mail",
        action="store_true",
        help="where RuleForward refuses the rules, none are in place, and RuleFail is closed: refuse mail until then",
    )
    install.add_argument(
        "--retry",
        type=_value(_seconds),
        default=0.0,
        metavar="SECONDS",
        help="try again for this time: an interface may not exist yet, or another program may be changing the firewall",
    )
    check.add_argument("--json", action="store_true", help="answer as one JSON object")


def _command(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser], action: str, text: str
) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(f"{action}-rules", help=text, description=text)
    add_rule_options(parser)
    parser.set_defaults(func=run, action=action)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do what `args.action` says."""
    from proxsmtp_tp.cli import rule_actions  # noqa: PLC0415 - netlink and nft are loaded only for these commands

    return rule_actions.act(args)


def add_rule_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that define the rules; each is also a directive of the configuration."""
    instances.add_options(parser)
    add = parser.add_argument_group("rules (each overrides the directive of the same meaning)").add_argument
    add("--method", dest="rule_method", type=_value(values.choice(RuleMethod).parse), metavar="nftables|iptables")
    add("--mode", dest="rule_mode", type=_value(values.choice(RuleMode).parse), metavar="redirect|tproxy")
    for option, field, parse, metavar, text in (
        ("--interface", "rule_interface", values.parse_interfaces, "NAME", "an interface of clients; repeatable"),
        ("--source", "rule_source", values.parse_networks, "NET", "only these clients; repeatable, v4 and v6"),
        ("--except-source", "rule_except_source", values.parse_networks, "NET", "not these clients; repeatable"),
        ("--except-destination", "rule_except_destination", values.parse_networks, "NET", "not to these servers"),
        ("--port", "rule_port", values.parse_ports, "PORT", "intercepted port; repeatable (default 25)"),
    ):
        add(option, dest=field, type=_value(parse), action="extend", metavar=metavar, help=text)
    add("--listen-port", dest="rule_listen_port", type=_value(values.PORT.parse), metavar="PORT",
        help="the port of the daemon")  # fmt: skip
    add("--fail", dest="rule_fail", type=_value(values.choice(RuleFail).parse), metavar="closed|open",
        help="with the daemon down: refuse mail, or let it pass unfiltered")  # fmt: skip
    add("--existing", dest="rule_existing", type=_value(values.choice(RuleExisting).parse), metavar="reset|finish",
        help="connections that began unfiltered (before the rules, or in fail open): end them, or not")  # fmt: skip
    add("--forward", dest="rule_forward", type=_value(values.choice(RuleForward).parse), metavar="refuse|overrule",
        help="if interception opens connections that this host does not forward: refuse, or go on")  # fmt: skip
    add("--local", dest="rule_local", action=argparse.BooleanOptionalAction, default=None,
        help="also intercept this host's own outgoing mail, except that of the daemon's user")  # fmt: skip
    parser.add_argument("--state-dir", type=Path, metavar="DIR", help="the directory for the state of installed rules")


def _seconds(text: str) -> float:
    seconds = values.parse_seconds(text)
    if not 0 < seconds <= _TRIAL_MAX:
        raise ValueError(f"{text!r} is not a number of seconds from 1 to {_TRIAL_MAX}")
    return seconds


def _value(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert
