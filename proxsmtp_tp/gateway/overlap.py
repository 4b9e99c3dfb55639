"""Whether the rules of two instances intercept the same connections. Then only the rules that the kernel evaluates
first have an effect.

Which these are depends on the names of tables and on the order of installation, so one of the two daemons would get no
mail without any error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxsmtp_tp.gateway.plan import of_version
from proxsmtp_tp.gateway.state import Phase

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from proxsmtp_tp.gateway.plan import Network, Plan
    from proxsmtp_tp.gateway.state import State


def others(plan: Plan, states: Mapping[str, State]) -> list[str]:
    """For each other instance whose rules overlap, what both intercept."""
    found = []
    for name, state in sorted(states.items()):
        if name != plan.options.instance and state.phase is not Phase.REMOVING:
            common = _common(plan, state.plan)
            if common:
                found.append(f"instance {name} intercepts {common} already")
    return found


def _common(one: Plan, other: Plan) -> str:
    """What the rules of both plans intercept; empty: nothing."""
    ports = sorted(set(one.options.ports) & set(other.options.ports))
    interfaces = sorted(set(one.options.interfaces) & set(other.options.interfaces))
    both_local = one.options.local and other.options.local
    shared = any(
        _overlap(one.sources(version), other.sources(version), _left_out(one, other, version)) for version in (4, 6)
    )
    if not ports or not (both_local or (interfaces and shared)):
        return ""
    where = [*(interfaces if shared else []), *(["this host's own mail"] if both_local else [])]
    return f"port {', '.join(map(str, ports))} of {', '.join(where)}"


def _left_out(one: Plan, other: Plan, version: int) -> tuple[Network, ...]:
    """Networks that one of the two does not intercept."""
    return of_version((*one.options.except_sources, *other.options.except_sources), version)


def _overlap(ones: Iterable[Network], others: tuple[Network, ...], left_out: tuple[Network, ...]) -> bool:
    """Whether the networks share one that is not left out as a whole."""
    for one in ones:
        for other in others:
            if one.overlaps(other):  # one of two networks contains the other
                common = one if one.prefixlen >= other.prefixlen else other
                if not any(common.subnet_of(network) for network in left_out):  # type: ignore[arg-type]
                    return True
    return False
