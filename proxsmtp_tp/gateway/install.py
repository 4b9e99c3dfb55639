"""Install and remove: from any state of the box, also one that a crash left, to the plan or to nothing.

Guarantees: refusal before the first change. The order is such that at no moment mail is refused or passes unfiltered
for lack of a rule: policy routing stands before the rules that need it, and goes after them; the firewall's part is
one step. If a step fails, the steps before it are undone and the rules are what they were. A second run changes
nothing. A crash at any moment leaves something that the next install or remove brings to its end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from proxsmtp_tp.gateway import check, routing, survey
from proxsmtp_tp.gateway.errors import GatewayError
from proxsmtp_tp.gateway.firewall import METHODS
from proxsmtp_tp.gateway.plan import Numbers, RuleAction, preferred_slot
from proxsmtp_tp.gateway.state import Phase, State

if TYPE_CHECKING:
    from proxsmtp_tp.gateway.plan import LocalRoute, Options, Plan, PolicyRule
    from proxsmtp_tp.gateway.state import Store

# A goto is dead without its target, and a lookup without its table: what is needed comes first, and goes last.
_ORDER = {RuleAction.NOP.value: 0, RuleAction.LOOKUP.value: 1, RuleAction.GOTO.value: 2}


@dataclass(slots=True)
class Outcome:
    """What was done, for people."""

    changed: bool
    notes: list[str] = field(default_factory=list)
    plan: Plan | None = None


def install(options: Options, store: Store) -> Outcome:
    """Bring the box to the plan. Raises PlanError, RequirementError (nothing changed) or GatewayError (undone)."""
    with store.lock():
        plan, notes, state = prepare(options, store)
        if state and state.phase is Phase.INSTALLED and state.plan == plan and check.examine(plan).in_place:
            if state.deadline is not None:
                store.write(State(Phase.INSTALLED, plan))
                notes.append("confirmed")
            return Outcome(False, notes, plan)
        survey.require_method(plan)
        apply(plan, state, store)
        return Outcome(True, notes, plan)


def prepare(options: Options, store: Store) -> tuple[Plan, list[str], State | None]:
    """Choose the numbers, and check what does not depend on the method."""
    states = store.read_all()
    plan, notes = survey.choose_plan(options, states)
    notes += survey.require(plan)
    return plan, notes, states.get(options.instance)


def apply(plan: Plan, state: State | None, store: Store) -> None:
    """Change the box, and undo it if it fails. The lock is held, and the requirements are met."""
    previous = fallback(state)
    store.write(State(Phase.INSTALLING, plan, previous))
    slots = owned_slots(plan.options.instance, state, store) | {plan.numbers.slot}
    try:
        converge(plan, slots)
    except (GatewayError, OSError) as error:
        restore(previous, plan.options.instance, slots, store)
        raise GatewayError(f"{error} (undone: the rules are as they were)") from error
    store.write(State(Phase.INSTALLED, plan))


def fallback(state: State | None) -> Plan | None:
    """What the box goes back to if the next change fails."""
    if state is None or state.phase is Phase.REMOVING:
        return None
    return state.plan if state.phase is Phase.INSTALLED else state.previous


def restore(previous: Plan | None, instance: str, slots: set[int], store: Store) -> None:
    """Go back to an earlier plan, or to nothing. The lock is held."""
    if previous is None:
        clear(instance, slots)
        store.delete(instance)
    else:
        converge(previous, slots | {previous.numbers.slot})
        store.write(State(Phase.INSTALLED, previous))


def converge(plan: Plan, slots: set[int]) -> None:
    """Make the box what the plan says, whatever of ours is there."""
    rules, routes = check.wanted_routing(plan)
    live_rules, live_routes = owned_routing(slots)
    for rule in _ordered(rules - live_rules):
        routing.change_rule("add", rule)
    for route in sorted(routes - live_routes):
        routing.change_route("add", route)
    METHODS[plan.options.method].install(plan)
    for method, firewall in METHODS.items():
        if method is not plan.options.method:
            firewall.remove(plan.options.instance)
    _drop_routing(live_rules - rules, live_routes - routes)


def remove(instance: str, store: Store) -> Outcome:
    """Take everything of an instance away. Works without a configuration. Raises GatewayError."""
    survey.require_root()
    with store.lock():
        state = store.read(instance)
        slots = owned_slots(instance, state, store)
        if state is None and not check.anything_left(instance, slots):
            return Outcome(False)
        if state is not None:
            store.write(State(Phase.REMOVING, state.plan))
        clear(instance, slots)
        store.delete(instance)
        return Outcome(True)


def leftovers(instance: str, store: Store) -> list[str]:
    """What `remove` would take away, a line for each."""
    survey.require_root()
    found = [f"rules of method {m.value}" for m, firewall in METHODS.items() if firewall.present(instance)]
    rules, routes = owned_routing(owned_slots(instance, store.read(instance), store))
    return found + [f"ip {item}" for item in [*sorted(rules), *sorted(routes)]]


def clear(instance: str, slots: set[int]) -> None:
    """Remove everything that is there."""
    for firewall in METHODS.values():
        firewall.remove(instance)
    _drop_routing(*owned_routing(slots))


def owned_slots(instance: str, state: State | None, store: Store) -> set[int]:
    """The slots whose rules and routes are this instance's: those in its file, and its usual one if no other
    instance has it (the file may be lost).
    """
    others = {s.plan.numbers.slot for name, s in store.read_all().items() if name != instance}
    slots = {preferred_slot(instance)} - others
    if state:
        slots |= {plan.numbers.slot for plan in (state.plan, state.previous) if plan}
    return slots


def owned_routing(slots: set[int]) -> tuple[frozenset[PolicyRule], frozenset[LocalRoute]]:
    """The rules and routes on the box that are ours and in these slots."""
    live = routing.read_routing()
    numbers = [Numbers(slot) for slot in slots]
    priorities = {first + step for first in (n.priority for n in numbers) for step in range(3)}
    tables = {n.table for n in numbers}
    return (
        frozenset(rule for rule in live.rules if rule.priority in priorities),
        frozenset(route for route in live.routes if route.table in tables),
    )


def _drop_routing(rules: frozenset[PolicyRule], routes: frozenset[LocalRoute]) -> None:
    for rule in reversed(_ordered(rules)):
        routing.change_rule("del", rule)
    for route in sorted(routes):
        routing.change_route("del", route)


def _ordered(rules: frozenset[PolicyRule]) -> list[PolicyRule]:
    return sorted(rules, key=lambda rule: (_ORDER[rule.action], rule))
