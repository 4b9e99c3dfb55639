"""The plan against the live box, by meaning: in place, absent, or drifted with a line for each difference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxsmtp_tp.gateway import routing
from proxsmtp_tp.gateway.firewall import METHODS
from proxsmtp_tp.gateway.plan import Numbers

if TYPE_CHECKING:
    from proxsmtp_tp.gateway.plan import LocalRoute, Plan, PolicyRule


@dataclass(frozen=True, slots=True)
class Finding:
    """What a look at the box gave."""

    absent: bool
    """Nothing of the plan is there."""
    differences: tuple[str, ...]

    @property
    def in_place(self) -> bool:
        """Everything is as planned."""
        return not self.absent and not self.differences

    @property
    def word(self) -> str:
        """in place, absent or drifted."""
        return "in place" if self.in_place else "absent" if self.absent else "drifted"


def wanted_routing(plan: Plan) -> tuple[frozenset[PolicyRule], frozenset[LocalRoute]]:
    """The plan's rules and routes, of the IP versions that this kernel has."""
    versions = routing.versions()
    return (
        frozenset(rule for rule in plan.rules if rule.version in versions),
        frozenset(route for route in plan.routes if route.version in versions),
    )


def examine(plan: Plan) -> Finding:
    """Compare. Raises GatewayError if the box cannot be looked at."""
    drift = METHODS[plan.options.method].drift(plan)
    rules, routes = wanted_routing(plan)
    live = routing.read_routing()
    own = Numbers(plan.numbers.slot)
    our_rules = {rule for rule in live.rules if own.priority <= rule.priority < own.priority + 3}
    our_routes = {route for route in live.routes if route.table == own.table}
    strays = [
        f"rules of method {method.value} are there besides"
        for method, firewall in METHODS.items()
        if method is not plan.options.method and firewall.present(plan.options.instance)
    ]
    if drift is None and not our_rules and not our_routes and not strays:
        return Finding(True, ())
    differences = [*strays, *(["the firewall rules are missing"] if drift is None else drift)]
    differences += [f"missing: ip {item}" for item in [*sorted(rules - our_rules), *sorted(routes - our_routes)]]
    differences += [f"besides: ip {item}" for item in [*sorted(our_rules - rules), *sorted(our_routes - routes)]]
    return Finding(False, tuple(differences))


def anything_left(instance: str, slots: set[int]) -> bool:
    """Whether anything of an instance is on the box."""
    if any(firewall.present(instance) for firewall in METHODS.values()):
        return True
    live = routing.read_routing()
    numbers = [Numbers(slot) for slot in slots]
    return any(n.priority <= rule.priority < n.priority + 3 for n in numbers for rule in live.rules) or any(
        route.table == n.table for n in numbers for route in live.routes
    )
