"""The nft text: the very file of nftables/ with its defines filled in, and nothing else."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import ip_network

import pytest

from proxsmtp_tp.gateway.nft_text import TABLE_IN_FILE, defines, file_name, render, render_removal
from proxsmtp_tp.gateway.plan import REFUSE_HOLD, Fail, Mode, Options, make_plan
from proxsmtp_tp.gateway.templates import read_template

GOOD = Options("gate", interfaces=("eth0",))
PLANS = [make_plan(replace(GOOD, mode=mode)) for mode in Mode]


@pytest.mark.parametrize("plan", PLANS, ids=[mode.value for mode in Mode])
def test_only_defines_and_the_name_of_the_table_change(plan: object) -> None:
    assert isinstance(plan, type(PLANS[0]))
    template = read_template(file_name(plan.options.mode))
    text = render(plan, template)
    there, here = template.splitlines(), text.splitlines()
    assert len(there) == len(here)
    for old, new in zip(there, here, strict=True):
        if old.startswith("define "):
            assert new.split(" = ")[0] == old.split(" = ")[0]
        else:
            assert new == old.replace(TABLE_IN_FILE, "proxsmtp_gate")
    assert TABLE_IN_FILE not in text


@pytest.mark.parametrize("mode", Mode)
def test_a_file_explains_its_defines_and_uses_them_all(mode: Mode) -> None:
    template = read_template(file_name(mode))
    for name in re.findall(r"^define (\w+)", template, re.MULTILINE):
        assert template.count(f"${name}") >= 1, name
    # Replaced in one transaction: made, dropped, made anew.
    assert f"table inet {TABLE_IN_FILE}\ndelete table inet {TABLE_IN_FILE}\n\ntable inet {TABLE_IN_FILE} {{" in template


def test_values() -> None:
    plan = make_plan(
        replace(
            GOOD, interfaces=("eth1", "eth0"), ports=(587, 25), sources=(ip_network("2001:db8::/32"),),
            except_sources=(ip_network("192.0.2.1"), ip_network("2001:db8::1")), local=True, daemon_uid=107,
            full=True, out_port=2525,
        ),
        slot=1,
    )  # fmt: skip
    found = defines(plan)
    assert found["INTERFACES"] == '{ "eth0", "eth1" }'
    assert found["PORTS"] == found["GUARDED_PORTS"] == "{ 25, 587 }"
    assert (found["SOURCE4"], found["SOURCE6"]) == ("{ }", "{ 2001:db8::/32 }")
    assert (found["EXCEPT_SOURCE4"], found["EXCEPT_SOURCE6"]) == ("{ 192.0.2.1/32 }", "{ 2001:db8::1/128 }")
    assert found["LOCAL_USERS"] == "{ 0-106, 108-4294967294 }"
    assert found["UPSTREAM_PORTS"] == "{ 25, 587, 2525 }"
    assert found["MARK"] == "0x25000100"
    assert found["PROBE_INTERFACE"] == '"pxprobe1"'
    assert "LOCAL_MARK" not in found


def test_fail_open_waits_for_heartbeats() -> None:
    closed, opened = defines(make_plan(GOOD)), defines(make_plan(replace(GOOD, fail=Fail.OPEN, daemon_uid=107)))
    assert (closed["ALIVE"], closed["HEARTBEAT_PORTS"], closed["GUARDED_PORTS"]) == ("{ ipv4, ipv6 }", "{ }", "{ 25 }")
    assert opened["ALIVE"] == "{ ipv4 timeout 10s, ipv6 timeout 10s }"
    assert (opened["HEARTBEAT_PORTS"], opened["GUARDED_PORTS"]) == ("{ 10025 }", "{ }")
    assert opened["HEARTBEAT_USERS"] == "{ 107 }"
    assert closed["HEARTBEAT_USERS"] == "{ 0-4294967294 }"


def test_what_the_rules_refuse() -> None:
    plain, refusing = defines(make_plan(GOOD)), defines(make_plan(replace(GOOD, refuse_failed=True, daemon_uid=107)))
    assert (plain["FAILED_PORTS"], plain["FAILED_USERS"]) == ("{ }", "{ 0 }")
    assert (refusing["FAILED_PORTS"], refusing["FAILED_USERS"]) == ("{ 25 }", "{ 107 }")
    for mode in Mode:
        assert f"timeout {REFUSE_HOLD}s" in read_template(file_name(mode))


@pytest.mark.parametrize("mode", Mode)
def test_refuse_all_takes_what_would_be_intercepted(mode: Mode) -> None:
    plan = make_plan(replace(GOOD, mode=mode, ports=(587, 25)))
    refusing = defines(replace(plan, refuse_all=True))
    assert defines(plan)["REFUSED_PORTS"] == "{ }"
    assert refusing["REFUSED_PORTS"] == refusing["GUARDED_PORTS"] == "{ 25, 587 }"
    # The rules of interception, word for word, with another end.
    rules = [line.strip() for line in read_template(file_name(mode)).splitlines()]
    here = {rule.partition("counter reject with tcp reset")[0] for rule in rules if "@refused_ports" in rule}
    taken = {
        rule.partition("meta nfproto @alive")[0].replace("meta nfproto ipv4 ", "").replace("meta nfproto ipv6 ", "")
        for rule in rules
        if "meta nfproto @alive" in rule and "@ports" in rule
    }
    assert here == {rule.replace("@ports", "@refused_ports") for rule in taken}


def test_a_file_of_another_version_is_refused() -> None:
    plan, template = PLANS[0], read_template("redirect.nft")
    with pytest.raises(ValueError, match="EXTRA"):
        render(plan, template + "\ndefine EXTRA = 1\n")
    with pytest.raises(ValueError, match="MARK"):
        render(plan, template.replace("define MARK", "# define MARK"))
    with pytest.raises(ValueError, match="twice"):
        render(plan, template + "\ndefine MARK = 1\n")


def test_removal_works_whether_there_is_something_or_not() -> None:
    assert render_removal("t") == "table inet t\ndelete table inet t\n"


@pytest.mark.parametrize("mode", Mode)
def test_newer_nft_takes_it(mode: Mode) -> None:
    """nft 1.1 (Debian 13) takes the protocol for unknown behind `meta nfproto @set`: no `ip saddr`, no `reject`."""
    rules = [line for line in read_template(file_name(mode)).splitlines() if "nfproto @alive" in line]
    assert rules
    for rule in rules:
        assert not re.search(r"\bip6? [sd]addr\b|\breject\b", rule.partition("nfproto @alive")[2]), rule
