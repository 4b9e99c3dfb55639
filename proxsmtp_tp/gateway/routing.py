"""Reads and changes policy rules and routes over netlink.

Guarantees: reads every rule and route, changes only those with our protocol number. A change that is already made is
no error, so that a run after a crash succeeds. Diagnostics: GatewayError with the rule and the reason.

Sources: ip-rule(8), linux/fib_rules.h, rtnetlink(7).
"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from proxsmtp_tp.gateway.errors import GatewayError
from proxsmtp_tp.gateway.plan import MARK_MASK, PROTOCOL, LocalRoute, PolicyRule, RuleAction

FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
RTN_LOCAL = 2  # linux/rtnetlink.h
RT_SCOPE_HOST = 254  # the scope of a local route; IPv6 has no scopes
_ACTIONS = {1: RuleAction.LOOKUP.value, 2: RuleAction.GOTO.value, 3: RuleAction.NOP.value}  # linux/fib_rules.h
_TOLERATED = {"add": {errno.EEXIST}, "del": {errno.ENOENT, errno.ESRCH}}


@dataclass(frozen=True, slots=True)
class ForeignRule:
    """The fields that we need of a policy rule that is not ours. `target` is a table, or the priority of a goto."""

    version: int
    priority: int
    mark: int
    mask: int
    target: int

    def __str__(self) -> str:
        return f"ip -{self.version} rule {self.priority}" + (
            f" (fwmark {self.mark:#x}/{self.mask:#x})" if self.mask else ""
        )


@dataclass(frozen=True, slots=True)
class Routing:
    """The policy rules and routes of the host: ours (by protocol number), and those of others."""

    rules: frozenset[PolicyRule]
    routes: frozenset[LocalRoute]
    foreign_rules: tuple[ForeignRule, ...]
    foreign_tables: frozenset[int]
    """The route tables with a route that is not ours."""


def versions() -> tuple[int, ...]:
    """The IP versions of this kernel: one booted with ipv6.disable=1 has no IPv6."""
    return (4, 6) if Path("/proc/sys/net/ipv6").is_dir() else (4,)


def read_routing() -> Routing:
    """Read all policy rules and routes."""
    rules: set[PolicyRule] = set()
    routes: set[LocalRoute] = set()
    foreign: list[ForeignRule] = []
    tables: set[int] = set()
    with IPRoute() as netlink:
        for version in versions():
            for message in netlink.get_rules(family=FAMILIES[version]):
                rule = _decode_rule(version, message)
                if isinstance(rule, PolicyRule):
                    rules.add(rule)
                else:
                    foreign.append(rule)
            for message in netlink.get_routes(family=FAMILIES[version]):
                table = message.get("RTA_TABLE") or message["table"]
                if message["proto"] == PROTOCOL and message["type"] == RTN_LOCAL:
                    routes.add(LocalRoute(version, table))
                else:
                    tables.add(table)
    return Routing(frozenset(rules), frozenset(routes), tuple(foreign), frozenset(tables))


def _decode_rule(version: int, message: Any) -> PolicyRule | ForeignRule:
    priority, mark = message.get("FRA_PRIORITY") or 0, message.get("FRA_FWMARK") or 0
    target = message.get("FRA_GOTO") or message.get("FRA_TABLE") or 0
    mask = message.get("FRA_FWMASK") or 0
    action = _ACTIONS.get(message["action"])
    if message.get("FRA_PROTOCOL") == PROTOCOL and action and mask in {0, MARK_MASK}:
        return PolicyRule(version, priority, mark, message.get("FRA_IIFNAME") or "", action, target)
    return ForeignRule(version, priority, mark, mask, target)


def change_rule(verb: str, rule: PolicyRule) -> None:
    """Add or delete ("add", "del") one policy rule."""
    arguments: dict[str, Any] = {
        "family": FAMILIES[rule.version],
        "priority": rule.priority,
        "protocol": PROTOCOL,
    }
    if rule.mark:
        arguments |= {"fwmark": rule.mark, "fwmask": MARK_MASK}
    if rule.iif:
        arguments["iifname"] = rule.iif
    if rule.action == RuleAction.LOOKUP.value:
        arguments["table"] = rule.target
    else:
        arguments["action"] = rule.action
        if rule.action == RuleAction.GOTO.value:
            arguments["goto"] = rule.target
    _change("rule", verb, rule, arguments)


def change_route(verb: str, route: LocalRoute) -> None:
    """Add or delete ("add", "del") one route."""
    arguments: dict[str, Any] = {
        "family": FAMILIES[route.version],
        "table": route.table,
        "type": "local",
        "dst": "default",
        "oif": socket.if_nametoindex("lo"),
        "proto": PROTOCOL,
    }
    if route.version == 4:
        arguments["scope"] = RT_SCOPE_HOST
    _change("route", verb, route, arguments)


def _change(kind: str, verb: str, what: PolicyRule | LocalRoute, arguments: dict[str, Any]) -> None:
    try:
        with IPRoute() as netlink:
            getattr(netlink, kind)(verb, **arguments)
    except NetlinkError as error:
        if error.code not in _TOLERATED[verb]:
            raise GatewayError(f"ip {verb} {what}: {error.args[1]}") from error
