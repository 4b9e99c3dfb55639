"""proxsmtp-tp tls-policy: which Tls and UpstreamTls lines count for a client and a server, and what follows.

The tables are those that sessions use (`tls.policy`, `tls.levels`), made from the configuration file. Nobody is asked:
not the server, not DNS, not the daemon.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.cli import tls_text
from proxsmtp_tp.cli.addresses import ip, server_and_port
from proxsmtp_tp.cli.instances import add_options, chosen_settings, prints_config_errors
from proxsmtp_tp.config.reader import printable
from proxsmtp_tp.config.tls_lines import NO_NAME, TlsAction
from proxsmtp_tp.tls.levels import UpstreamPolicy
from proxsmtp_tp.tls.policy import Decision, TlsPolicy, possible

if TYPE_CHECKING:
    import argparse

    from proxsmtp_tp.config.settings import Settings


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `tls-policy`."""
    parser = subparsers.add_parser(
        "tls-policy", help="say which Tls and UpstreamTls lines count for a client and a server"
    )
    parser.add_argument("client", metavar="CLIENT", type=ip, help="the IP address of a client")
    parser.add_argument(
        "server",
        metavar="SERVER[:PORT]",
        type=server_and_port,
        help="the IP address that it connects to, and the port (25)",
    )
    add_options(parser)
    parser.add_argument(
        "--name", help=f"the server name in the client's hello, or {NO_NAME}; without it, all that are possible"
    )
    parser.add_argument("--json", action="store_true", help="for programs: one JSON object")
    parser.set_defaults(func=run)


@prints_config_errors
def run(args: argparse.Namespace) -> int:
    """0: answered. 2: usage or configuration."""
    server, port = args.server
    answer = policy(chosen_settings(args), args.client, server, port, args.name)
    print(json.dumps(answer) if args.json else describe(answer))
    return 0


def policy(settings: Settings, client: str, server: str, port: int, name: str | None) -> dict[str, Any]:
    """What counts for this connection. With a server name `decisions` has one action; without one it has all that are
    possible."""
    rule = UpstreamPolicy(settings.upstream_tls).rule_for(server, port)
    decisions = _decisions(settings, client, server, port, name)
    terminated = TlsAction.TERMINATE.value in {each["action"] for each in decisions}
    return {
        "client": client,
        "server": server,
        "port": port,
        "wrapped": port in settings.tls_wrapped,
        "name": name,
        "decisions": decisions,
        "upstream": {
            "rule": str(rule) if rule in settings.upstream_tls else "",
            "tls": tls_text.demanded(rule, client_tls=True),
            "clear": tls_text.demanded(rule, client_tls=False),
        },
        "rejected": tls_text.rejected(settings) if terminated else "",
        "certificate": tls_text.certificate(settings, server) if terminated else "",
    }


def _decisions(settings: Settings, client: str, server: str, port: int, name: str | None) -> list[dict[str, str]]:
    candidates = possible(settings.tls, client, server, port)
    found: tuple[Decision, ...] = candidates.decisions
    if name is not None and candidates.keeps_starttls:
        said = "" if name.lower() == NO_NAME else name.lower().removesuffix(".")
        found = (TlsPolicy(settings.tls).decide(client, server, port, said),)
    return [
        {"action": each.action.value, "rule": each.rule, "meaning": tls_text.meaning(each.action, each.rule)}
        for each in found
    ]


def describe(answer: dict[str, Any]) -> str:
    """For people: a few lines, those of several decisions in the order in which they are tried."""
    start = "TLS from the first octet" if answer["wrapped"] else "TLS by STARTTLS"
    lines = [f"connection   {answer['client']} to {answer['server']}, port {answer['port']}, {start}"]
    lines += [f"TLS          {tls_text.decision(each['action'], each['rule'])}" for each in answer["decisions"]]
    upstream = answer["upstream"]
    if answer["certificate"]:
        lines.append(f"certificate  {answer['certificate']}")
        lines.append(f"             if the client rejects it: {answer['rejected']}")
    rule = f"UpstreamTls: {upstream['rule']}" if upstream["rule"] else "no UpstreamTls line"
    lines.append(f"to server    {rule}")
    if answer["certificate"]:
        lines.append(f"             for a client with TLS: {upstream['tls']}")
    if not answer["wrapped"]:
        lines.append(f"             for a client in clear: {upstream['clear']}")
    return "\n".join(printable(line) for line in lines)
