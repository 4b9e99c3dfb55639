"""What is on the host before a change: its interfaces, our rights, and the numbers in use.

`require` raises one error that names everything that is missing; `choose_plan` finds numbers that are not in use.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pyroute2 import IPRoute

from proxsmtp_tp.gateway import foreign, routing
from proxsmtp_tp.gateway.errors import GatewayError, RequirementError
from proxsmtp_tp.gateway.firewall import METHODS
from proxsmtp_tp.gateway.plan import SLOTS, Mode, Numbers, make_plan, preferred_slot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proxsmtp_tp.gateway.foreign import MarkUse
    from proxsmtp_tp.gateway.plan import Options, Plan
    from proxsmtp_tp.gateway.routing import Routing
    from proxsmtp_tp.gateway.state import State

CAP_NET_ADMIN, CAP_SYS_ADMIN = 12, 21  # linux/capability.h


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface of this network namespace and its addresses ("192.0.2.1/24")."""

    name: str
    addresses: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(self.addresses) or 'no address'})"

    def has_address(self, version: int) -> bool:
        """Whether it has an address that REDIRECT can use: for IPv6, one that is not link-local."""
        return any((":" in address) == (version == 6) and not address.startswith("fe80:") for address in self.addresses)


def interfaces() -> list[Interface]:
    """All interfaces except lo, sorted by name."""
    with IPRoute() as netlink:
        found: dict[int, list[str]] = {index: [] for index, _ in socket.if_nameindex()}
        for message in netlink.get_addr():
            address = message.get("IFA_LOCAL") or message.get("IFA_ADDRESS")
            found.setdefault(message["index"], []).append(f"{address}/{message['prefixlen']}")
    names = dict(socket.if_nameindex())
    listed = [Interface(names[index], tuple(addresses)) for index, addresses in found.items() if index in names]
    return sorted((item for item in listed if item.name != "lo"), key=lambda item: item.name)


def capable(number: int) -> bool:
    """Whether this process has a capability in effect (capabilities(7))."""
    found = re.search(r"^CapEff:\s*([0-9a-f]+)", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    return bool(found and int(found[1], 16) >> number & 1)


def require_root() -> None:
    """Raises RequirementError if this process may not change rules."""
    # CAP_SYS_ADMIN is for the empty network namespace in which nft lists what a script means.
    if not (capable(CAP_NET_ADMIN) and capable(CAP_SYS_ADMIN)):
        raise RequirementError(["rules need root (CAP_NET_ADMIN, CAP_SYS_ADMIN): run it with sudo"])


def require(plan: Plan) -> list[str]:
    """Check that the plan is possible on this host; returns notes about what it will not do.

    Raises RequirementError with everything that is missing.
    """
    require_root()
    there = {interface.name: interface for interface in interfaces()}
    candidates = "; ".join(map(str, there.values())) or "there is none"
    if not plan.options.interfaces and not plan.options.local:
        raise RequirementError(
            [f"no interface of clients is named: give --interface NAME (or --local). Interfaces: {candidates}"]
        )
    problems = [
        f"interface {name} does not exist. Interfaces: {candidates}"
        for name in plan.options.interfaces
        if name not in there
    ]
    if problems:
        raise RequirementError(problems)
    return [note for name in plan.options.interfaces for note in _address_notes(plan, there[name])]


def require_method(plan: Plan) -> None:
    """Check that the tools and the kernel support exactly this plan. Raises RequirementError."""
    if problems := METHODS[plan.options.method].requirements(plan):
        raise RequirementError(problems)


def _address_notes(plan: Plan, interface: Interface) -> list[str]:
    if plan.options.mode is not Mode.REDIRECT:
        return []
    return [
        f"{interface.name} has no IPv{version} address that REDIRECT could use:"
        f" IPv{version} mail that comes in there is dropped"
        for version in routing.versions()
        if plan.sources(version) and not interface.has_address(version)
    ]


def choose_plan(options: Options, states: Mapping[str, State]) -> tuple[Plan, list[str]]:
    """The plan with numbers that are not in use, and notes that explain the choice.

    Raises PlanError, and GatewayError if all numbers are in use.
    """
    known = states.get(options.instance)
    first = known.plan.numbers.slot if known else preferred_slot(options.instance)
    plan = make_plan(options, first)
    live = marks = None
    if plan.diverts:
        live, marks = routing.read_routing(), foreign.mark_uses(plan.names.table, plan.names.chains)
    used_by = {state.plan.numbers.slot: name for name, state in states.items() if name != options.instance}
    notes: list[str] = []
    for offset in range(SLOTS):
        slot = (first + offset) % SLOTS
        user = f"instance {used_by[slot]} has slot {slot}" if slot in used_by else None
        if user is None and live is not None and marks is not None:
            user = slot_user(Numbers(slot), live, marks)
        if user is not None:
            notes.append(user)
            continue
        own = Numbers(slot)
        if notes:
            notes.append(f"taken instead: mark {own.mark:#x}, route table {own.table}, rule priority {own.priority}")
        # If no packets are diverted, the slot only determines the name of the probe's interface: no notes.
        return make_plan(options, slot), notes if plan.diverts else []
    raise GatewayError(f"all {SLOTS} sets of mark, route table and priority are in use: {notes[0]}")


def slot_user(numbers: Numbers, live: Routing, marks: tuple[MarkUse, ...]) -> str | None:
    """What else uses the numbers of a slot, as text; None: nothing."""
    priorities = range(numbers.priority, numbers.priority + 3)
    for rule in live.foreign_rules:
        if rule.priority in priorities:
            return f"{rule} has the priority that would be ours"
        if rule.target == numbers.table:
            return f"{rule} uses route table {numbers.table}"
        if rule.mask and any(mark & rule.mask == rule.mark for mark in (numbers.mark, numbers.local_mark)):
            return f"{rule} matches mark {numbers.mark:#x}"
    if numbers.table in live.foreign_tables:
        return f"route table {numbers.table} has routes that are not ours"
    for use in marks:
        if use.concerns(numbers.mark) or use.concerns(numbers.local_mark):
            return f"{use.where} uses mark {numbers.mark:#x}"
    return None
