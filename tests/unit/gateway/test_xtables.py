"""The iptables rules of a plan, as an administrator would read them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from proxsmtp_tp.gateway.plan import Fail, Method, Mode, Options, make_plan
from proxsmtp_tp.gateway.xtables import chains, every_chain, render

GOOD = Options("gate", method=Method.IPTABLES, interfaces=("eth0", "eth1"))
CALL = "-p tcp -m multiport --dports 25 -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -m comment --comment 'proxsmtp-tp gate'"


def test_redirect() -> None:
    plan = make_plan(replace(GOOD, sources=(ip_network("192.0.2.0/24"),), except_destinations=(ip_network("::1"),)))
    first, guard = chains(plan, 4)
    assert (first.table, first.caller, str(first.call)) == ("nat", "PREROUTING", f"{CALL} -j PXIN-gate")
    assert [str(rule) for rule in first.rules] == [
        "-m addrtype --dst-type LOCAL -j RETURN",
        "-s 192.0.2.0/24 -i eth0 -p tcp -j REDIRECT --to-ports 10025",
        "-s 192.0.2.0/24 -i eth1 -p tcp -j REDIRECT --to-ports 10025",
        f"-i {plan.numbers.probe} -p tcp -j REDIRECT --to-ports 10025",
    ]
    assert (guard.table, guard.caller) == ("filter", "FORWARD")
    assert [str(rule) for rule in guard.rules] == [
        "-m conntrack --ctstate DNAT -j RETURN",
        "-s 192.0.2.0/24 -i eth0 -p tcp -j REJECT --reject-with tcp-reset",
        "-s 192.0.2.0/24 -i eth1 -p tcp -j REJECT --reject-with tcp-reset",
    ]
    # No IPv6 network is among the sources: only the probe is intercepted.
    assert [str(rule) for rule in chains(plan, 6)[0].rules] == [
        "-m addrtype --dst-type LOCAL -j RETURN",
        "-d ::1/128 -j RETURN",
        f"-i {plan.numbers.probe} -p tcp -j REDIRECT --to-ports 10025",
    ]


def test_tproxy_takes_what_it_has_before_anything_new() -> None:
    plan = make_plan(replace(GOOD, mode=Mode.TPROXY, full=True, local=True, daemon_uid=107), slot=0)
    rules = [str(rule) for rule in chains(plan, 6)[0].rules]
    assert rules[0].endswith("! --tcp-flags FIN,SYN,RST,ACK SYN -m socket --transparent -j MARK --set-mark 0x25000000")
    assert rules[1] == "-p tcp -m multiport --sports 25 -m socket --transparent -j MARK --set-mark 0x25000000"
    assert rules[2].startswith("-i lo -p tcp -m multiport --dports 25 -m mark --mark 0x25000001 -j TPROXY")
    assert rules[3] == "-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN -j RETURN"
    assert rules[5] == (
        "-i eth0 -p tcp -m multiport --dports 25"
        " -j TPROXY --on-port 10025 --on-ip :: --tproxy-mark 0x25000000/0xffffffff"
    )


def test_the_daemon_is_never_intercepted() -> None:
    for mode in Mode:
        plan = make_plan(replace(GOOD, mode=mode, local=True, daemon_uid=107))
        for chain in chains(plan, 4):
            if chain.caller == "OUTPUT":
                text = " ".join(map(str, (chain.call, *chain.rules)))
                assert "! --uid-owner 107" in text or "--uid-owner 107 -j RETURN" in text, chain


def test_fail_open_has_no_guard_and_asks_for_heartbeats() -> None:
    plan = make_plan(replace(GOOD, fail=Fail.OPEN, daemon_uid=107))
    first, life = chains(plan, 4)
    assert str(first.rules[1]) == (
        "-m recent ! --rcheck --seconds 10 --name proxsmtp-gate.4 --mask 0.0.0.0 --rsource -j RETURN"
    )
    assert str(life.call) == (
        "-o lo -p udp -m udp --dport 10025 -m owner --uid-owner 107"
        " -m comment --comment 'proxsmtp-tp gate' -j PXLIFE-gate"
    )
    assert not [chain for chain in (first, life) if chain.table == "filter"]


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("fail", Fail)
def test_everything_that_is_made_is_known_to_be_ours(mode: Mode, fail: Fail) -> None:
    plan = make_plan(replace(GOOD, mode=mode, fail=fail, full=True, local=True, daemon_uid=107))
    known = set(every_chain(plan.names))
    for version in (4, 6):
        made = [(chain.table, chain.caller, chain.name) for chain in chains(plan, version)]
        assert len(made) == len(set(made))
        assert set(made) <= known
        assert all(chain.call.target == (chain.name, ()) for chain in chains(plan, version))
    assert "-t filter -N PXFWD-gate" in render(plan) or fail is Fail.OPEN
