"""Compares the meaning of the plan with that of the host's rules: in place, absent, or drifted.

Drifted rules have a line for each difference.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from proxsmtp_tp.gateway import routing
from proxsmtp_tp.gateway.firewall import METHODS
from proxsmtp_tp.gateway.plan import Numbers
from proxsmtp_tp.gateway.state import Phase
from proxsmtp_tp.gateway.survey import choose_plan

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proxsmtp_tp.gateway.plan import LocalRoute, Method, Options, Plan, PolicyRule
    from proxsmtp_tp.gateway.state import State, Store


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of the comparison."""

    absent: bool
    """No part of the plan is installed."""
    differences: tuple[str, ...]
    refuses_mail: bool = False
    """Instead of interception, each connection that the plan would intercept is refused."""

    @property
    def in_place(self) -> bool:
        """Everything is as planned."""
        return not self.absent and not self.differences

    @property
    def word(self) -> str:
        """in place, absent, drifted, or refusing mail."""
        if self.refuses_mail:
            return "refusing mail"
        return "in place" if self.in_place else "absent" if self.absent else "drifted"


def wanted_routing(plan: Plan) -> tuple[frozenset[PolicyRule], frozenset[LocalRoute]]:
    """The plan's rules and routes, of the IP versions that this kernel has."""
    versions = routing.versions()
    return (
        frozenset(rule for rule in plan.rules if rule.version in versions),
        frozenset(route for route in plan.routes if route.version in versions),
    )


def examine(plan: Plan, methods: Iterable[Method] = METHODS) -> Finding:
    """Compare; rules of another method in `methods` are a difference. Raises GatewayError if rules cannot be read."""
    drift = METHODS[plan.options.method].drift(plan)
    rules, routes = wanted_routing(plan)
    live = routing.read_routing()
    own = Numbers(plan.numbers.slot)
    our_rules = {rule for rule in live.rules if own.priority <= rule.priority < own.priority + 3}
    our_routes = {route for route in live.routes if route.table == own.table}
    other_methods = [
        f"rules of method {method.value} are there too"
        for method in methods
        if method is not plan.options.method and METHODS[method].present(plan.options.instance)
    ]
    if drift is None and not our_rules and not our_routes and not other_methods:
        return Finding(True, ())
    differences = [*other_methods, *(["the firewall rules are missing"] if drift is None else drift)]
    differences += [f"missing: ip {item}" for item in [*sorted(rules - our_rules), *sorted(routes - our_routes)]]
    differences += [f"unexpected: ip {item}" for item in [*sorted(our_rules - rules), *sorted(our_routes - routes)]]
    return Finding(False, tuple(differences))


def examine_installed(plan: Plan, state: State | None) -> Finding:
    """Like `examine`; if mail is refused instead of intercepted, that is the difference."""
    finding = examine(plan)
    if state and state.plan.refuse_all and examine(state.plan).in_place:
        return replace(finding, refuses_mail=True, differences=(refusal(state.plan),))
    return finding


def refusal(plan: Plan) -> str:
    """A text that says that mail is refused, and which command ends that."""
    ports = ", ".join(map(str, sorted(plan.options.ports)))
    return (
        f"mail to port {ports} is refused (RuleFail: closed), and does not pass unfiltered, until the rules can be"
        " installed; remove-rules ends it"
    )


def look(options: Options, store: Store) -> tuple[Finding, list[str], Plan]:
    """What check-rules reports: the finding, further notes, and the plan that was compared.

    If the options name no interface, the installed plan is compared. Raises PlanError and GatewayError.
    """
    states = store.read_all()
    state = states.get(options.instance)
    if state and not options.interfaces and not options.local:
        plan = replace(state.plan, refuse_all=False)
        return examine_installed(plan, state), _phase_notes(state), plan
    plan, notes = choose_plan(options, states)
    return examine_installed(plan, state), [*notes, *(_phase_notes(state) if state else [])], plan


def _phase_notes(state: State) -> list[str]:
    if state.phase is Phase.INSTALLING and not state.token:
        return ["an install-rules was interrupted: run it again"]
    if state.phase is Phase.REMOVING:
        return ["a remove-rules was interrupted: run it again"]
    if state.token:
        return ["the rules are on trial, and undone soon: install-rules without --confirm keeps them"]
    return []
