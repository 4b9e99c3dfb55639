"""What other programs print, read: nft listings, iptables-save, and the configuration."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_network

import pytest

from proxsmtp_tp.config.addresses import InetAddress, UnixAddress
from proxsmtp_tp.config.settings import RuleFail, RuleMethod, RuleMode, Settings, TransparentProxy
from proxsmtp_tp.gateway.foreign import MarkUse, _statement_uses, saved_uses
from proxsmtp_tp.gateway.nftables import canonical
from proxsmtp_tp.gateway.options import options_from, user_id
from proxsmtp_tp.gateway.plan import Fail, Method, Mode, Numbers, PlanError
from proxsmtp_tp.gateway.routing import ForeignRule, Routing
from proxsmtp_tp.gateway.survey import Interface, slot_user


def _listing(*items: dict[str, object]) -> str:
    return json.dumps({"nftables": [{"metainfo": {}}, {"table": {"name": "t", "handle": 1}}, *items]})


def _set(name: str, *elements: object, handle: int = 3) -> dict[str, object]:
    return {"set": {"name": name, "type": "inet_service", "handle": handle, "elem": list(elements)}}


def _rule(chain: str, *expression: object, handle: int = 9) -> dict[str, object]:
    return {"rule": {"chain": chain, "handle": handle, "expr": list(expression)}}


CHAIN: dict[str, object] = {"chain": {"name": "c", "handle": 2, "hook": "input", "prio": 0}}


def test_tables_are_compared_by_meaning() -> None:
    one = canonical(_listing(_set("ports", 25, 587), CHAIN, _rule("c", {"accept": None})), "")
    same = canonical(_listing(CHAIN, _rule("c", {"accept": None}, handle=77), _set("ports", 587, 25, handle=5)), "")
    assert one.same_as(same)
    for other in (
        _listing(_set("ports", 25), CHAIN, _rule("c", {"accept": None})),
        _listing(_set("ports", 25, 587), CHAIN, _rule("c", {"drop": None})),
        _listing(_set("ports", 25, 587), CHAIN),
        _listing(_set("ports", 25, 587), CHAIN, _rule("c", {"accept": None}), {"counter": {"name": "x"}}),
    ):
        assert not one.same_as(canonical(other, ""))


def test_the_order_of_rules_is_their_meaning() -> None:
    first, second = _rule("c", {"accept": None}), _rule("c", {"drop": None})
    assert not canonical(_listing(CHAIN, first, second), "").same_as(canonical(_listing(CHAIN, second, first), ""))


def test_heartbeats_come_and_go() -> None:
    expiring = {"elem": {"val": "ipv4", "timeout": 3, "expires": 1}}
    assert canonical(_listing(_set("alive", expiring)), "").same_as(canonical(_listing(_set("alive")), ""))
    assert not canonical(_listing(_set("alive", "ipv4")), "").same_as(canonical(_listing(_set("alive")), ""))


def test_lines_of_chains_are_kept_for_people() -> None:
    """As many as there are in `Table.chains`: one for the chain, whose hook nft shows if it has one, and one a rule."""
    text = "table inet t {\n\tset s {\n\t}\n\n\tchain c {\n\t\ttype filter hook input;\n\t\taccept\n\t}\n"
    text += "\n\tchain d {\n\t\tdrop\n\t}\n}\n"
    assert canonical(_listing(), text).text == {"c": ("type filter hook input;", "accept"), "d": ("chain d", "drop")}


@pytest.mark.parametrize(
    ("line", "uses"),
    [
        ("-A PREROUTING -m mark --mark 0x1 -j ACCEPT", [(0x1, 0xFFFFFFFF)]),
        ("-A PREROUTING -m mark --mark 0x25000000/0xff000000 -j DROP", [(0x25000000, 0xFF000000)]),
        ("-A PREROUTING -j MARK --set-xmark 0x4000/0x4000", [(0x4000, 0x4000)]),
        ("-A PREROUTING -j TPROXY --on-port 1 --on-ip :: --tproxy-mark 0x5/0xf", [(0x5, 0xF)]),
        ("-A PXIN-gate -j MARK --set-xmark 0x25000000/0xffffffff", []),
        ("-A PREROUTING -m mark --mark 0x25000000 -j PXIN-gate", []),
        (":PREROUTING ACCEPT [0:0]", []),
    ],
)
def test_marks_in_saved_rules(line: str, uses: list[tuple[int, int]]) -> None:
    assert [(use.value, use.mask) for use in saved_uses("iptables", line, ("PXIN-gate",))] == uses


@pytest.mark.parametrize(
    ("statement", "uses"),
    [
        ({"match": {"left": {"meta": {"key": "mark"}}, "right": 7}}, [(7, 0xFFFFFFFF)]),
        ({"match": {"left": {"ct": {"key": "mark"}}, "right": {"set": [1, 2]}}}, [(1, 0xFFFFFFFF), (2, 0xFFFFFFFF)]),
        ({"match": {"left": {"&": [{"meta": {"key": "mark"}}, 0xF0]}, "right": 0x10}}, [(0x10, 0xF0)]),
        ({"mangle": {"key": {"meta": {"key": "mark"}}, "value": 9}}, [(9, 0xFFFFFFFF)]),
        ({"mangle": {"key": {"ct": {"key": "mark"}}, "value": {"|": [{"ct": {"key": "mark"}}, 8]}}}, [(8, 0xFFFFFFFF)]),
        ({"match": {"left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 25}}, []),
        ({"match": {"left": {"meta": {"key": "mark"}}, "right": "@marks"}}, []),
        ({"accept": None}, []),
    ],
)
def test_marks_in_nft_rules(statement: dict[str, object], uses: list[tuple[int, int]]) -> None:
    assert [(use.value, use.mask) for use in _statement_uses("here", statement)] == uses


def test_whom_a_mark_concerns() -> None:
    assert MarkUse("x", 0x25000000).concerns(0x25000000)
    assert not MarkUse("x", 0x25000000).concerns(0x25000100)
    assert MarkUse("x", 0x25000000, 0xFF000000).concerns(0x25000100)
    assert not MarkUse("x", 0, 0xFFFF).concerns(0x25000000)  # "no mark" is nobody's


def test_who_uses_a_slot() -> None:
    own = Numbers(0)
    nobody = Routing(frozenset(), frozenset(), (), frozenset({254, 255}))
    assert slot_user(own, nobody, ()) is None
    for rule, text in (
        (ForeignRule(4, 101, 0, 0, 254), "priority"),
        (ForeignRule(6, 500, 0, 0, 25000), "route table 25000"),
        (ForeignRule(4, 500, 0x25000000, 0xFF000000, 254), "matches mark"),
        (ForeignRule(4, 500, 0x1, 0x1, 254), "matches mark"),  # our local mark has that bit
    ):
        assert text in (slot_user(own, replace(nobody, foreign_rules=(rule,)), ()) or "")
    assert slot_user(own, replace(nobody, foreign_rules=(ForeignRule(4, 500, 0xCA6C, 0xFFFFFFFF, 51820),)), ()) is None
    assert slot_user(own, replace(nobody, foreign_tables=frozenset({25000})), ())
    assert slot_user(own, nobody, (MarkUse("nft table ip x", 0x25000001),))


def test_an_address_that_redirect_can_use() -> None:
    interface = Interface("eth0", ("192.0.2.1/24", "fe80::1/64"))
    assert interface.has_address(4)
    assert not interface.has_address(6)
    assert Interface("eth0", ("2001:db8::1/64",)).has_address(6)
    assert str(Interface("eth1", ())) == "eth1 (no address)"


def test_from_the_configuration() -> None:
    settings = Settings(
        instance="gate", rule_method=RuleMethod.IPTABLES, rule_mode=RuleMode.TPROXY, rule_interface=("eth0",),
        rule_source=(ip_network("192.0.2.0/24"),), rule_port=(25, 587), rule_fail=RuleFail.OPEN, user="107",
        transparent_proxy=TransparentProxy.FULL, out_address=InetAddress("", 2525), rule_local=True,
        listen=(UnixAddress("/run/x"), InetAddress("", 10030)),
    )  # fmt: skip
    found = options_from(settings)
    assert (found.method, found.mode, found.fail) == (Method.IPTABLES, Mode.TPROXY, Fail.OPEN)
    assert (found.interfaces, found.ports, found.listen_port) == (("eth0",), (25, 587), 10030)
    assert (found.daemon_uid, found.full, found.out_port, found.local) == (107, True, 2525, True)


def test_the_command_line_overrides_the_configuration() -> None:
    settings = Settings(rule_interface=("eth0",), rule_listen_port=10026)
    found = options_from(settings, {"rule_interface": ("eth1",), "rule_mode": None, "rule_local": False})
    assert (found.interfaces, found.mode, found.listen_port) == (("eth1",), Mode.REDIRECT, 10026)


def test_what_the_configuration_lacks() -> None:
    with pytest.raises(PlanError, match="no TCP port"):
        options_from(Settings(listen=(UnixAddress("/run/x"),)))
    with pytest.raises(PlanError, match="there is no user"):
        user_id("no-such-user-here")
    assert user_id("root") == 0
    assert user_id("12345") == 12345
