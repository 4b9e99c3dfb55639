"""Install and remove: from any state of the host, also one that a crash left, to the plan or to nothing.

Guarantees: refusal before the first change. The order is such that at no moment mail is refused or passes unfiltered
for lack of a rule: policy routing stands before the rules that need it, and goes after them; the firewall's part is
one step. If a step fails, the steps before it are undone and the rules are what they were. A second run changes
nothing. A crash at any moment leaves something that the next install or remove brings to its end.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from proxsmtp_tp.gateway import check, forward, routing, survey
from proxsmtp_tp.gateway.errors import GatewayError, MailRefusedError, RequirementError, StateError
from proxsmtp_tp.gateway.firewall import METHODS
from proxsmtp_tp.gateway.plan import Fail, Forward, Numbers, RuleAction, preferred_slot
from proxsmtp_tp.gateway.state import Phase, State

if TYPE_CHECKING:
    from proxsmtp_tp.gateway.plan import LocalRoute, Method, Options, Plan, PolicyRule
    from proxsmtp_tp.gateway.state import Store

# A goto is dead without its target, and a lookup without its table: what is needed comes first, and goes last.
_ORDER = {RuleAction.NOP.value: 0, RuleAction.LOOKUP.value: 1, RuleAction.GOTO.value: 2}


@dataclass(slots=True)
class Outcome:
    """What was done, for people."""

    changed: bool
    notes: list[str] = field(default_factory=list)
    plan: Plan | None = None


def install(
    options: Options, store: Store, *, deadline: float | None = None, token: str = "", or_refuse_mail: bool = False
) -> Outcome:
    """Bring the host to the plan. Raises PlanError, RequirementError (nothing changed) or GatewayError (undone).

    `deadline` and `token` make it a try (see `confirm`); without them, a try that is in place is confirmed.
    `or_refuse_mail`: after a boot nothing of ours is there, and where RuleForward refuses the rules, mail would pass
    unfiltered. With fail closed each connection that would be intercepted is refused then, and MailRefusedError raised.
    """
    with store.lock():
        if deadline is not None and time.clock_gettime(time.CLOCK_BOOTTIME) > deadline:
            raise GatewayError("the time to confirm was over before another process let go of the rules: none changed")
        plan, notes, state = prepare(options, store)
        if state and state.phase is Phase.INSTALLED and state.plan == plan and check.examine(plan, ()).in_place:
            if state.token and not token:
                store.write(State(Phase.INSTALLED, plan))
                notes.append("the rules that were on trial are confirmed")
            return Outcome(False, notes, plan)
        survey.require_method(plan)
        try:
            notes += require_forward(plan, state)
        except GatewayError as error:
            if not or_refuse_mail:
                raise
            raise refuse_mail(plan, state, store, error) from error
        apply(plan, state, store, deadline, token)
        return Outcome(True, notes, plan)


def prepare(options: Options, store: Store) -> tuple[Plan, list[str], State | None]:
    """Choose the numbers, and check what does not depend on the method."""
    states = store.read_all()
    plan, notes = survey.choose_plan(options, states)
    notes += survey.require(plan)
    return plan, notes, states.get(options.instance)


def require_forward(plan: Plan, state: State | None) -> list[str]:
    """Check that no connection is opened that the host would not forward; notes where that is accepted.

    Rules that are, or a moment ago were, in place come back in any case: without them mail would pass unfiltered.
    Raises RequirementError.
    """
    overruled = plan.options.forward is Forward.OVERRULE
    in_place = state is not None and state.phase is not Phase.REMOVING and not state.plan.refuse_all
    try:
        found = forward.closed(plan)
    except GatewayError as error:
        if overruled or in_place:
            return [str(error)]
        raise GatewayError(f"{error}; RuleForward: overrule (--forward overrule) goes on without asking") from error
    if not found:
        return []
    if overruled:
        return [f"overruled: {item}" for item in found]
    advice = (
        "leave these clients to it (RuleExceptSource, RuleSource, RuleExceptDestination),"
        " or go on with RuleForward: overrule (--forward overrule)"
    )
    if in_place:
        return [*(f"{item}, but interception lets it pass" for item in found), advice]
    raise RequirementError([*(f"{item}: interception would let it pass" for item in found), advice])


def refuse_mail(plan: Plan, state: State | None, store: Store, reason: GatewayError) -> GatewayError:
    """Fail closed: refuse what may not be intercepted; fail open: refuse nothing. The lock is held.

    Returns the error that tells what was done.
    """
    if plan.options.fail is Fail.OPEN:
        if state and state.plan.refuse_all:
            restore(None, plan.options.instance, Owned.by(plan.options.instance, state, store), store)
        return reason
    if state is None and check.examine(plan).in_place:
        return reason  # the state file was lost: what is there goes on
    refusing = replace(plan, refuse_all=True)
    in_place = state is not None and state.phase is Phase.INSTALLED and state.plan == refusing
    if not in_place or not check.examine(refusing).in_place:
        try:
            survey.require_method(refusing)
            apply(refusing, state, store, None, "")
        except GatewayError as error:
            return GatewayError(f"{reason}\nmail passes unfiltered, it cannot be refused: {error}")
    return MailRefusedError(f"{reason}\n{check.refusal(refusing)}")


def apply(plan: Plan, state: State | None, store: Store, deadline: float | None, token: str) -> None:
    """Change the host, and undo it if it fails. The lock is held, and the requirements are met."""
    instance = plan.options.instance
    previous = fallback(state)
    store.write(State(Phase.INSTALLING, plan, previous, deadline, token))
    owned = Owned.by(instance, state, store).with_plan(plan)
    try:
        converge(plan, owned)
        store.write(State(Phase.INSTALLED, plan, previous if token else None, deadline, token))
    except (GatewayError, OSError) as error:
        restore(previous, instance, owned, store)
        raise GatewayError(f"{error} (undone: the rules are as they were)") from error


def fallback(state: State | None) -> Plan | None:
    """What the host goes back to if the next change fails or is not confirmed: the last rules that somebody meant."""
    if state is None or state.phase is Phase.REMOVING:
        return None
    return state.plan if state.phase is Phase.INSTALLED and not state.token else state.previous


def restore(previous: Plan | None, instance: str, owned: Owned, store: Store) -> None:
    """Go back to an earlier plan, or to nothing. The lock is held."""
    if previous is None:
        clear(instance, owned)
        store.delete(instance)
    else:
        converge(previous, owned.with_plan(previous))
        # Where it cannot be written, the file of the change stays, which names these rules, too: enough to remove them.
        with suppress(StateError):
            store.write(State(Phase.INSTALLED, previous))


def converge(plan: Plan, owned: Owned) -> None:
    """Make the host what the plan says, whatever of ours is there."""
    rules, routes = check.wanted_routing(plan)
    live_rules, live_routes = owned.routing()
    for rule in _ordered(rules - live_rules):
        routing.change_rule("add", rule)
    for route in sorted(routes - live_routes):
        routing.change_route("add", route)
    METHODS[plan.options.method].install(plan)
    for method in owned.methods - {plan.options.method}:
        METHODS[method].remove(plan.options.instance)
    _drop_routing(live_rules - rules, live_routes - routes)


def remove(instance: str, store: Store) -> Outcome:
    """Take everything of an instance away. Works without a configuration. Raises GatewayError."""
    survey.require_root()
    with store.lock():
        state = store.read(instance)
        owned = Owned.by(instance, state, store)
        if state is None and not owned.leftovers(instance):
            return Outcome(False)
        if state is not None:
            # Only a crash in the middle needs it: what is there is found without it, too.
            with suppress(StateError):
                store.write(State(Phase.REMOVING, state.plan, state.previous))
        clear(instance, owned)
        try:
            store.delete(instance)
        except StateError as error:
            return Outcome(True, [f"{error}: it names rules that are gone, delete it when that is possible"])
        return Outcome(True)


def leftovers(instance: str, store: Store) -> list[str]:
    """What `remove` would take away, a line for each."""
    survey.require_root()
    return Owned.by(instance, store.read(instance), store).leftovers(instance)


def clear(instance: str, owned: Owned) -> None:
    """Remove everything that is there."""
    for method in owned.methods:
        METHODS[method].remove(instance)
    _drop_routing(*owned.routing())


@dataclass(frozen=True, slots=True)
class Owned:
    """Where things of an instance may be."""

    slots: frozenset[int]
    methods: frozenset[Method]

    @classmethod
    def by(cls, instance: str, state: State | None, store: Store) -> Owned:
        """What the state names. Without one (the file may be lost): every method, and the instance's usual slot unless
        another instance has it.
        """
        if state:
            plans = [plan for plan in (state.plan, state.previous) if plan]
            return cls(frozenset(plan.numbers.slot for plan in plans), frozenset(plan.options.method for plan in plans))
        others = {other.plan.numbers.slot for other in store.read_all().values()}
        return cls(frozenset({preferred_slot(instance)} - others), frozenset(METHODS))

    def with_plan(self, plan: Plan) -> Owned:
        """And those of a plan."""
        return Owned(self.slots | {plan.numbers.slot}, self.methods | {plan.options.method})

    def routing(self) -> tuple[frozenset[PolicyRule], frozenset[LocalRoute]]:
        """The rules and routes on the host that are ours and in these slots."""
        live = routing.read_routing()
        numbers = [Numbers(slot) for slot in self.slots]
        priorities = {number.priority + step for number in numbers for step in range(3)}
        tables = {number.table for number in numbers}
        return (
            frozenset(rule for rule in live.rules if rule.priority in priorities),
            frozenset(route for route in live.routes if route.table in tables),
        )

    def leftovers(self, instance: str) -> list[str]:
        """What is there, a line for each."""
        present = [method for method in sorted(self.methods, key=str) if METHODS[method].present(instance)]
        rules, routes = self.routing()
        found = [f"rules of method {method.value}" for method in present]
        return found + [f"ip {item}" for item in [*sorted(rules), *sorted(routes)]]


def _drop_routing(rules: frozenset[PolicyRule], routes: frozenset[LocalRoute]) -> None:
    for rule in reversed(_ordered(rules)):
        routing.change_rule("del", rule)
    for route in sorted(routes):
        routing.change_route("del", route)


def _ordered(rules: frozenset[PolicyRule]) -> list[PolicyRule]:
    return sorted(rules, key=lambda rule: (_ORDER[rule.action], rule))
