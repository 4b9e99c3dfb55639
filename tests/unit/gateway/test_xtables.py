"""The iptables rules of a plan, as an administrator would read them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from proxsmtp_tp.gateway.plan import Fail, Method, Mode, Options, make_plan
from proxsmtp_tp.gateway.xtables import chains, every_chain, render

GOOD = Options("gate", method=Method.IPTABLES, interfaces=("eth0", "eth1"))
NEVER_4 = [
    *(f"-m addrtype --dst-type {kind} -j RETURN" for kind in ("LOCAL", "BROADCAST", "ANYCAST", "MULTICAST")),
    "-d 0.0.0.0/8 -j RETURN",
    "-d 127.0.0.0/8 -j RETURN",
]
NEVER_6 = [
    *(f"-m addrtype --dst-type {kind} -j RETURN" for kind in ("LOCAL", "ANYCAST", "MULTICAST")),
    "-d ::/64 -j RETURN",
]
CALL = "-p tcp -m multiport --dports 25 -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -m comment --comment 'proxsmtp-tp gate'"


def test_redirect() -> None:
    plan = make_plan(replace(GOOD, sources=(ip_network("192.0.2.0/24"),), except_destinations=(ip_network("::1"),)))
    first, guard, existing = chains(plan, 4)
    assert (first.table, first.caller, str(first.call)) == ("nat", "PREROUTING", f"{CALL} -j PXIN-gate")
    assert [str(rule) for rule in first.rules] == [
        *NEVER_4,
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
    assert (existing.table, existing.caller, existing.name) == ("filter", "FORWARD", "PXOLD-gate")
    assert "--tcp-flags SYN,RST NONE" in str(existing.call)
    reset = "REJECT --reject-with tcp-reset"
    assert [str(rule).rpartition(" -j ")[2] for rule in existing.rules] == ["RETURN"] * (1 + len(NEVER_4)) + [reset] * 4
    # No IPv6 network is among the sources: only the probe is intercepted.
    assert [str(rule) for rule in chains(plan, 6)[0].rules] == [
        *NEVER_6,
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
    assert rules[4:8] == NEVER_6
    assert rules[8] == (
        "-i eth0 -p tcp -m multiport --dports 25"
        " -j TPROXY --on-port 10025 --on-ip :: --tproxy-mark 0x25000000/0xffffffff"
    )


def test_a_server_that_could_not_be_reached_is_left_to_the_guard() -> None:
    plan = make_plan(replace(GOOD, refuse_failed=True, daemon_uid=107, ports=(25, 587)))
    first, failed, guard, *_ = chains(plan, 4)
    recent = "-m tcp --dport 25 -m recent --rcheck --seconds 10 --name proxsmtp-gate.4.25 --rdest"
    assert f"-p tcp {recent} -j RETURN" in [str(rule) for rule in first.rules]
    assert str(failed.call) == (
        "-p udp -m multiport --dports 25,587 -m owner --uid-owner 107 -m comment --comment 'proxsmtp-tp gate'"
        " -j PXFAIL-gate"
    )
    assert [str(rule) for rule in failed.rules] == [
        f"-p udp -m udp --dport {port} -m recent --set --name proxsmtp-gate.4.{port} --rdest -j DROP"
        for port in (25, 587)
    ]
    assert "-i eth0 -p tcp -j REJECT --reject-with tcp-reset" in [str(rule) for rule in guard.rules]
    opened = chains(replace(plan, options=replace(plan.options, fail=Fail.OPEN)), 4)
    (guard,) = [chain for chain in opened if chain.name == "PXFWD-gate"]
    assert str(guard.rules[1]) == f"-i eth0 -p tcp {recent} -j REJECT --reject-with tcp-reset"
    # The recent match keeps one address: in full mode what one client met would count for all.
    assert "PXFAIL" not in render(make_plan(replace(GOOD, refuse_failed=True, full=True)))


def test_the_daemon_is_never_intercepted() -> None:
    for mode in Mode:
        plan = make_plan(replace(GOOD, mode=mode, local=True, daemon_uid=107))
        for chain in chains(plan, 4):
            if chain.caller == "OUTPUT":
                text = " ".join(map(str, (chain.call, *chain.rules)))
                assert "! --uid-owner 107" in text or "--uid-owner 107 -j RETURN" in text, chain


SILENT = "-m recent ! --rcheck --seconds 10 --name proxsmtp-gate.4 --mask 0.0.0.0 --rsource"
"""There is no heartbeat."""


def test_fail_open_asks_for_heartbeats_and_guards_against_what_it_cannot_intercept() -> None:
    plan = make_plan(replace(GOOD, fail=Fail.OPEN, daemon_uid=107))
    first, life, guard, existing = chains(plan, 4)
    assert str(first.rules[len(NEVER_4)]) == f"{SILENT} -j RETURN"
    assert str(life.call) == (
        "-o lo -p udp -m udp --dport 10025 -m owner --uid-owner 107"
        " -m comment --comment 'proxsmtp-tp gate' -j PXLIFE-gate"
    )
    assert existing.name == "PXOLD-gate"
    assert first.rules[len(NEVER_4)] in existing.rules
    assert [str(rule) for rule in guard.rules] == [
        "-m conntrack --ctstate DNAT -j RETURN",
        f"! -d 0.0.0.0/8 -p tcp -m tcp --tcp-flags FIN,RST NONE {SILENT} -j RETURN",
        "-i eth0 -p tcp -j REJECT --reject-with tcp-reset",
        "-i eth1 -p tcp -j REJECT --reject-with tcp-reset",
    ]


@pytest.mark.parametrize("fail", Fail)
def test_the_guard_sees_every_syn(fail: Fail) -> None:
    """Also one with FIN or RST, which connection tracking does not take for one."""
    plan = make_plan(replace(GOOD, mode=Mode.TPROXY, fail=fail, local=True, daemon_uid=107))
    guards = [
        chain for version in (4, 6) for chain in chains(plan, version) if "FWD" in chain.name or "PXOWN" in chain.name
    ]
    assert len(guards) == (4 if fail is Fail.CLOSED else 2)
    assert all("--tcp-flags SYN,ACK SYN" in str(chain.call) for chain in guards)


@pytest.mark.parametrize(("mode", "full", "there"), [
    (Mode.REDIRECT, False, False), (Mode.REDIRECT, True, True), (Mode.TPROXY, False, True), (Mode.TPROXY, True, True),
])  # fmt: skip
def test_what_routers_report_reaches_transparent_sockets(mode: Mode, full: bool, there: bool) -> None:
    plan = make_plan(replace(GOOD, mode=mode, full=full), slot=0)
    for version, protocol in ((4, "icmp"), (6, "icmpv6")):
        found = [chain for chain in chains(plan, version) if chain.name == "PXICMP-gate"]
        assert bool(found) is there
        for chain in found:
            assert str(chain.call).startswith(f"-p {protocol} -m comment")
            (rule,) = chain.rules
            assert str(rule) == f"-p {protocol} -m socket --transparent -j MARK --set-mark 0x25000000"


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


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("full", [False, True])
def test_refuse_all_takes_nothing_and_hides_it_from_dnat(version: int, mode: Mode, full: bool) -> None:
    plan = make_plan(replace(GOOD, mode=mode, full=full, local=True, daemon_uid=107, refuse_failed=True), slot=0)
    found = {(chain.table, chain.name): chain for chain in chains(replace(plan, refuse_all=True), version)}
    assert not [key for key in found if key[0] == "nat"]
    texts = [str(rule) for chain in found.values() for rule in chain.rules]
    assert not [text for text in texts if "REDIRECT" in text or "CONNMARK" in text]
    # What the daemon has: of a socket, or with its mark.
    took = [text for text in texts if "-j TPROXY" in text or "-j MARK" in text]
    assert [text for text in took if "-m socket" not in text and "mark --mark" not in text] == []
    never = NEVER_4 if version == 4 else NEVER_6
    assert [str(rule) for rule in found["raw", "PXIN-gate"].rules] == [
        *never,
        "-i eth0 -p tcp -j CT --notrack",
        "-i eth1 -p tcp -j CT --notrack",
        "-i pxprobe0 -p tcp -j CT --notrack",
    ]
    assert [str(rule) for rule in found["raw", "PXOWN-gate"].rules] == [*never, "-p tcp -j CT --notrack"]
    guard = [str(rule) for rule in found["filter", "PXFWD-gate"].rules]
    assert guard[-1] == "-i pxprobe0 -p tcp -j REJECT --reject-with tcp-reset"
    owned = every_chain(plan.names)
    assert all((chain.table, chain.caller, chain.name) in owned for chain in found.values())
