"""Promise 10: interception opens no path that the host's own forwarding policy closes, unless told to."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.config.settings import Settings
from proxsmtp_tp.gateway import rulesets, survey
from proxsmtp_tp.gateway.doctor.findings import Finding, Setup
from proxsmtp_tp.gateway.doctor.forwarding import look_at_forwarding_policy
from proxsmtp_tp.gateway.errors import GatewayError, RequirementError
from proxsmtp_tp.gateway.plan import Forward, Method, Mode
from tests.gateway.foreign_rulesets import DOCKER, FIREWALLD, UFW, blocklist, xtables_blocklist
from tests.gateway.network import SERVER, greeting, inside, run
from tests.gateway.rules_host import METHODS, MODES, RulesHost, options

if TYPE_CHECKING:
    from proxsmtp_tp.gateway.install import Outcome

BOTH = [(method, mode) for method in METHODS for mode in MODES]
# "Outgoing port 25 only from the mail server."
ONLY_ONE = """table inet guarding { chain forward { type filter hook forward priority filter; policy accept;
    iifname "lan0" tcp dport 25 ip saddr != 192.0.2.25 drop
    iifname "lan0" tcp dport 25 ip6 saddr != 2001:db8:1::25 reject with tcp reset
} }"""
ONE_NOT = """table inet guarding { chain forward { type filter hook forward priority filter; policy drop;
    ct state established,related accept
    ip saddr 192.0.2.77 tcp dport 25 drop
    ip6 saddr 2001:db8:1::77 tcp dport 25 drop
    iifname "lan0" accept
} }"""
ONE_SERVER_NOT = """table inet guarding { chain forward { type filter hook forward priority filter; policy accept;
    ip daddr 198.51.100.66 drop
    ip6 daddr 2001:db8:2::66 drop
} }"""
ALLOWED = """table inet guarding {
chain forward { type filter hook forward priority filter; policy drop;
    ct state established,related accept
    iifname "lan0" accept
}
}"""


def load(host: RulesHost, script: str) -> None:
    """Somebody's ruleset."""
    run(host.net.gateway, "nft", "-f", "-", stdin=script.replace("}", "\n}\n"))


def refused(host: RulesHost, **changes: object) -> str:
    """What install-rules says when it refuses; nothing may have changed."""
    before = host.snapshot()
    with pytest.raises(RequirementError) as caught:
        host.install(**changes)
    assert host.snapshot() == before
    return str(caught.value)


@pytest.mark.parametrize(("method", "mode"), BOTH)
@pytest.mark.parametrize(
    ("script", "named"),
    [
        (ONLY_ONE, ["192.0.2.", "2001:db8:1:", "ip saddr != 192.0.2.25 drop"]),
        (ONE_NOT, ["192.0.2.77 -> ", "2001:db8:1::77 -> ", "ip saddr 192.0.2.77 tcp dport 25 drop"]),
        (ONE_SERVER_NOT, ["-> 198.51.100.66:25", "-> [2001:db8:2::66]:25", "ip daddr 198.51.100.66 drop"]),
    ],
    ids=["only one", "one not", "one server not"],
)
def test_what_forward_drops_is_not_opened(
    host: RulesHost, method: Method, mode: Mode, script: str, named: list[str]
) -> None:
    load(host, script)
    said = refused(host, method=method, mode=mode)
    assert "nft table inet guarding" in said
    assert "--forward overrule" in said
    assert [text for text in named if text not in said] == []
    done: Outcome = host.install(method=method, mode=mode, forward=Forward.OVERRULE)
    assert done.changed
    assert any(note.startswith("overruled: nft table inet guarding") for note in done.notes)


@pytest.mark.parametrize("tool", ["legacy", "nft"])
def test_rules_of_iptables_count_too(host: RulesHost, tool: str) -> None:
    for program, client in ((f"iptables-{tool}", "192.0.2.77"), (f"ip6tables-{tool}", "2001:db8:1::77")):
        run(host.net.gateway, program, "-A", "FORWARD", "-s", client, "-p", "tcp", "--dport", "25", "-j", "REJECT")
    said = refused(host)
    assert f"iptables-{tool} (-A FORWARD -s 192.0.2.77" in said
    assert f"ip6tables-{tool} (-A FORWARD -s 2001:db8:1::77" in said


