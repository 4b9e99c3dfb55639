"""How many packets met which rules: the names of the rules, and which of them a plan uses. Pure.

Each rule of the nft files has a counter. Rules that are of interest to people also have a comment: the name of the
rule, with the IP version where it has one. Rules of the iptables method have the same names (`xtables_names`). Several
rules may have one name; their packets are added. NAT sees only the first packet of a connection, so there a packet is a
connection.

The counters are the kernel's. They begin at 0 when rules are installed or replaced; `install-rules` that changes
nothing, a reload and a restart of the daemon keep them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from proxsmtp_tp.gateway.plan import Fail, Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from proxsmtp_tp.gateway.plan import Plan


class Count(NamedTuple):
    """The packets that met the rules of one name."""

    rule: str
    packets: int
    octets: int


def _never(_plan: Plan) -> bool:
    """Shown only when a packet met it."""
    return False


def _clients(plan: Plan) -> bool:
    return bool(plan.options.interfaces)


def _local(plan: Plan) -> bool:
    return plan.options.local


def _closed(plan: Plan) -> bool:
    return plan.options.fail is Fail.CLOSED


def _tproxy(plan: Plan) -> bool:
    return plan.options.mode is Mode.TPROXY


def _failed(plan: Plan) -> bool:
    return plan.options.refuse_failed


_OWN = ", this host"

NAMES: dict[str, Callable[[Plan], bool]] = {
    "intercepted": lambda plan: _clients(plan) and not plan.refuse_all,
    f"intercepted{_OWN}": lambda plan: _local(plan) and not plan.refuse_all,
    "intercepted, doctor --probe": _never,
    "intercepted connections, further packets": lambda plan: _tproxy(plan) and _clients(plan),
    f"intercepted connections{_OWN}, further packets": lambda plan: _tproxy(plan) and _local(plan),
    "connections to servers": _never,
    "replies of servers": lambda plan: plan.options.full,
    "ICMP errors for the daemon": _never,
    "not intercepted": _clients,
    "not refused: other DNAT": _never,
    "refused: not intercepted": lambda plan: _closed(plan) and _clients(plan),
    f"refused: not intercepted{_OWN}": lambda plan: _closed(plan) and _local(plan),
    "refused: not redirected by NAT": _never,
    "dropped: SYN with FIN or RST": _never,
    "dropped: no server has this address": _never,
    "began unfiltered": _clients,
    f"began unfiltered{_OWN}": _local,
    "began unfiltered, client reset": _never,
    f"began unfiltered, client reset{_OWN}": _never,
    "began unfiltered, server reset": _never,
    f"began unfiltered, server reset{_OWN}": _never,
    "refused in place of interception": lambda plan: plan.refuse_all and _clients(plan),
    f"refused in place of interception{_OWN}": lambda plan: plan.refuse_all and _local(plan),
    "refused in place of interception, doctor --probe": _never,
    "refused: no route to the server": _never,
    "refused: server unreachable": lambda plan: _failed(plan) and _clients(plan),
    f"refused: server unreachable{_OWN}": lambda plan: _failed(plan) and _local(plan),
    "reports of unreachable servers": _failed,
    "heartbeats": lambda plan: plan.options.fail is Fail.OPEN,
}
"""By name without IP version, in the order in which they are shown: whether a plan uses the rule. Then it is shown also
where no packet met it."""


def base(name: str) -> str:
    """The name without its IP version."""
    return name.removesuffix(", IPv4").removesuffix(", IPv6")


def added(counts: Iterable[Count]) -> list[Count]:
    """One for each name, in the order of NAMES, IPv4 before IPv6. A name that is not ours is left out."""
    sums: dict[str, tuple[int, int]] = {}
    for count in counts:
        packets, octets = sums.get(count.rule, (0, 0))
        sums[count.rule] = (packets + count.packets, octets + count.octets)
    order = list(NAMES)
    known = [Count(name, *both) for name, both in sums.items() if base(name) in NAMES]
    return sorted(known, key=lambda count: (order.index(base(count.rule)), count.rule))


def shown(plan: Plan, counts: Iterable[Count]) -> list[Count]:
    """The counts that are shown: a packet met the rule, or the plan uses it."""
    return [count for count in added(counts) if count.packets or _uses(plan, count.rule)]


def _uses(plan: Plan, name: str) -> bool:
    version = {", IPv4": 4, ", IPv6": 6}.get(name[-6:])
    own = f"{_OWN}" in name
    return NAMES[base(name)](plan) and (version is None or own or bool(plan.sources(version)))


def describe(count: Count) -> str:
    """For people."""
    met = "never" if not count.packets else "1 packet" if count.packets == 1 else f"{count.packets} packets"
    return f"{count.rule}: {met}"
