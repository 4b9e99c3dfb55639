"""The plan: what it refuses, what it derives from the instance, and that two slots never share a number."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.config.settings import RuleMethod
from proxsmtp_tp.gateway.firewall import METHODS
from proxsmtp_tp.gateway.plan import (
    CHAIN_NAME_MAX,
    SLOTS,
    Method,
    Mode,
    Numbers,
    Options,
    PlanError,
    make_plan,
    names,
    preferred_slot,
)

GOOD = Options("gate", interfaces=("eth0",))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"interfaces": ('e"0',)}, "cannot be used as an interface"),
        ({"interfaces": ("eth0*",)}, "cannot be used as an interface"),
        ({"interfaces": ("eth 0",)}, "cannot be used as an interface"),
        ({"interfaces": ("e\n0",)}, "cannot be used as an interface"),
        ({"interfaces": ("ü",)}, "cannot be used as an interface"),
        ({"interfaces": ("x" * 16,)}, "cannot be used as an interface"),
        ({"interfaces": ("..",)}, "cannot be used as an interface"),
        ({"interfaces": ("lo",)}, "--local"),
        ({"interfaces": ("eth+",), "method": Method.IPTABLES}, "use --method nftables"),
        ({"interfaces": ("!eth",), "method": Method.IPTABLES}, "use --method nftables"),
        ({"ports": (0,)}, "0 is no port"),
        ({"ports": ()}, "give --port 25"),
        ({"listen_port": 70000}, "70000 is no port"),
        ({"mode": Mode.TPROXY, "listen_port": 25}, "cannot listen on an intercepted port"),
        ({"method": Method.IPTABLES, "ports": tuple(range(1, 17))}, "at most 15 ports"),
        ({"local": True}, "set User"),
        ({"local": True, "daemon_uid": 0}, "set User"),
        ({"instance": "a b"}, "is no name"),
        ({"instance": ""}, "is no name"),
        ({"instance": "-f"}, "is no name"),
    ],
)
def test_what_makes_no_plan(change: dict[str, object], text: str) -> None:
    with pytest.raises(PlanError) as refused:
        make_plan(replace(GOOD, **change))  # type: ignore[arg-type]
    assert text in str(refused.value)


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(PlanError) as refused:
        make_plan(replace(GOOD, interfaces=("a b",), ports=(0,), local=True))
    assert str(refused.value).count(";") == 2


def test_odd_names_of_interfaces_are_taken() -> None:
    for name in ("eth0.100", "br-lan", "wg_0", "a#b$c", "x{y}", "a,b;c'd", "-x"):
        assert make_plan(replace(GOOD, interfaces=(name,))).options.interfaces == (name,)


def test_slots_share_nothing() -> None:
    every = [Numbers(slot) for slot in range(SLOTS)]
    marks = [mark for numbers in every for mark in (numbers.mark, numbers.local_mark)]
    assert len(set(marks)) == 2 * SLOTS
    assert len({numbers.table for numbers in every}) == SLOTS
    assert len({n.priority + step for n in every for step in range(3)}) == 3 * SLOTS
    assert max(n.priority + 2 for n in every) < 32766
    # Away from the bits that Kubernetes (14, 15) and Tailscale (16 to 23) use.
    assert not any(mark & 0x00FFC000 for mark in marks)


@given(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}", fullmatch=True))
def test_names_fit_and_are_the_instances_own(instance: str) -> None:
    own = names(instance)
    assert all(len(chain) <= CHAIN_NAME_MAX for chain in own.chains)
    assert len(set(own.chains)) == 9
    assert instance in own.table
    assert 0 <= preferred_slot(instance) < SLOTS
    other = names(f"{instance[:60]}-xyz")
    assert not set(other.chains) & set(own.chains)


def test_policy_routing_is_there_when_packets_are_diverted() -> None:
    assert not make_plan(GOOD).rules
    assert not make_plan(GOOD).routes
    for plan in (make_plan(replace(GOOD, full=True)), make_plan(replace(GOOD, mode=Mode.TPROXY))):
        assert len(plan.rules) == 6
        assert len(plan.routes) == 2
    local = make_plan(replace(GOOD, mode=Mode.TPROXY, local=True, daemon_uid=107))
    assert len(local.rules) == 8
    # Redirect sends the host's own mail by NAT: no mark, no rule.
    assert not make_plan(replace(GOOD, local=True, daemon_uid=107)).rules


def test_policy_rules_read_as_they_are_typed() -> None:
    plan = make_plan(replace(GOOD, mode=Mode.TPROXY), slot=3)
    assert [str(rule) for rule in sorted(plan.rules)][:3] == [
        "-4 rule priority 109 iif lo fwmark 0x25000300 goto 111 protocol 25",
        "-4 rule priority 110 fwmark 0x25000300 lookup 25003 protocol 25",
        "-4 rule priority 111 nop protocol 25",
    ]
    assert str(min(plan.routes)) == "-4 route local default dev lo table 25003 protocol 25"


def test_sources_and_upstream_ports() -> None:
    plan = make_plan(replace(GOOD, sources=(ip_network("192.0.2.0/24"),), full=True, out_port=2525))
    assert plan.sources(4) == (ip_network("192.0.2.0/24"),)
    assert plan.sources(6) == ()
    assert plan.upstream_ports == (25, 2525)
    assert make_plan(GOOD).sources(6) == (ip_network("::/0"),)
    assert make_plan(GOOD).upstream_ports == ()


def test_every_method_of_the_configuration_has_a_firewall() -> None:
    values = {method.value for method in RuleMethod}
    assert values == {method.value for method in Method}, "RuleMethod and gateway/plan.py: Method differ"
    assert values == {method.value for method in METHODS}, "gateway/firewall.py: METHODS has no row for one of them"
