"""The names of the rules of the iptables method, for their counters: those of `rule_counts.NAMES`. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxsmtp_tp.gateway.plan import Plan
    from proxsmtp_tp.gateway.xtables_values import Chain, Rule


def names(chain: Chain, plan: Plan, version: int) -> list[str]:
    """The name of each rule of a chain; "" for one that has none."""
    return [_name(chain, rule, plan, version) for rule in chain.rules]


def _name(chain: Chain, rule: Rule, plan: Plan, version: int) -> str:
    own, target = plan.names, rule.target[0]
    if chain.name in {own.heartbeat, own.failed}:
        return "heartbeats" if chain.name == own.heartbeat else "reports of unreachable servers"
    if chain.name == own.icmp:
        return "ICMP errors for the daemon"
    this_host = ", this host" if chain.caller == "OUTPUT" else ""
    if chain.table == "raw":
        return _raw(rule, plan, f"{this_host}, IPv{version}")
    if chain.table == "filter":
        return _refusing(chain, rule, plan, f"{this_host}, IPv{version}")
    if ("in-interface", plan.numbers.probe) in rule.base:
        return "intercepted, doctor --probe"
    if target == "MARK":
        if chain.caller == "OUTPUT":  # the last rule marks a new connection, which CONNMARK has counted
            return "intercepted connections, this host, further packets" if rule.matches else ""
        return "replies of servers" if _ports(rule, "sports") else "intercepted connections, further packets"
    if target in {"REDIRECT", "CONNMARK", "TPROXY"} and ("in-interface", "lo") not in rule.base:
        return f"intercepted{this_host}, IPv{version}"
    return ""


def _raw(rule: Rule, plan: Plan, end: str) -> str:
    if any(name == "zone-orig" for name, _ in rule.target[1]):
        return "connections to servers"
    if rule.target[0] != "CT":
        return ""
    probe = ("in-interface", plan.numbers.probe) in rule.base
    return f"refused in place of interception{', doctor --probe' if probe else end}"


def _refusing(chain: Chain, rule: Rule, plan: Plan, end: str) -> str:
    refuses = rule.target[0] == "REJECT"
    if chain.name in {plan.names.existing, plan.names.existing_local}:
        if any(name == "hashlimit" for name, _ in rule.matches):
            return f"began unfiltered{end}"
        return f"began unfiltered, client reset{end}" if refuses else ""
    if not refuses:
        dnat = any(name == "conntrack" for name, _ in rule.matches)
        return "not refused: other DNAT" if dnat and chain.name == plan.names.forward else ""
    if any(name == "recent" for name, _ in rule.matches):
        return f"refused: server unreachable{end}"
    return f"refused: not intercepted{end if ', this host' in end else ''}"


def _ports(rule: Rule, which: str) -> bool:
    return any(name == "multiport" and any(option == which for option, _ in given) for name, given in rule.matches)
