"""Rules of other programs on the same host: they keep working, and their marks, tables and priorities are not used."""

from __future__ import annotations

import pytest

from proxsmtp_tp.gateway.errors import GatewayError
from proxsmtp_tp.gateway.plan import MARK_BASE, Method, Mode, Numbers, preferred_slot
from tests.gateway import foreign_rulesets
from tests.gateway.network import SERVER, greeting, run
from tests.gateway.rules_host import METHODS, MODES, RulesHost

OWN = Numbers(preferred_slot("test"))
BOTH = [(method, mode) for method in METHODS for mode in MODES]


@pytest.mark.parametrize(("method", "mode"), BOTH)
def test_beside_firewalld_ufw_and_docker(host: RulesHost, method: Method, mode: Mode) -> None:
    gateway = host.net.gateway
    run(gateway, "nft", "-f", "-", stdin=foreign_rulesets.FIREWALLD)
    run(gateway, "iptables-nft-restore", stdin=foreign_rulesets.DOCKER)
    run(gateway, "iptables-legacy-restore", stdin=foreign_rulesets.UFW)
    before = host.snapshot()
    host.server()
    host.daemon(mode)
    host.install(method=method, mode=mode)
    for version in (4, 6):
        assert greeting(host.net.client, SERVER[version]) == f"daemon for {SERVER[version]}"
    assert not host.install(method=method, mode=mode).changed
    host.remove()
    assert host.snapshot() == before


@pytest.mark.parametrize("method", METHODS)
def test_among_thousands_of_rules(host: RulesHost, method: Method) -> None:
    run(host.net.gateway, "nft", "-f", "-", stdin=foreign_rulesets.blocklist(3000))
    run(host.net.gateway, "iptables-legacy-restore", stdin=foreign_rulesets.xtables_blocklist(3000))
    before = host.snapshot()
    host.daemon(Mode.TPROXY)
    host.install(method=method, mode=Mode.TPROXY)
    assert host.check(method=method, mode=Mode.TPROXY).in_place
    assert greeting(host.net.client, SERVER[4]) == f"daemon for {SERVER[4]}"
    host.remove()
    assert host.snapshot() == before


FOREIGN = {
    "a rule with our priority": (f"ip rule add from 203.0.113.7 priority {OWN.priority + 1} lookup main", "priority"),
    "a rule for our mark": (f"ip -6 rule add fwmark {OWN.mark:#x} priority 500 lookup main", "matches mark"),
    "a rule for some bits": (
        f"ip rule add fwmark {OWN.mark & 0xFF00:#x}/0xff00 priority 90 lookup main",
        "matches mark",
    ),
    "a rule for our table": (f"ip rule add from 203.0.113.7 priority 500 lookup {OWN.table}", "route table"),
    "a route in our table": (f"ip -6 route add unreachable 2001:db8:9::/48 table {OWN.table}", "route table"),
    "nft compares": (f"nft add rule ip other pre meta mark {OWN.mark:#x} accept", "nft table ip other, chain pre"),
    "nft sets": (f"nft add rule ip other pre ct mark set {OWN.local_mark:#x}", "nft table ip other, chain pre"),
    "nft compares bits": (
        f"nft add rule ip other pre meta mark and 0xff00ff00 == {OWN.mark:#x} accept",
        "nft table ip other, chain pre",
    ),
    "iptables-nft": (
        f"iptables-nft -t mangle -A PREROUTING -m mark --mark {OWN.mark:#x} -j ACCEPT",
        "chain PREROUTING uses",
    ),
    "iptables-legacy": (
        f"ip6tables-legacy -t mangle -A OUTPUT -j MARK --set-mark {OWN.mark:#x}",
        "ip6tables-legacy chain OUTPUT",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_numbers_that_another_program_uses_are_not_taken(host: RulesHost, name: str) -> None:
    command, text = FOREIGN[name]
    gateway = host.net.gateway
    run(gateway, "nft", "add table ip other; add chain ip other pre { type filter hook prerouting priority 0; }")
    run(gateway, *command.split())
    before = host.snapshot()
    host.daemon(Mode.TPROXY)
    outcome = host.install(mode=Mode.TPROXY)
    assert outcome.plan is not None
    taken = outcome.plan.numbers
    assert taken.slot != OWN.slot
    assert text in outcome.notes[0]
    assert f"taken instead: mark {taken.mark:#x}" in outcome.notes[1]
    # The second run stays with what was taken, without a word, and traffic flows by it.
    again = host.install(mode=Mode.TPROXY)
    assert (again.changed, again.plan) == (False, outcome.plan)
    assert greeting(host.net.client, SERVER[4]) == f"daemon for {SERVER[4]}"
    host.remove()
    assert host.snapshot() == before


def test_a_rule_that_catches_every_mark_of_ours_is_refused(host: RulesHost) -> None:
    run(
        host.net.gateway,
        "ip",
        "rule",
        "add",
        "fwmark",
        f"{MARK_BASE:#x}/0xff000000",
        "priority",
        "90",
        "lookup",
        "main",
    )
    before = host.snapshot()
    with pytest.raises(GatewayError, match=r"all 64 sets .* are in use: ip -4 rule 90"):
        host.install(mode=Mode.TPROXY)
    assert host.snapshot() == before
    # Redirect needs no mark.
    assert host.install(mode=Mode.REDIRECT).changed


def test_a_program_that_comes_later_is_reported_and_avoided(host: RulesHost) -> None:
    host.install(mode=Mode.TPROXY)
    run(host.net.gateway, "ip", "rule", "add", "fwmark", f"{OWN.mark:#x}", "priority", "50", "lookup", "main")
    assert not host.check(mode=Mode.TPROXY).in_place
    outcome = host.install(mode=Mode.TPROXY)
    assert outcome.changed
    assert "ip -4 rule 50" in outcome.notes[0]
    assert host.check(mode=Mode.TPROXY).in_place


def test_nothing_of_anybody_else_is_touched(host: RulesHost) -> None:
    """Things that look like ours but are not: a table with a similar name, a rule beside ours, another chain."""
    gateway = host.net.gateway
    run(gateway, "nft", "add table inet proxsmtp_test2; add table ip proxsmtp_test")
    run(gateway, "iptables-legacy", "-t", "nat", "-N", "PXIN-test2")
    run(gateway, "ip", "rule", "add", "from", "203.0.113.7", "priority", "99", "lookup", "main")
    before = host.snapshot()
    for method in METHODS:
        host.install(method=method, mode=Mode.TPROXY)
    host.remove()
    assert host.snapshot() == before
