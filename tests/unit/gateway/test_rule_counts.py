"""The names of counted rules: those of the nft files, of the iptables method, and what is shown of a plan."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import ip_network
from itertools import product

import pytest

from proxsmtp_tp.gateway import rule_counts, xtables, xtables_names
from proxsmtp_tp.gateway.nft_text import file_name
from proxsmtp_tp.gateway.nftables import canonical
from proxsmtp_tp.gateway.plan import Existing, Fail, Mode, Options, make_plan
from proxsmtp_tp.gateway.rule_counts import Count
from proxsmtp_tp.gateway.templates import read_template

GOOD = Options("gate", interfaces=("eth0",), daemon_uid=107)
_RULE = re.compile(r"^\t\t(?!type |#)(\S.*)$", re.MULTILINE)


@pytest.mark.parametrize("mode", Mode)
def test_each_rule_of_a_file_counts(mode: Mode) -> None:
    template = read_template(file_name(mode))
    rules = _RULE.findall(template)
    assert len(rules) > 40
    for rule in rules:
        assert rule.count("counter") == 1, rule
        if "update @" in rule or "tproxy" in rule:
            # What such a statement does not take (another IP version, no listener) goes on, and is not counted.
            assert re.search(r"(update @\w+ \{[^}]*\}|tproxy ip6? to \S+) counter", rule), rule
    named = re.findall(r'comment "([^"]*)"', template)
    assert {rule_counts.base(name) for name in named} <= rule_counts.NAMES.keys()
    assert len(named) > 35
    for rule in rules:
        if "ip6 " in rule and "comment" in rule and "$PROBE" not in rule:
            assert rule.endswith(', IPv6"'), rule


def test_the_two_files_and_iptables_use_all_names() -> None:
    used = {name for mode in Mode for name in re.findall(r'comment "([^"]*)"', read_template(file_name(mode)))}
    assert {rule_counts.base(name) for name in used} == rule_counts.NAMES.keys()


PLANS = [
    replace(
        make_plan(replace(GOOD, mode=mode, fail=fail, local=local, full=full, refuse_failed=failed, existing=existing)),
        refuse_all=refuse_all,
    )
    for mode, fail, local, full, failed, existing, refuse_all in product(
        Mode, Fail, (False, True), (False, True), (False, True), Existing, (False, True)
    )
]


@pytest.mark.parametrize("version", [4, 6])
def test_iptables_has_names_for_what_counts(version: int) -> None:
    """Each rule with an effect has a name, in each combination of options; and the name is one of ours."""
    for plan in PLANS:
        for chain in xtables.chains(plan, version):
            names = xtables_names.names(chain, plan, version)
            for rule, name in zip(chain.rules, names, strict=True):
                assert not name or rule_counts.base(name) in rule_counts.NAMES, name
                assert not re.search(r", IPv[46]$", name) or name.endswith(f", IPv{version}"), name
                if (
                    rule.target[0] in {"REDIRECT", "TPROXY", "REJECT", "DROP", "CT"}
                    and "lo" not in dict(rule.base).values()
                ):
                    assert name, (str(rule), chain.name)


@pytest.mark.parametrize("version", [4, 6])
def test_iptables_names_say_what_a_rule_does(version: int) -> None:
    for plan in PLANS:
        found = {
            name: rule.target[0]
            for chain in xtables.chains(plan, version)
            for rule, name in zip(chain.rules, xtables_names.names(chain, plan, version), strict=True)
        }
        taken = {name for name in found if name.startswith("intercepted, ")}
        own = f"intercepted, this host, IPv{version}"
        probe = "intercepted, doctor --probe"
        expected = {f"intercepted, IPv{version}", probe, *([own] if plan.options.local else [])}
        assert taken == (set() if plan.refuse_all else expected)
        assert ("heartbeats" in found) is (plan.options.fail is Fail.OPEN)
        assert ("replies of servers" in found) is plan.options.full
        assert (f"refused in place of interception, IPv{version}" in found) is plan.refuse_all
        assert all(target == "REJECT" for name, target in found.items() if name.startswith("refused: "))


def test_what_is_shown() -> None:
    plan = make_plan(replace(GOOD, sources=(ip_network("192.0.2.0/24"),)))
    counts = [
        Count("intercepted, IPv6", 0, 0),
        Count("intercepted, IPv4", 0, 0),
        Count("intercepted, this host, IPv4", 0, 0),
        Count("heartbeats", 0, 0),
        Count("replies of servers", 3, 180),
        Count("refused: server unreachable, IPv4", 1, 60),
        Count("refused: server unreachable, IPv4", 2, 120),
        Count("somebody's", 9, 9),
    ]
    found = rule_counts.shown(plan, counts)
    assert [rule_counts.describe(count) for count in found] == [
        "intercepted, IPv4: never",
        "replies of servers: 3 packets",
        "refused: server unreachable, IPv4: 3 packets",
    ]
    assert found[2].octets == 180
    assert rule_counts.describe(Count("heartbeats", 1, 1)) == "heartbeats: 1 packet"


def test_the_number_is_no_difference_but_the_counter_is() -> None:
    def listing(*expr: str) -> str:
        rule = f'{{"rule": {{"chain": "c", "handle": 1, "expr": [{", ".join(expr)}]}}}}'
        return f'{{"nftables": [{{"chain": {{"name": "c"}}}}, {rule}]}}'

    none, many = ('{"counter": {"packets": %d, "bytes": %d}}' % numbers for numbers in ((0, 0), (7, 420)))  # noqa: UP031
    accept = '{"accept": null}'
    assert canonical(listing(none, accept), "").same_as(canonical(listing(many, accept), ""))
    assert not canonical(listing(accept), "").same_as(canonical(listing(many, accept), ""))
