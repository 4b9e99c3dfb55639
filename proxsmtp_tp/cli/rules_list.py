"""proxsmtp-tp rules: all rules of proxsmtp-tp on this host, by instance. Needs no configuration."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from proxsmtp_tp.cli import instances
from proxsmtp_tp.config.reader import ConfigError, instance_in, printable

if TYPE_CHECKING:
    import argparse

    from proxsmtp_tp.gateway.inventory import Owner
    from proxsmtp_tp.gateway.state import State


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `rules`."""
    text = "list all rules of proxsmtp-tp on this host, by instance"
    parser = subparsers.add_parser("rules", help=text, description=text)
    parser.add_argument("--json", action="store_true", help="for programs: one JSON array")
    parser.add_argument("--state-dir", type=Path, metavar="DIR", help="the directory for the state of installed rules")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """0: listed. 1: the rules cannot be read; the reason was printed."""
    from proxsmtp_tp.gateway import inventory, survey  # noqa: PLC0415 - netlink and nft are loaded only here
    from proxsmtp_tp.gateway.errors import GatewayError  # noqa: PLC0415
    from proxsmtp_tp.gateway.state import DIRECTORY, Store  # noqa: PLC0415

    try:
        survey.require_root()
        owners = inventory.take(Store(args.state_dir or DIRECTORY))
        files = _configurations()
    except (GatewayError, ConfigError) as error:
        for line in str(error).splitlines():
            print(f"proxsmtp-tp: {printable(line)}", file=sys.stderr)
        return 1
    if args.json:
        print(json.dumps([_as_json(owner, files.get(owner.instance)) for owner in owners]))
    else:
        lines = [line for owner in owners for line in _describe(owner, files.get(owner.instance))]
        print("\n".join(map(printable, lines or ["there are no rules of proxsmtp-tp on this host"])))
    return 0


def _configurations() -> dict[str, str]:
    return {instance_in(str(path)): str(path) for path in instances.configured()}


def _as_json(owner: Owner, file: str | None) -> dict[str, object]:
    recorded = owner.state
    return {
        "instance": owner.instance or None,
        "configuration": file,
        "phase": recorded.phase.value if recorded else None,
        "method": recorded.plan.options.method.value if recorded else None,
        "mode": recorded.plan.options.mode.value if recorded else None,
        "interfaces": list(recorded.plan.options.interfaces) if recorded else None,
        "ports": list(recorded.plan.options.ports) if recorded else None,
        "listen_port": recorded.plan.options.listen_port if recorded else None,
        "found": list(owner.found),
    }


def _describe(owner: Owner, file: str | None) -> list[str]:
    if not owner.instance:
        lines = [
            "no instance: the record of these is lost, remove each by hand",
            *(f"{line.replace(' rule ', ' rule del ').replace(' route ', ' route del ')}" for line in owner.found),
        ]
    else:
        lines = [f"{owner.instance}: {_summary(owner.state)}", *_configuration(owner, file), *owner.found]
        if not owner.found:
            lines.append(f"nothing of it is in the kernel: proxsmtp-tp install-rules --instance {owner.instance}")
    return [lines[0], *(f"  {line}" for line in lines[1:])]


def _summary(state: State | None) -> str:
    if state is None:
        return "the record of its rules is lost"
    options = state.plan.options
    where = [*options.interfaces, *(["this host"] if options.local else [])]
    what = "refuse mail" if state.plan.refuse_all else f"{options.method.value}, {options.mode.value}"
    unfinished = "" if state.phase.value == "installed" else f" ({state.phase.value}, interrupted)"
    trial = ", on trial" if state.token else ""
    ports = ", ".join(map(str, options.ports))
    return f"{what}, port {ports} from {', '.join(where)} to {options.listen_port}{trial}{unfinished}"


def _configuration(owner: Owner, file: str | None) -> list[str]:
    if file is not None:
        return [f"configuration: {file}"]
    command = f"proxsmtp-tp remove-rules --instance {owner.instance}"
    return [f"configuration: none in {instances.DIRECTORY}; {command} removes the rules"]
