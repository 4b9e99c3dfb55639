"""Lists connections that the rules saw and that began unfiltered: before the rules, or while fail open let mail pass.

Each is counted until UNFILTERED_SECONDS after its last packet. Needs no connection tracking.

Sources: libnftables-json(5); iptables-extensions(8) on hashlimit, which lists its entries under /proc/net.
"""

from __future__ import annotations

import json
import re
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from proxsmtp_tp.gateway import nftables
from proxsmtp_tp.gateway.nft_text import UNFILTERED_SETS
from proxsmtp_tp.gateway.plan import Existing, Method

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxsmtp_tp.gateway.plan import Plan

SHOWN = 5  # number of connections in one line; --json lists all
_LISTS = ("ipt_hashlimit", "ip6t_hashlimit")
# "890 192.0.2.10:4321->198.51.100.25:25 .." (net/netfilter/xt_hashlimit.c)
_ENTRY = re.compile(r"^-?[0-9]+ (\S+):([0-9]+)->(\S+):([0-9]+) ", re.MULTILINE)


def connections(plan: Plan) -> list[str]:
    """Each as "client:port -> server:port", sorted. Raises GatewayError if the firewall cannot be read."""
    found = _of_nft(plan) if plan.options.method is Method.NFTABLES else _of_xtables(plan)
    return sorted(f"{_host(client)}:{port} -> {_host(server)}:{to}" for client, port, server, to in found)


def sentence(plan: Plan, found: list[str]) -> str:
    """What happened to them, as a sentence; empty if there are none."""
    if not found:
        return ""
    named = ", ".join(found[:SHOWN]) + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")
    what = "go on unfiltered" if plan.options.existing is Existing.FINISH else "were reset"
    return f"{len(found)} connections that began unfiltered {what} (last 15 minutes): {named}"


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _of_nft(plan: Plan) -> Iterator[tuple[str, str, str, str]]:
    for name in UNFILTERED_SETS:
        listed = nftables.run_nft("-j", "list", "set", nftables.FAMILY, plan.names.table, name)
        if listed.returncode:
            continue  # there are no rules, as check-rules reports
        for item in json.loads(listed.stdout)["nftables"]:
            for element in item.get("set", {}).get("elem", []):
                client, port, server, to = element["elem"]["val"]["concat"]
                yield client, str(port), server, str(to)


def _of_xtables(plan: Plan) -> Iterator[tuple[str, str, str, str]]:
    for folder in _LISTS:
        try:
            text = Path("/proc/thread-self/net", folder, plan.names.recent).read_text(encoding="ascii")
        except OSError:  # no such rule, or no such IP version
            continue
        for client, port, server, to in _ENTRY.findall(text):
            yield str(ip_address(client)), port, str(ip_address(server)), to
