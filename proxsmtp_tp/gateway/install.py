"""Install and remove rules, from any state of the host, also after a crash.

Guarantees: everything is checked before the first change. At no moment is mail refused, or passes unfiltered, because
a rule is missing: policy routing is added before the rules that need it, and removed after them; the firewall is
changed in one step. If a step fails, the earlier steps are undone and the rules are as before. A second run changes
nothing. After a crash at any moment, the next install or remove finishes the work.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from proxsmtp_tp.gateway import check, forward, overlap, routing, survey
from proxsmtp_tp.gateway.errors import GatewayError, MailRefusedError, RequirementError, StateError
from proxsmtp_tp.gateway.firewall import METHODS
from proxsmtp_tp.gateway.plan import Fail, Forward, Method, Numbers, Plan, RuleAction, preferred_slot
from proxsmtp_tp.gateway.state import Phase, State

if TYPE_CHECKING:
    from proxsmtp_tp.gateway.plan import LocalRoute, Options, PolicyRule
    from proxsmtp_tp.gateway.state import Store

# A goto has no effect without its target: the target is added first, and removed last.
_ORDER = {RuleAction.NOP.value: 0, RuleAction.LOOKUP.value: 1, RuleAction.GOTO.value: 2}


@dataclass(slots=True)
class Outcome:
    """What was done."""

    changed: bool
    notes: list[str] = field(default_factory=list)
    plan: Plan | None = None


def install(
    options: Options, store: Store, *, deadline: float | None = None, token: str = "", or_refuse_mail: bool = False
) -> Outcome:
    """Install the rules of a plan. Raises PlanError, RequirementError (nothing changed) or GatewayError (undone).

    `deadline` and `token` make it a trial (see `confirm`); without them, an active trial is confirmed.
    `or_refuse_mail`: after a boot no rules of ours exist, and if RuleForward refuses to install them, mail would pass
    unfiltered. In that case, with fail closed, each connection that would be intercepted is refused, and
    MailRefusedError is raised.
    """
    with store.lock():
        if deadline is not None and time.clock_gettime(time.CLOCK_BOOTTIME) > deadline:
            raise GatewayError(
                "the time to confirm had passed before another process released the lock: nothing changed"
            )
        plan, notes, state = prepare(options, store)
        if state and state.phase is Phase.INSTALLED and state.plan == plan and check.examine(plan, ()).in_place:
            if state.token and not token:
                store.write(State(Phase.INSTALLED, plan))
                notes.append("the rules that were on trial are confirmed")
            return Outcome(False, notes, plan)
        notes += require_alone(plan, state, store)
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
    """Choose the numbers, and check the requirements that do not depend on the method."""
    states = store.read_all()
    plan, notes = survey.choose_plan(options, states)
    notes += survey.require(plan)
    return plan, notes, states.get(options.instance)


def require_alone(plan: Plan, state: State | None, store: Store) -> list[str]:
    """Check that no other instance intercepts the same connections. Raises RequirementError.

    Rules that are in place already are replaced in any case, with notes, as in `require_forward`.
    """
    found = overlap.others(plan, store.read_all())
    if not found or (state is not None and state.phase is Phase.INSTALLED and not state.plan.refuse_all):
        return found
    advice = "give each its own clients (RuleInterface, RuleSource, RulePort), or remove-rules of the other instance"
    raise RequirementError([*found, advice])


def require_forward(plan: Plan, state: State | None) -> list[str]:
    """Check that interception allows no connection that the host would not forward; returns notes if that is accepted.

    If rules are in place, or were a moment ago, the new ones are installed in any case, with notes: without rules mail
    would pass unfiltered. Raises RequirementError.
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
    """Fail closed: refuse the connections that may not be intercepted; fail open: refuse nothing. Needs the lock.

    Returns the error to raise, which says what was done.
    """
    if plan.options.fail is Fail.OPEN:
        if state and state.plan.refuse_all:
            restore(None, plan.options.instance, Owned.by(plan.options.instance, state, store), store)
        return reason
    if state is None and check.examine(plan).in_place:
        return reason  # the state file was lost, but the rules are in place: keep them
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
    """Change the host; undo the change if a step fails. Call it with the lock, after the checks."""
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
    """The plan to restore if the next change fails or is not confirmed: the last one that is not on trial."""
    if state is None or state.phase is Phase.REMOVING:
        return None
    return state.plan if state.phase is Phase.INSTALLED and not state.token else state.previous


def restore(previous: Plan | None, instance: str, owned: Owned, store: Store) -> None:
    """Restore an earlier plan, or remove everything. Needs the lock."""
    if previous is None:
        clear(instance, owned)
        store.delete(instance)
    else:
        converge(previous, owned.with_plan(previous))
        # If this fails, the state file of the failed change remains. It names these rules, too: enough to remove them.
        with suppress(StateError):
            store.write(State(Phase.INSTALLED, previous))


def converge(plan: Plan, owned: Owned) -> None:
    """Change the host to what the plan says, whatever rules of ours it has now."""
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
    """Remove everything of an instance. Works without a configuration. Raises GatewayError."""
    survey.require_root()
    with store.lock():
        state = store.read(instance)
        owned = Owned.by(instance, state, store)
        if state is None and not owned.leftovers(instance):
            return Outcome(False)
        if state is not None:
            for method in owned.methods:
                METHODS[method].require()
            # Needed only after a crash during the removal; this removal goes on without it.
            with suppress(StateError):
                store.write(State(Phase.REMOVING, state.plan, state.previous))
        clear(instance, owned)
        try:
            store.delete(instance)
        except StateError as error:
            return Outcome(True, [f"{error}: it names rules that are gone, delete it when that is possible"])
        return Outcome(True)


def leftovers(instance: str, store: Store) -> list[str]:
    """What `remove` would remove, a line for each."""
    survey.require_root()
    return Owned.by(instance, store.read(instance), store).leftovers(instance)


def clear(instance: str, owned: Owned) -> None:
    """Remove all rules and routes of an instance."""
    for method in owned.methods:
        METHODS[method].remove(instance)
    _drop_routing(*owned.routing())


@dataclass(frozen=True, slots=True)
class Owned:
    """Where rules of an instance may be installed: slots and methods."""

    slots: frozenset[int]
    methods: frozenset[Method]

    @classmethod
    def by(cls, instance: str, state: State | None, store: Store) -> Owned:
        """The slots and methods that the state names. Without a state (the file may be lost): every method, and the
        preferred slot of the instance unless another instance has it.
        """
        if state:
            plans = [plan for plan in (state.plan, state.previous) if plan]
            return cls(frozenset(plan.numbers.slot for plan in plans), frozenset(plan.options.method for plan in plans))
        others = {other.plan.numbers.slot for other in store.read_all().values()}
        return cls(frozenset({preferred_slot(instance)} - others), frozenset(METHODS))

    def with_plan(self, plan: Plan) -> Owned:
        """These, and the slot and method of a plan."""
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
        """What is installed, a line for each."""
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