@pytest.mark.parametrize("method", METHODS)
def test_exceptions_leave_it_to_forward(host: RulesHost, method: Method) -> None:
    load(host, ONE_NOT)
    host.server()
    host.daemon(Mode.REDIRECT)
    excepted = tuple(ip_network(f"{address}") for address in ("192.0.2.77", "2001:db8:1::77"))
    assert host.install(method=method, except_sources=excepted).notes == []
    for version, address in ((4, "192.0.2.77/24"), (6, "2001:db8:1::77/64")):
        assert greeting(host.net.client, SERVER[version]).startswith("daemon")
        run(host.net.client, "ip", "addr", "add", address, "dev", "eth0", *(["nodad"] if version == 6 else []))
        assert greeting(host.net.client, SERVER[version], source=address.partition("/")[0], wait=1) == "TimeoutError"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("tool", "script"),
    [
        ("nft", ALLOWED), ("nft", FIREWALLD), ("nft", blocklist(1000)), ("iptables-nft-restore", UFW),
        ("iptables-legacy-restore", DOCKER), ("iptables-legacy-restore", xtables_blocklist(1000)),
    ],
    ids=["policy drop", "firewalld", "blocklist", "ufw", "docker", "xtables blocklist"],
)  # fmt: skip
def test_who_forwards_these_clients_is_no_obstacle(host: RulesHost, mode: Mode, tool: str, script: str) -> None:
    if tool == "nft":
        run(host.net.gateway, "nft", "-f", "-", stdin=script)
    else:
        run(host.net.gateway, tool, stdin=script)
    assert host.install(mode=mode).notes == []


def test_what_is_dropped_before_interception_is_no_obstacle(host: RulesHost) -> None:
    load(
        host,
        "table inet raw { chain pre { type filter hook prerouting priority raw; ip saddr 192.0.2.77 drop; } }",
    )
    assert host.install().notes == []


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["prohibit", "unreachable", "blackhole"])
def test_policy_rules_are_not_overruled(host: RulesHost, method: Method, kind: str) -> None:
    gateway = host.net.gateway
    for family, client in (("-4", "192.0.2.77"), ("-6", "2001:db8:1::77")):
        run(gateway, "ip", family, "rule", "add", "from", client, "priority", "1000", kind)
    said = refused(host, method=method)
    assert f"ip -4 rule 1000 from 192.0.2.77/32 {kind} does not forward 192.0.2.77 -> " in said
    assert f"ip -6 rule 1000 from 2001:db8:1::77/128 {kind}" in said
    excepted = tuple(ip_network(address) for address in ("192.0.2.77", "2001:db8:1::77"))
    assert host.install(method=method, except_sources=excepted).notes == []


def test_rules_by_interface_and_routes_of_other_tables(host: RulesHost) -> None:
    gateway = host.net.gateway
    run(gateway, "ip", "rule", "add", "iif", "lan0", "to", "198.51.100.66", "priority", "1000", "prohibit")
    assert "198.51.100.66 (from lan0)" in refused(host)
    run(gateway, "ip", "rule", "del", "priority", "1000")
    run(gateway, "ip", "route", "add", "prohibit", "198.51.100.64/28", "table", "77")
    run(gateway, "ip", "rule", "add", "from", "192.0.2.0/24", "lookup", "77", "priority", "1000")
    assert "lookup 77: prohibit 198.51.100.64/28" in refused(host)
    run(gateway, "ip", "rule", "del", "priority", "1000")
    # What the daemon may not reach either is not opened.
    run(gateway, "ip", "route", "add", "prohibit", "198.51.100.66")
    assert host.install().notes == []


def test_rules_in_place_come_back_with_a_warning(host: RulesHost) -> None:
    host.install()
    run(host.net.gateway, "nft", "flush", "ruleset")
    load(host, ONE_NOT)
    done = host.install()
    assert done.changed
    assert any("interception lets it pass" in note for note in done.notes)
    host.remove()
    refused(host)


def test_a_ruleset_that_cannot_be_copied_is_refused(host: RulesHost, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = rulesets.Ruleset("nft table inet x", (["nft", "-f", "-"], "table inet x { chain c { unknown drop; } }"))
    monkeypatch.setattr(rulesets, "foreign_rulesets", lambda _plan: [broken])
    with pytest.raises(GatewayError, match=r"cannot be copied .* goes on without asking"):
        host.install()
    assert host.install(forward=Forward.OVERRULE).changed
    # In place: it comes back.
    run(host.net.gateway, "nft", "flush", "ruleset")
    assert host.install().changed


def doctor(host: RulesHost, forward: Forward) -> list[Finding]:
    """What doctor says of the forwarding policy."""

    def look() -> list[Finding]:
        plan, _ = survey.choose_plan(options(forward=forward), host.store().read_all())
        return list(look_at_forwarding_policy(Setup(Settings(), "x.conf", plan, host.store())))

    return inside(host.net.gateway, look)


def test_doctor_lists_what_is_overruled(host: RulesHost) -> None:
    """With our own rules in place, which are no policy of the host; an error unless RuleForward says so."""
    host.install()
    assert [(found.ok, found.text) for found in doctor(host, Forward.REFUSE)] == [
        (True, "what is intercepted would also be forwarded")
    ]
    load(host, ONE_NOT)
    run(host.net.gateway, "ip", "rule", "add", "from", "192.0.2.78", "priority", "1000", "prohibit")
    for forward, ok in ((Forward.REFUSE, False), (Forward.OVERRULE, True)):
        found = doctor(host, forward)
        assert {each.ok for each in found} == {ok}
        said = "\n".join(each.text for each in found)
        for named in ("nft table inet guarding", "ip saddr 192.0.2.77", "ip rule", "192.0.2.78"):
            assert named.replace("ip rule", "ip -4 rule 1000") in said
