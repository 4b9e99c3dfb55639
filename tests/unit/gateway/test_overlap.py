"""Two instances whose rules intercept the same connections."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from proxsmtp_tp.gateway import overlap
from proxsmtp_tp.gateway.plan import Options, make_plan
from proxsmtp_tp.gateway.state import Phase, State

NEAR, FAR = ip_network("192.0.2.0/24"), ip_network("203.0.113.0/24")
PART = ip_network("192.0.2.128/25")
V6 = ip_network("2001:db8::/32")


def found(one: dict[str, Any], other: dict[str, Any], phase: Phase = Phase.INSTALLED) -> list[str]:
    """What `one` says of `other`."""
    plans = [make_plan(Options(**({"instance": name} | given))) for name, given in (("one", one), ("two", other))]
    states = {plan.options.instance: State(phase, plan) for plan in plans}
    return overlap.others(plans[0], states)


LAN = {"interfaces": ("lan0",)}
OWN = {"local": True, "daemon_uid": 7}


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [
        (LAN, LAN, "port 25 of lan0"),
        (LAN, {"interfaces": ("lan0", "lan1"), "ports": (587, 25)}, "port 25 of lan0"),
        (LAN | {"sources": (NEAR,)}, LAN | {"sources": (PART,)}, "port 25 of lan0"),
        (LAN | {"sources": (V6,)}, LAN, "port 25 of lan0"),
        (OWN, OWN | LAN, "port 25 of this host's own mail"),
        (LAN | OWN, LAN | OWN, "port 25 of lan0, this host's own mail"),
        (LAN, {"interfaces": ("lan1",)}, ""),
        (LAN, LAN | {"ports": (587,)}, ""),
        (LAN | {"sources": (NEAR,)}, LAN | {"sources": (FAR,)}, ""),
        (LAN | {"sources": (NEAR,)}, LAN | {"sources": (V6,)}, ""),
        (LAN | {"sources": (NEAR,)}, LAN | {"except_sources": (NEAR,)}, ""),
        (LAN | {"sources": (NEAR,)}, LAN | {"except_sources": (PART,)}, "port 25 of lan0"),
        (LAN, OWN, ""),
    ],
)
def test_overlap(one: dict[str, Any], other: dict[str, Any], common: str) -> None:
    expected = [f"instance two intercepts {common} already"] if common else []
    assert found(one, other) == expected


def test_rules_that_are_being_removed_overlap_with_none() -> None:
    assert found(LAN, LAN, Phase.REMOVING) == []
