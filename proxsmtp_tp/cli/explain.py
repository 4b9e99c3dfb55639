"""proxsmtp-tp explain: what rules, limits, TLS lines and filters do with a connection, and the replies to the client.

The running daemon answers, with its configuration and its counters; the question itself is not counted. If no daemon
runs, the answer is that of a daemon that has just started with this configuration.
"""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.cli.addresses import ip, server_and_port
from proxsmtp_tp.cli.daemon import NoAnswerError, NoDaemonError, ask_daemon, complain
from proxsmtp_tp.cli.durations import shown
from proxsmtp_tp.cli.instances import add_options, chosen_settings, prints_config_errors
from proxsmtp_tp.cli.limits import usage
from proxsmtp_tp.cli.tls_text import decision
from proxsmtp_tp.config.reader import printable

if TYPE_CHECKING:
    import argparse

    from proxsmtp_tp.config.settings import Settings

_STEPS = ("connection", "MAIL", "RCPT", "DATA")


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `explain`."""
    parser = subparsers.add_parser("explain", help="say what the rules, the limits and the filter do with a connection")
    parser.add_argument("client", metavar="CLIENT", type=ip, help="the IP address of a client")
    parser.add_argument(
        "server",
        metavar="SERVER[:PORT]",
        type=server_and_port,
        help="the IP address that it connects to, and the port (25)",
    )
    add_options(parser)
    parser.add_argument("--from", metavar="ADDRESS", dest="sender", help="the sender of a message")
    parser.add_argument("--to", metavar="ADDRESS", dest="recipient", help="its recipient")
    parser.add_argument("--json", action="store_true", help="for programs: one JSON object")
    parser.set_defaults(func=run)


@prints_config_errors
def run(args: argparse.Namespace) -> int:
    """0: answered. 1: the daemon does not answer. 2: usage or configuration."""
    from proxsmtp_tp.service.control import ControlError  # noqa: PLC0415  (not for --help)

    server, port = args.server
    request = {"client": args.client, "server": server, "port": port}
    given = {"from": args.sender, "to": args.recipient}
    request |= {name: value for name, value in given.items() if value is not None}
    settings = chosen_settings(args)
    try:
        answer = _asked(args, settings, request)
    except (NoAnswerError, ControlError) as error:
        return complain(error if isinstance(error, NoAnswerError) else NoAnswerError(str(error)))
    answer = {**request, "rules": rules(settings, args.client, server, port), **answer}
    print(json.dumps(answer) if args.json else describe(answer))
    return 0


def _asked(args: argparse.Namespace, settings: Settings, request: dict[str, Any]) -> dict[str, Any]:
    from proxsmtp_tp.service.limit_commands import explanation  # noqa: PLC0415

    try:
        return {"running": True, **ask_daemon(args, "explain", **request)}
    except NoDaemonError:
        return {"running": False, **explanation(settings, request)}


def rules(settings: Settings, client: str, server: str, port: int) -> dict[str, Any]:
    """What the configured rules do with this connection."""
    from proxsmtp_tp.gateway.interception import Ends, interception  # noqa: PLC0415
    from proxsmtp_tp.gateway.options import options_from  # noqa: PLC0415
    from proxsmtp_tp.gateway.plan import PlanError, make_plan  # noqa: PLC0415
    from proxsmtp_tp.net.own_addresses import ends_here  # noqa: PLC0415

    try:
        plan = make_plan(options_from(settings))
    except PlanError as error:
        return {"intercepted": False, "refused": False, "why": f"no rules can be made: {error}"}
    found = interception(plan, Ends(client, server, port, ends_here(ip_address(client)), ends_here(ip_address(server))))
    return {"intercepted": found.intercepted, "refused": found.refused, "why": found.why}


def describe(answer: dict[str, Any]) -> str:
    """For people: one line for each step."""
    intercepted = answer["rules"]
    verdict = "intercepted" if intercepted["intercepted"] else "not intercepted"
    lines = [f"rules       {verdict}: {intercepted['why']}"]
    if not answer["running"]:
        lines.append("daemon      it does not run: what follows is as after its start")
    if not intercepted["intercepted"]:
        lines.append("            what follows is for a connection that reaches the daemon nevertheless")
    lines += _client_lines(answer["counted"])
    lines += [f"TLS         {decision(each['action'], each['rule'])}" for each in answer.get("tls", ())]
    lines += [
        f"            pass (TlsRejected) with {each['name'] or 'no server name'} for another {shown(each['seconds'])}:"
        " the client rejected our certificate"
        for each in answer.get("tls_rejected", ())
    ]
    for step in _STEPS:
        if step in answer["answers"]:
            said = answer["answers"][step] or (
                "the greeting of the server" if step == "connection" else _passed(step, answer)
            )
            lines.append(f"{step:<12}{said}")
    if answer["filter"] is not None:
        lines += [f"filter      {_of_filter(each)}" for each in answer["filter"].get("filters", ())]
    lines += [f"log         {reason}" for reason in answer["reasons"]]
    return "\n".join(printable(line) for line in lines)


def _client_lines(counted: dict[str, Any] | None) -> list[str]:
    if counted is None:
        return ["limits      none: ClientExcept, this host, or no space in the table of clients"]
    lines = [f"limits      {counted['client']}{'' if counted['limits'] else ': none is configured'}"]
    lines += [f"          {line}" for line in usage(counted["limits"])]
    lock = counted["lock"]
    return [*lines, f"lock        {lock['until']} ({lock['reason']})" if lock else "lock        none"]


def _passed(step: str, answer: dict[str, Any]) -> str:
    filtering = answer["filter"]
    if step != "DATA":
        return "passed to the server"
    if filtering is None:
        return f"passed to the server; {'the filter is bypassed' if answer['bypassed'] else 'no filter'}"
    monitored = ", which only monitors (FilterMode)" if filtering["mode"] == "monitor" else ""
    if filtering.get("chain"):
        skipped = {each["name"] for each in filtering.get("filters", ()) if each["skipped"]}
        asked = ", ".join(name for name in filtering["chain"] if name not in skipped)
        return f"the message goes to the filters {asked}{monitored}" if asked else "no filter gets it: all skip it"
    return f"the message goes to the filter: FilterType {filtering['type']}, {filtering['command']}{monitored}"


_IF_IT_REFUSES = {
    "enforce": "its refusal counts",
    "tag": "its refusal becomes a header (mode=tag)",
    "shadow": "its refusal is only logged (mode=shadow)",
}
_IF_IT_FAILS = {
    "tempfail": "the message is deferred (failure=tempfail)",
    "reject": "the message is refused (failure=reject)",
    "pass": "the message goes on (failure=pass)",
    "quarantine": "the message is quarantined (failure=quarantine)",
}


def _of_filter(each: dict[str, Any]) -> str:
    if each["skipped"]:
        return f"{each['name']}: skipped: the client is in skip="
    words = f"{each['name']}: {_IF_IT_REFUSES[each['mode']]}"
    if each["mode"] != "shadow":
        words += f"; if it fails, {_IF_IT_FAILS[each['failure']]}"
    return words + ("; skipped after a login (skip=authenticated)" if each["skipped_authenticated"] else "")
