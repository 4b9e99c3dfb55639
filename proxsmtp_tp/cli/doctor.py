"""doctor: one line for each step of interception: ok, or what is wrong and the command that fixes it.

Exit status: 0 nothing is wrong, 1 something is wrong (also in the configuration file) or was not seen, 2 usage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxsmtp_tp.cli.rules import add_rule_options

if TYPE_CHECKING:
    import argparse


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    text = "examine each step of interception; name what is wrong, and the command that fixes it"
    parser = subparsers.add_parser("doctor", help=text, description=text)
    add_rule_options(parser)
    parser.add_argument(
        "--probe",
        action="store_true",
        help="also send a real mail from a temporary client through the live rules and daemon",
    )
    parser.add_argument("--json", action="store_true", help="answer as one JSON object")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Examine, and print the findings."""
    from proxsmtp_tp.cli import doctor_actions  # noqa: PLC0415 - netlink is loaded only for this command

    return doctor_actions.act(args)
