"""Finds other rules that use packet marks: in other nft tables, and in iptables (legacy and nft).

Reads only. Rules that cannot be listed (the tool is not installed) are ignored.

Sources: libnftables-json(5), iptables-extensions(8) on mark, connmark, MARK, CONNMARK and TPROXY.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.gateway import nftables
from proxsmtp_tp.gateway.plan import MARK_MASK

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

SAVE_TOOLS = tuple(f"{ip}tables-{variant}-save" for ip in ("ip", "ip6") for variant in ("nft", "legacy"))
_TIMEOUT = 60.0  # saving tens of thousands of rules takes seconds
_SAVED_MARK = re.compile(r"--(?:mark|set-mark|set-xmark|tproxy-mark|nfmask|ctmask) (0x[0-9a-f]+)(?:/(0x[0-9a-f]+))?")


@dataclass(frozen=True, slots=True)
class MarkUse:
    """A rule of other software that compares or sets a mark: `value` in the bits of `mask`."""

    where: str
    value: int
    mask: int = MARK_MASK

    def concerns(self, mark: int) -> bool:
        """Whether the rule matches or sets this mark."""
        return bool(self.value) and self.value & self.mask == mark & self.mask


def mark_uses(own_table: str, own_chains: Collection[str]) -> tuple[MarkUse, ...]:
    """All uses of marks outside one instance's table and chains."""
    return (*_nft_uses(own_table), *_iptables_uses(own_chains))


def _nft_uses(own_table: str) -> Iterator[MarkUse]:
    for item in nftables.ruleset():
        rule = item.get("rule")
        if rule and rule["table"] != own_table:
            where = f"nft table {rule['family']} {rule['table']}, chain {rule['chain']}"
            for statement in rule["expr"]:
                yield from _statement_uses(where, statement)


def _statement_uses(where: str, statement: dict[str, Any]) -> Iterator[MarkUse]:
    if match := statement.get("match"):
        left, mask = match["left"], MARK_MASK
        if isinstance(left, dict) and "&" in left:
            left, mask = left["&"]
        if _is_mark(left) and isinstance(mask, int):
            for value in _numbers(match["right"]):
                yield MarkUse(where, value, mask)
    if (mangle := statement.get("mangle")) and _is_mark(mangle["key"]):
        for value in _numbers(mangle["value"]):
            yield MarkUse(where, value)


def _is_mark(expression: object) -> bool:
    return isinstance(expression, dict) and any(
        isinstance(body, dict) and body.get("key") == "mark"
        for kind, body in expression.items()
        if kind in {"meta", "ct"}
    )


def _numbers(value: object) -> Iterator[int]:
    """The constants of an expression: a number, a set, or (`mark or 0x1`) an operation."""
    if isinstance(value, bool):
        return
    if isinstance(value, int):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from _numbers(part)
    elif isinstance(value, dict):
        for key in ("set", "|", "range"):
            yield from _numbers(value.get(key))


def _iptables_uses(own_chains: Collection[str]) -> Iterator[MarkUse]:
    for tool in SAVE_TOOLS:
        try:
            saved = subprocess.run([tool], capture_output=True, text=True, check=False, timeout=_TIMEOUT)
        except (FileNotFoundError, subprocess.TimeoutExpired):
            continue
        yield from saved_uses(tool.removesuffix("-save"), saved.stdout, own_chains)


def saved_uses(tool: str, saved: str, own_chains: Collection[str]) -> Iterator[MarkUse]:
    """The uses in the output of iptables-save, except those in our own chains and their calls."""
    for line in saved.splitlines():
        words = line.split()
        if words[:1] == ["-A"] and words[1] not in own_chains and words[-1] not in own_chains:
            for value, mask in _SAVED_MARK.findall(line):
                yield MarkUse(f"{tool} chain {words[1]}", int(value, 16), int(mask or "ffffffff", 16))
