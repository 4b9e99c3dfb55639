"""proxsmtp-tp status: what the running instances do now."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.cli.instances import choose
from proxsmtp_tp.cli.status_lines import activity, packets_at_rules
from proxsmtp_tp.config.reader import ConfigError, printable
from proxsmtp_tp.service import bypass, in_force
from proxsmtp_tp.service.faults import faults

if TYPE_CHECKING:
    import argparse


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `status`."""
    parser = subparsers.add_parser("status", help="show what the running instances do")
    parser.add_argument("-f", "--file", metavar="FILE", help="only the instance of this configuration file")
    parser.add_argument("--instance", metavar="NAME", help="only this instance: that of /etc/proxsmtp-tp/NAME.conf")
    parser.add_argument("--json", action="store_true", help="for programs: one JSON array")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """0: each instance that answered is fine. 1: none answered, or something is wrong. 2: which instance?"""
    from proxsmtp_tp.service.status import find_sockets, instance_of, read_status  # noqa: PLC0415

    name = None  # all running instances
    if args.file is not None or args.instance is not None:
        try:
            name = choose(args.file, args.instance, file_needed=False).name
        except ConfigError as error:
            print(error, file=sys.stderr)
            return error.exit_code
    answers, refused = [], False
    for path in find_sockets():
        if name in {None, instance_of(path)}:
            try:
                answer = read_status(path)
            except PermissionError:
                refused = True
            else:
                answers += [answer] if answer is not None else []
    for answer in answers:
        answer["rules"] = _rules(str(answer.get("instance", "")))
        answer["packets"] = _packets(str(answer.get("instance", "")))
    if args.json:
        print(json.dumps([{**answer, "faults": _faults(answer)} for answer in answers]))
    else:
        print("\n\n".join(describe_printable(answer) for answer in answers), end="\n" if answers else "")
    if not answers:
        hint = "only root and the daemon's user may ask" if refused else "start it with `proxsmtp-tp serve`"
        print(f"no instance {f'{name} ' if name else ''}answers: {hint}", file=sys.stderr)
    return 0 if answers and not any(map(is_wrong, answers)) else 1


def is_wrong(answer: dict[str, Any]) -> bool:
    """Whether the status shows a fault. Each fault is a line of `describe`."""
    try:
        return bool(_faults(answer)) or rules_lines(answer)[1] or in_force.describe(answer["configuration"])[1]
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return False  # of another version


def _faults(answer: dict[str, Any]) -> list[str]:
    """As `faults`, but also for an answer of another version."""
    try:
        return faults(answer)
    except (AttributeError, KeyError, TypeError, ValueError):
        return []


def describe_printable(answer: dict[str, Any]) -> str:
    """As `describe`, also for an answer of another version: only printable text reaches the terminal."""
    try:
        lines = describe(answer).split("\n")
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return "an answer that is no status of this version: see it with --json"
    return "\n".join(printable(line) for line in lines)


def describe(answer: dict[str, Any]) -> str:
    """For people: one instance, one line for each worker."""
    used, limit, replaced = answer["connections"], answer["max_connections"], answer["replaced_workers"]
    lines = [
        f"{answer['instance']}: pid {answer['pid']}, version {answer['version']}, up {duration(answer['uptime'])}",
        *(f"  {line}" for line in _configuration(answer)),
        *(f"  {line}" for line in _bypass(answer)),
        *(f"  {line}" for line in rules_lines(answer)[0]),
        *(f"  {line}" for line in packets_at_rules(answer.get("packets"))),
        f"  listening on {', '.join(answer['listen'])}",
        f"  connections {used} of {limit}, workers replaced {replaced}",
        *(f"  {line}" for line in activity(answer)),
        *(f"  {name.replace('_', ' ')} {total}" for name, total in dict(answer["counters"]).items() if total),
    ]
    lines += [
        f"  worker {worker['pid']} {worker['phase']}, up {duration(worker['uptime'])},"
        f" connections {worker['connections']}"
        for worker in answer["workers"]
    ]
    lines += [f"  WRONG: {fault}" for fault in faults(answer)]
    return "\n".join(lines)


def _configuration(answer: dict[str, Any]) -> list[str]:
    return in_force.describe(answer["configuration"])[0] if "configuration" in answer else []


def _rules(instance: str) -> dict[str, Any] | None:
    """What watch-rules saw last. None: nothing watches rules of this instance."""
    from proxsmtp_tp.gateway import watch_record  # noqa: PLC0415  (not for --help)
    from proxsmtp_tp.gateway.state import Store  # noqa: PLC0415

    try:
        record = watch_record.read(instance, Store())
    except OSError:
        return None
    return None if record is None else asdict(record)


def _packets(instance: str) -> dict[str, Any] | None:
    """How many packets met the rules. None: there are no rules of this instance."""
    from proxsmtp_tp.gateway.state import Store  # noqa: PLC0415  (not for --help)

    store = Store()
    if not store.path(instance).exists():
        return None  # without loading netlink
    from proxsmtp_tp.gateway import counting  # noqa: PLC0415

    found = counting.read(instance, store)
    return found.report() if found is not None else None


def rules_lines(answer: dict[str, Any]) -> tuple[list[str], bool]:
    """The state of the rules, and whether it is wrong."""
    from proxsmtp_tp.gateway.watch_record import Record, describe  # noqa: PLC0415

    return describe(Record(**answer["rules"])) if answer.get("rules") else ([], False)


def _bypass(answer: dict[str, Any]) -> list[str]:
    return [bypass.describe(answer["bypass"])] if answer.get("bypass") else []


def duration(seconds: int) -> str:
    """Seconds as days, hours, minutes and seconds, the larger two that are not zero."""
    parts = [(seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "min"), (seconds % 60, "s")]
    first = next((index for index, (number, _) in enumerate(parts) if number), len(parts) - 1)
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2])
