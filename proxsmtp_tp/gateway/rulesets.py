"""The host's rulesets as scripts that load them: ours, and those of others (firewalld, ufw, Docker, an administrator).

A copy of the host (`doctor.replica`, `forward_trial`) loads these scripts. Sources: nft(8), iptables-save(8).
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from proxsmtp_tp.gateway import check, nftables
from proxsmtp_tp.gateway.errors import GatewayError
from proxsmtp_tp.gateway.firewall import METHODS
from proxsmtp_tp.gateway.foreign import SAVE_TOOLS
from proxsmtp_tp.gateway.plan import Fail, Method

if TYPE_CHECKING:
    from proxsmtp_tp.gateway.plan import LocalRoute, Plan, PolicyRule

_FAMILIES = {"ip", "ip6", "inet"}
# The tables of iptables-nft: nft cannot load its own listing of their extensions.
_COMPAT = {"filter", "nat", "mangle", "raw", "security"}
_TIMEOUT = 120.0  # seconds: saving tens of thousands of rules takes several

# The chains of every instance (`plan.names`): a line of iptables-save that makes, fills or calls one.
_OURS = re.compile(r"(?:^:|^-A |-j )PX(?:IN|OUT|FWD|OWN|OLD|OLDOWN|LIFE|FAIL|ICMP)-")

Script = tuple[list[str], str]


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The rules of one table or tool, as a script that loads them."""

    name: str
    script: Script
    family: str = ""
    table: str = ""


def rulesets(plan: Plan) -> tuple[list[Script], list[Ruleset]]:
    """Our rules as scripts, with policy routing; then the rulesets of others."""
    rules, routes = check.wanted_routing(plan)
    ours = [*map(_command, sorted(rules)), *map(_command, sorted(routes))]
    others: list[Ruleset] = []
    for family, table in _nft_tables():
        if (family, table) == (nftables.FAMILY, plan.names.table):
            continue
        listed = nftables.run_nft("list", "table", family, table)
        if listed.returncode == 0:
            others.append(Ruleset(f"nft table {family} {table}", (["nft", "-f", "-"], listed.stdout), family, table))
    for tool in SAVE_TOOLS:
        if (saved := _saved(tool)) is not None:
            restore = tool.replace("-save", "-restore")
            if plan.options.method is Method.IPTABLES and "legacy" in tool:
                ours.append(([restore], _only(saved, plan.names.chains, ours=True)))
                saved = _only(saved, plan.names.chains, ours=False)
            others.append(Ruleset(tool.removesuffix("-save"), ([restore, "--noflush"], saved)))
    if plan.options.method is Method.NFTABLES:
        # With fail open, the loaded table behaves as after a heartbeat. The copy has no routes to servers:
        # refuse_failed would refuse its connections.
        trial = replace(plan, options=replace(plan.options, refuse_failed=False))
        ours.append((["nft", "-f", "-"], METHODS[Method.NFTABLES].render(trial)))
    elif plan.options.fail is Fail.OPEN:
        raise GatewayError("fail open with iptables: the heartbeat cannot be copied")
    return ours, others


def foreign_rulesets(plan: Plan) -> list[Ruleset]:
    """The rulesets of others, without those of any of our instances. Raises GatewayError if one cannot be read."""
    found = []
    for family, table in _nft_tables():
        if family == nftables.FAMILY and table.startswith(plan.names.table.removesuffix(plan.options.instance)):
            continue
        listed = nftables.run_nft("list", "table", family, table)
        if listed.returncode:
            raise GatewayError(f"nft cannot list table {family} {table}")
        found.append(Ruleset(f"nft table {family} {table}", (["nft", "-f", "-"], listed.stdout), family, table))
    for tool in SAVE_TOOLS:
        if (saved := _saved(tool)) is not None:
            theirs = "".join(line for line in saved.splitlines(keepends=True) if not _OURS.search(line))
            restore = tool.replace("-save", "-restore")
            found.append(Ruleset(tool.removesuffix("-save"), ([restore, "--noflush"], theirs)))
    return found


def _command(item: PolicyRule | LocalRoute) -> Script:
    """A policy rule or route as a script."""
    version, _, rest = str(item).partition(" ")
    return ["ip", version, "-batch", "-"], rest.replace(" ", " add ", 1) + "\n"


def _nft_tables() -> list[tuple[str, str]]:
    tables = [item["table"] for item in nftables.ruleset() if "table" in item]
    return [
        (table["family"], table["name"])
        for table in tables
        if table["family"] in _FAMILIES and not (table["name"] in _COMPAT and table["family"] != "inet")
    ]


def _saved(tool: str) -> str | None:
    """The output of iptables-save or a variant; None if it has neither a rule nor a DROP policy."""
    try:
        done = subprocess.run([tool], capture_output=True, text=True, check=False, timeout=_TIMEOUT)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    plain = [line for line in done.stdout.splitlines() if not line.startswith("#")]
    dropping = any(line.startswith("-A") or " DROP [" in line for line in plain)
    return "\n".join(plain) + "\n" if dropping else None


def _only(saved: str, chains: tuple[str, ...], *, ours: bool) -> str:
    """Only the lines of a saved ruleset that are in, or call, our chains; or only the other lines."""

    def concerns(line: str) -> bool:
        words = line.replace(":", ": ").split()
        return any(word in chains for word in words)

    lines = [
        line
        for line in saved.splitlines()
        if line[:1] not in {"-", ":"} or (line[:1] == ":" and " - " not in line) or concerns(line) is ours
    ]
    return "\n".join(lines) + "\n"
