"""proxsmtp-tp events: the events in the file that EventLog names, one line for each; also new ones as they come.

If EventLog is the journal or a socket, the command says what to type instead. It also shows the pseudonym of an address
(LogAddresses keyed) for each day whose key still exists.
"""

from __future__ import annotations

import json
import sys
import time
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.cli.instances import add_options, choose, prints_config_errors
from proxsmtp_tp.config.reader import load_config, printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from proxsmtp_tp.config.settings import Settings

PAUSE = 0.5
"""Seconds between two checks of the file with --follow."""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `events`."""
    parser = subparsers.add_parser("events", help="show what became of messages, from the file that EventLog names")
    add_options(parser)
    parser.add_argument("--follow", action="store_true", help="wait for more, also when the file is rotated")
    parser.add_argument("--client", metavar="NET", type=_network, help="only clients in this network, or this one")
    parser.add_argument("--status", metavar="STATUS", help="only these: delivered, rejected .. or a code: 550, 4xx")
    parser.add_argument("--id", metavar="ID", help="only the session with this trace id")
    parser.add_argument("--address", metavar="ADDRESS", help="with LogAddresses keyed: the pseudonyms of an address")
    parser.add_argument("--json", action="store_true", help="for programs: the events as they are")
    parser.set_defaults(func=run)


@prints_config_errors
def run(args: argparse.Namespace) -> int:
    """0: shown. 1: there is no file to show. 2: which instance, or its configuration is wrong."""
    path = choose(args.file, args.instance).path
    settings = load_config(path).settings
    if args.address is not None:
        return _pseudonyms(path, settings, args.address)
    if (instead := _elsewhere(settings.event_log)) is not None:
        print(instead, file=sys.stderr)
        return 1
    try:
        for line in _lines(settings.event_log, follow=args.follow):
            _show(line, args)
    except OSError as error:
        print(f"{settings.event_log}: {error.strerror}: the daemon makes it with the first event", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


def _elsewhere(event_log: str) -> str | None:
    if event_log == "off":
        return "EventLog is off: write `EventLog: /var/log/proxsmtp-tp/NAME/events.json` and reload the daemon"
    if event_log == "journal":
        return (
            "EventLog is journal: `journalctl PROXSMTP_EVENT=message -o cat --output-fields=PROXSMTP_JSON` shows them"
        )
    if event_log.startswith("unix:"):
        return f"EventLog is {event_log}: the program that listens there gets the events"
    return None


def _lines(path: str, *, follow: bool) -> Iterator[str]:
    """The lines of the file; with `follow` those to come, too, and those of the next file of that name."""
    with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
        while True:
            start = file.tell()
            line = file.readline()
            if line.endswith("\n"):
                yield line
            elif not follow:
                return
            else:
                file.seek(start)
                if _was_moved(path, file.fileno()):
                    break
                time.sleep(PAUSE)
    yield from _lines(path, follow=True)


def _was_moved(path: str, descriptor: int) -> bool:
    import os  # noqa: PLC0415

    try:
        return os.stat(path).st_ino != os.fstat(descriptor).st_ino  # noqa: PTH116
    except FileNotFoundError:
        return False


def _show(line: str, args: argparse.Namespace) -> None:
    try:
        event = json.loads(line)
        if not _wanted(event, args):
            return
        print(line.rstrip("\n") if args.json else describe(event), flush=args.follow)
    except (ValueError, TypeError, KeyError, AttributeError):
        return  # a line that was cut by a full disk, or that another program wrote


def _wanted(event: dict[str, Any], args: argparse.Namespace) -> bool:
    if args.id is not None and event["id"] != args.id:
        return False
    if args.client is not None and not _of_client(event["client"]["address"], args.client):
        return False
    if args.status is None or event.get("status") == args.status:
        return True
    code = str((event.get("reply") or {}).get("code", ""))
    return bool(code) and (code == args.status or args.status.lower() == f"{code[0]}xx")


def describe(event: dict[str, Any]) -> str:
    """For people: one line."""
    if event["event"] != "message":
        return printable(f"{event['time']} {event['id'] or '-'} {event['client']['address']}: {_what(event)}")
    to = ", ".join(f"{each['address']} ({each['code']})" for each in event["to"])
    reply = event.get("reply") or {}
    words = f"{reply['code']} {reply.get('enhanced') or ''} {reply['text']}".replace("  ", " ") if reply else "no reply"
    sender = event["from"] or "<>"
    where = f"{event['client']['address']} to {event['server']['address']}"
    return printable(f"{event['time']} {event['id']} {where}: {sender} to {to}: {event['status']}: {words}")


def _of_client(address: str, wanted: Any) -> bool:
    """The address of a client; in the event of a lock it may be a network."""
    network = ip_network(address.partition("%")[0] if "/" not in address else address)
    return network.version == wanted.version and bool(network.overlaps(wanted))


def _what(event: dict[str, Any]) -> str:
    if event["event"] == "limit":
        limit = event["limit"]
        return " ".join(["limit", limit["name"], *([limit["value"]] if "value" in limit else []), limit["action"]])
    if event["event"] == "lock":
        return f"locked until {event['until']}: {event['reason']}"
    return f"unlocked ({event['ended']}): {event['reason']}"


def _pseudonyms(config: str, settings: Settings, address: str) -> int:
    from proxsmtp_tp.cli.state_files import name_of  # noqa: PLC0415
    from proxsmtp_tp.service.state_directory import pseudonym_keys  # noqa: PLC0415
    from proxsmtp_tp.telemetry.pseudonyms import pseudonym, read_keys  # noqa: PLC0415

    path = pseudonym_keys(name_of(config, settings))
    try:
        keys = read_keys(path)
    except OSError as error:
        print(f"{path}: {error.strerror}: only root and the daemon's user may read it", file=sys.stderr)
        return 1
    if not keys:
        print(f"{path}: there is no key: LogAddresses is not keyed, or nothing was logged yet", file=sys.stderr)
        return 1
    for day, key in sorted(keys.items()):
        print(f"{day} {printable(pseudonym(key, address))}")
    return 0


def _network(text: str) -> Any:
    return ip_network(text, strict=False)
