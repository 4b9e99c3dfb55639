"""Whether the rules intercept a connection, and because of what: each condition of the rules, one at a time.

tests/gateway/test_traffic.py compares the same function with the kernel.
"""

from __future__ import annotations

import re
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from proxsmtp_tp.gateway import plan as plans
from proxsmtp_tp.gateway.interception import NO_SERVER, Ends, interception
from proxsmtp_tp.gateway.plan import Options, make_plan

ENDS = {4: Ends("192.0.2.7", "198.51.100.25", 25), 6: Ends("2001:db8:1::7", "2001:db8:2::25", 25)}
NETWORKS: dict[str, Any] = {
    "sources": (ip_network("192.0.2.0/24"), ip_network("2001:db8:1::/48")),
    "except_sources": (ip_network("192.0.2.66"), ip_network("2001:db8:1::66")),
    "except_destinations": (ip_network("198.51.100.77"), ip_network("2001:db8:2::77")),
}


def options(**changes: Any) -> Options:
    return Options(**{"instance": "x", "interfaces": ("lan0", "lan1"), **changes})


@pytest.mark.parametrize("version", [4, 6])
def test_what_is_intercepted(version: int) -> None:
    for changes in ({}, NETWORKS):
        found = interception(make_plan(options(**changes)), ENDS[version])
        assert found.intercepted
        assert found.why == "if it comes in by lan0, lan1 (RuleInterface)"


@pytest.mark.parametrize(
    ("ends", "why"),
    [
        (Ends("192.0.2.7", "198.51.100.25", 587), "port 587 is not in RulePort (25)"),
        (Ends("203.0.113.7", "198.51.100.25", 25), "203.0.113.7 is not in RuleSource"),
        (Ends("2001:db8:9::7", "2001:db8:2::25", 25), "2001:db8:9::7 is not in RuleSource"),
        (Ends("192.0.2.66", "198.51.100.25", 25), "is in RuleExceptSource (192.0.2.66/32)"),
        (Ends("192.0.2.7", "198.51.100.77", 25), "is in RuleExceptDestination (198.51.100.77/32)"),
        (Ends("2001:db8:1::7", "2001:db8:2::77", 25), "is in RuleExceptDestination (2001:db8:2::77/128)"),
        (Ends("192.0.2.7", "127.0.0.9", 25), "is no server's address (127.0.0.0/8)"),
        (Ends("192.0.2.7", "224.0.0.1", 25), "of no single host"),
        (Ends("192.0.2.7", "192.0.2.1", 25, server_is_here=True), "is an address of this host"),
        (Ends("192.0.2.1", "198.51.100.25", 25, client_is_here=True), "RuleLocal is off"),
        (Ends("192.0.2.7", "2001:db8:2::25", 25), "different IP versions"),
    ],
)
def test_what_is_not_and_why(ends: Ends, why: str) -> None:
    found = interception(make_plan(options(**NETWORKS)), ends)
    assert not found.intercepted
    assert why in found.why


def test_without_interfaces_only_the_hosts_own_mail_can_be_meant() -> None:
    plan = make_plan(options(interfaces=(), local=True, daemon_uid=7))
    assert "no RuleInterface" in interception(plan, ENDS[4]).why
    own = Ends("192.0.2.1", "198.51.100.25", 25, client_is_here=True)
    assert interception(plan, own).intercepted
    assert "RuleLocal" in interception(plan, own).why


def test_rules_that_refuse_everything() -> None:
    plan = plans.Plan(options(), make_plan(options()).numbers, refuse_all=True)
    found = interception(plan, ENDS[4])
    assert (found.intercepted, found.refused) == (False, True)


@pytest.mark.parametrize("file", ["redirect.nft", "tproxy.nft"])
def test_what_is_no_server_is_the_same_in_the_rules(file: str) -> None:
    text = (Path(__file__).parents[3] / "nftables" / file).read_text("utf-8")
    named = re.findall(r"set no_server[46] \{.*?elements = \{ (.*?) \}", text)
    assert {ip_network(part) for group in named for part in group.split(", ")} == set(NO_SERVER)
