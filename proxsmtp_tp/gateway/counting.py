"""Reads how many packets met the installed rules of an instance, for check-rules, status and doctor.

It changes nothing and waits for no lock: 10 ms with nftables, a third of a second with iptables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.gateway import rule_counts
from proxsmtp_tp.gateway.errors import GatewayError
from proxsmtp_tp.gateway.firewall import METHODS
from proxsmtp_tp.gateway.rule_counts import Count
from proxsmtp_tp.gateway.state import Phase
from proxsmtp_tp.gateway.survey import CAP_NET_ADMIN, capable

if TYPE_CHECKING:
    from proxsmtp_tp.gateway.state import State, Store


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read, or why not (`unread`)."""

    since: float
    """When the rules were installed or confirmed, and so the counters began; seconds of the epoch, 0: not known."""
    counts: tuple[Count, ...]
    unread: str = ""

    def report(self) -> dict[str, Any]:
        """For programs."""
        counts = [{"rule": name, "packets": packets, "octets": octets} for name, packets, octets in self.counts]
        return {"since": round(self.since), "counts": counts, "unread": self.unread}

    def lines(self) -> list[str]:
        """For people: a line for each rule."""
        if self.unread:
            return [f"packets at the rules: unknown, {self.unread}"]
        return [rule_counts.describe(count) for count in self.counts]


def read(instance: str, store: Store) -> Reading | None:
    """None: the instance has no rules here. Raises nothing."""
    try:
        state = store.read(instance)
        return _read(state, store) if state is not None and state.phase is not Phase.REMOVING else None
    except (GatewayError, OSError) as error:
        return Reading(0.0, (), str(error))


def _read(state: State, store: Store) -> Reading:
    if not capable(CAP_NET_ADMIN):
        return Reading(0.0, (), "only root (CAP_NET_ADMIN) can read them")
    counts = METHODS[state.plan.options.method].counts(state.plan)
    since = store.path(state.plan.options.instance).stat().st_mtime
    return Reading(since, tuple(rule_counts.shown(state.plan, counts)))
