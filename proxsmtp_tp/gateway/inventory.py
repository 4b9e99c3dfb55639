"""All rules of ours in this network namespace, and their instances: from the state files and from the kernel.

Instances without a configuration or a state file are found, too: by the names of tables and chains, which contain the
instance, and by the numbers of policy rules and routes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxsmtp_tp.gateway import routing
from proxsmtp_tp.gateway.firewall import METHODS
from proxsmtp_tp.gateway.plan import PRIORITY_BASE, SLOTS, TABLE_BASE, preferred_slot
from proxsmtp_tp.gateway.state import State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proxsmtp_tp.gateway.state import Store


@dataclass(frozen=True, slots=True)
class Owner:
    """One instance with rules, or policy routing whose instance is not known (`instance` is then empty)."""

    instance: str
    state: State | None
    """What install-rules has recorded; None if that file is lost."""
    found: tuple[str, ...]
    """Each part that is in the kernel, as a printable line."""


def take(store: Store) -> list[Owner]:
    """All instances with rules. Raises GatewayError if the rules cannot be read."""
    states = store.read_all()
    parts: dict[str, list[str]] = {name: [] for name in states}
    for firewall in METHODS.values():
        for instance, lines in firewall.inventory().items():
            parts.setdefault(instance, []).extend(lines)
    for slot, lines in _routing_by_slot().items():
        parts.setdefault(_instance_of(slot, states, parts), []).extend(lines)
    return [Owner(name, states.get(name), tuple(lines)) for name, lines in sorted(parts.items())]


def _routing_by_slot() -> dict[int, list[str]]:
    live = routing.read_routing()
    found: dict[int, list[str]] = {}
    for rule in sorted(live.rules):
        found.setdefault((rule.priority - PRIORITY_BASE) // 3, []).append(f"ip {rule}")
    for route in sorted(live.routes):
        found.setdefault(route.table - TABLE_BASE, []).append(f"ip {route}")
    return {slot: lines for slot, lines in found.items() if 0 <= slot < SLOTS}


def _instance_of(slot: int, states: Mapping[str, State], parts: Mapping[str, list[str]]) -> str:
    """The instance of a slot: the recorded one; otherwise one without a record whose preferred slot it is; or ""."""
    for name, state in states.items():
        if slot in {plan.numbers.slot for plan in (state.plan, state.previous) if plan}:
            return name
    return next((name for name in sorted(parts) if name not in states and name and preferred_slot(name) == slot), "")
