"""Promise 2 where RuleForward refuses the rules and none are in place, as at a boot: the unit has mail refused."""

from __future__ import annotations

import json
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.gateway import check, install, rulesets
from proxsmtp_tp.gateway.errors import GatewayError, MailRefusedError, RequirementError
from proxsmtp_tp.gateway.plan import Existing, Fail, Forward, Method, Mode
from tests.gateway import commands
from tests.gateway.daemon_host import DaemonHost
from tests.gateway.network import LAN, SERVER, greeting, inside, run
from tests.gateway.rules_host import METHODS, MODES, RulesHost, options, within
from tests.gateway.test_existing import Session
from tests.gateway.test_forward import ONE_NOT, load

if TYPE_CHECKING:
    from pathlib import Path

BOTH = [(method, mode) for method in METHODS for mode in MODES]
ELSEWHERE = {4: "203.0.113.9", 6: "2001:db8:9::9"}
REFUSED = "ConnectionRefusedError"
NOBODY = 65534
# The client's mail to an address elsewhere goes to our server, and so does what comes to an address of the host.
OTHERS_NAT = f"""table inet others {{
    chain pre {{ type nat hook prerouting priority dstnat; policy accept;
        ip daddr {{ {ELSEWHERE[4]}, {LAN[4]} }} tcp dport 25 dnat ip to {SERVER[4]}
        ip6 daddr {{ {ELSEWHERE[6]}, {LAN[6]} }} tcp dport 25 dnat ip6 to {SERVER[6]}
    }}
    chain out {{ type nat hook output priority -100; policy accept;
        ip daddr {ELSEWHERE[4]} tcp dport 25 dnat ip to {SERVER[4]}
        ip6 daddr {ELSEWHERE[6]} tcp dport 25 dnat ip6 to {SERVER[6]}
    }}
}}"""


def refuses(host: RulesHost, **changes: object) -> str:
    """What the unit's install says when it refuses mail."""
    with pytest.raises(MailRefusedError) as caught:
        host.install_or_refuse_mail(**changes)
    return str(caught.value)


def answer_of(host: RulesHost, address: str, port: int = 25) -> str:
    """What the client gets."""
    return greeting(host.net.client, address, port, wait=2)


def routed_elsewhere(host: RulesHost) -> None:
    """A route to the addresses elsewhere, without which nothing is forwarded."""
    for version, address in ELSEWHERE.items():
        run(host.net.gateway, "ip", f"-{version}", "route", "add", address, "via", SERVER[version])


@pytest.mark.parametrize(("method", "mode"), BOTH)
def test_mail_is_refused_until_the_cause_is_gone(host: RulesHost, method: Method, mode: Mode) -> None:
    load(host, ONE_NOT)
    before = host.snapshot()
    host.server()
    host.server(2525)
    host.daemon(mode)
    said = refuses(host, method=method, mode=mode)
    assert "192.0.2.77 -> " in said
    assert "ip saddr 192.0.2.77 tcp dport 25 drop" in said
    assert "mail to port 25 is refused" in said
    for version in (4, 6):
        assert answer_of(host, SERVER[version]) == REFUSED
        assert answer_of(host, SERVER[version], 2525).startswith("server")
    after = host.snapshot()
    assert after != before
    # The unit tries again: the same words, and no change.
    assert refuses(host, method=method, mode=mode) == said
    with pytest.raises(RequirementError):
        host.install(method=method, mode=mode)
    assert host.snapshot() == after
    assert not host.check(method=method, mode=mode).in_place
    host.remove()
    assert host.snapshot() == before
    assert answer_of(host, SERVER[4]).startswith("server")

    refuses(host, method=method, mode=mode)
    run(host.net.gateway, "nft", "delete", "table", "inet", "guarding")
    assert host.install_or_refuse_mail(method=method, mode=mode).changed
    assert host.check(method=method, mode=mode).in_place
    for version in (4, 6):
        assert answer_of(host, SERVER[version]).startswith("daemon")
    # Rules that were in place are installed again after a flush.
    load(host, ONE_NOT)
    assert not host.install_or_refuse_mail(method=method, mode=mode).changed
    host.remove()


@pytest.mark.parametrize(("method", "mode"), BOTH)
def test_what_would_not_be_intercepted_is_not_refused(host: RulesHost, method: Method, mode: Mode) -> None:
    load(host, ONE_NOT)
    host.server()
    changes = {"method": method, "mode": mode}
    excepted = tuple(ip_network(address) for address in SERVER.values())
    refuses(host, except_destinations=excepted, **changes)
    for version in (4, 6):
        assert answer_of(host, SERVER[version]).startswith("server")
    refuses(host, sources=(ip_network("192.0.2.64/26"), ip_network("2001:db8:1::77")), **changes)
    for version in (4, 6):
        assert answer_of(host, SERVER[version]).startswith("server")


@pytest.mark.parametrize(("method", "mode"), BOTH)
def test_dnat_of_others_is_no_way_out(host: RulesHost, method: Method, mode: Mode) -> None:
    load(host, ONE_NOT)
    load(host, OTHERS_NAT)
    routed_elsewhere(host)
    host.server()
    for version in (4, 6):
        assert answer_of(host, ELSEWHERE[version]).startswith("server")
    refuses(host, method=method, mode=mode)
    for version in (4, 6):
        assert answer_of(host, ELSEWHERE[version]) == REFUSED
        # DNAT of connections to an address of the host: rules of ours never intercept these.
        assert answer_of(host, LAN[version]).startswith("server")


@pytest.mark.parametrize("mode", MODES)
def test_dnat_of_iptables_is_no_way_out(host: RulesHost, mode: Mode) -> None:
    load(host, ONE_NOT)
    routed_elsewhere(host)
    host.server()
    for tool, version in (("iptables-legacy", 4), ("ip6tables-legacy", 6)):
        to = ("-p", "tcp", "--dport", "25", "-j", "DNAT", "--to-destination", SERVER[version])
        run(host.net.gateway, tool, "-t", "nat", "-A", "PREROUTING", "-i", "lan0", *to)
    refuses(host, method=Method.IPTABLES, mode=mode)
    for version in (4, 6):
        assert answer_of(host, ELSEWHERE[version]) == REFUSED


@pytest.mark.parametrize(("method", "mode"), BOTH)
def test_own_mail_is_refused_but_the_daemons(host: RulesHost, method: Method, mode: Mode) -> None:
    load(host, ONE_NOT)
    load(host, OTHERS_NAT)
    routed_elsewhere(host)
    host.server()
    refuses(host, method=method, mode=mode, local=True, daemon_uid=NOBODY)
    code = "import socket, sys; print(socket.create_connection((sys.argv[1], 25), 5).recv(99).decode())"
    for version in (4, 6):
        for address in (SERVER[version], ELSEWHERE[version]):
            assert greeting(host.net.gateway, address, wait=2) == REFUSED
        as_daemon = ("setpriv", f"--reuid={NOBODY}", "--clear-groups", "/usr/bin/python3", "-c", code, SERVER[version])
        assert run(host.net.gateway, *as_daemon).startswith("server")


@pytest.mark.parametrize(("method", "mode"), BOTH)
@pytest.mark.parametrize("kept", [Existing.RESET, Existing.FINISH])
def test_connections_under_way(host: RulesHost, method: Method, mode: Mode, kept: Existing) -> None:
    load(host, ONE_NOT)
    sessions = [Session(host, version) for version in (4, 6)]
    refuses(host, method=method, mode=mode, existing=kept)
    for session in sessions:
        if kept is Existing.FINISH:
            assert session.passes()
        else:
            assert within(10, session.no_longer_passes)
        session.close()


@pytest.mark.parametrize(("method", "mode"), BOTH)
def test_full_mode_after_a_restart_of_the_firewall(host: RulesHost, method: Method, mode: Mode) -> None:
    """The rules end with it, and begin anew under a daemon that runs."""
    host.server()
    host.relay(mode, full=True)
    host.install(method=method, mode=mode, full=True)
    load(host, ONE_NOT)
    host.remove()
    refuses(host, method=method, mode=mode, full=True)
    for version in (4, 6):
        assert answer_of(host, SERVER[version]) == REFUSED
    run(host.net.gateway, "nft", "delete", "table", "inet", "guarding")
    assert host.install(method=method, mode=mode, full=True).changed
    assert host.check(method=method, mode=mode, full=True).in_place
    for version in (4, 6):
        assert answer_of(host, SERVER[version]).startswith("daemon: server")


@pytest.mark.parametrize("method", METHODS)
def test_fail_open_refuses_nothing(host: RulesHost, method: Method) -> None:
    load(host, ONE_NOT)
    before = host.snapshot()
    host.server()
    for _ in range(2):
        with pytest.raises(RequirementError):
            host.install_or_refuse_mail(method=method, fail=Fail.OPEN)
        assert host.snapshot() == before
        assert answer_of(host, SERVER[4]).startswith("server")
        refuses(host, method=method)


@pytest.mark.parametrize("method", METHODS)
def test_the_refusal_is_kept_in_place(host: RulesHost, method: Method) -> None:
    load(host, ONE_NOT)
    refuses(host, method=method)
    after = host.snapshot()
    run(host.net.gateway, "nft", "flush", "ruleset")
    for tool in ("iptables-legacy", "ip6tables-legacy"):
        run(host.net.gateway, tool, "-F", "FORWARD")
    load(host, ONE_NOT)
    host.server()
    assert answer_of(host, SERVER[4]).startswith("server") or method is Method.IPTABLES
    refuses(host, method=method)
    assert host.snapshot() == after
    # The administrator decides.
    assert host.install(method=method, forward=Forward.OVERRULE).changed
    assert host.check(method=method, forward=Forward.OVERRULE).in_place


def test_rules_whose_state_file_is_lost_stay(host: RulesHost) -> None:
    host.install()
    inside(host.net.gateway, lambda: host.store().path("test").unlink())
    load(host, ONE_NOT)
    before = host.snapshot()
    with pytest.raises(RequirementError):
        host.install_or_refuse_mail()
    assert host.snapshot() == before


def test_a_ruleset_that_cannot_be_copied(host: RulesHost, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = rulesets.Ruleset("nft table inet x", (["nft", "-f", "-"], "table inet x { chain c { unknown drop; } }"))
    monkeypatch.setattr(rulesets, "foreign_rulesets", lambda _plan: [broken])
    assert "cannot be copied" in refuses(host)


def test_what_cannot_be_refused_is_said(host: RulesHost, monkeypatch: pytest.MonkeyPatch) -> None:
    load(host, ONE_NOT)
    before = host.snapshot()

    def fails(*_: object) -> None:
        raise GatewayError("no space")

    monkeypatch.setattr(install, "converge", fails)
    with pytest.raises(GatewayError, match="mail passes unfiltered, it cannot be refused: no space"):
        host.install_or_refuse_mail()
    assert host.snapshot() == before


@pytest.mark.parametrize("method", METHODS)
def test_a_try_that_is_not_confirmed_goes_back_to_refusing(host: RulesHost, method: Method) -> None:
    load(host, ONE_NOT)
    refuses(host, method=method)
    after = host.snapshot()
    overruling = options(method=method, forward=Forward.OVERRULE)

    def attempt() -> None:
        store = host.store()
        install.install(overruling, store, deadline=1e9, token="t")
        assert check.examine(install.prepare(overruling, store)[0]).in_place
        with store.lock():
            state = store.read("test")
            assert state is not None
            install.restore(state.previous, "test", install.Owned.by("test", state, store), store)

    inside(host.net.gateway, attempt)
    assert host.snapshot() == after


def test_the_commands(host: RulesHost, tmp_path: Path) -> None:
    config = tmp_path / "gate.conf"
    config.write_text("TransparentProxy: client\nRuleInterface: lan0\n")

    def call(command: str, *more: str) -> tuple[int, str, str]:
        return commands.end(commands.start(host.net.gateway, host.state, command, "-f", str(config), *more))

    load(host, ONE_NOT)
    status, _, said = call("install-rules", "--or-refuse-mail")
    assert status == 1
    assert "ip saddr 192.0.2.77 tcp dport 25 drop" in said
    assert "RuleForward: overrule" in said
    assert "mail to port 25 is refused" in said
    status, said, notes = call("check-rules")
    assert (status, said.splitlines()[0]) == (1, "rules of instance gate: refusing mail")
    assert "mail to port 25 is refused" in said
    assert "ip saddr 192.0.2.77 tcp dport 25 drop" in notes
    answer = json.loads(call("check-rules", "--json")[1])
    assert answer["state"] == "refusing mail"
    assert any("192.0.2.77" in note for note in answer["notes"])
    # As the unit reloads: it comes into force by itself.
    waiting = commands.start(
        host.net.gateway, host.state, "install-rules", "-f", str(config), "--or-refuse-mail", "--retry", "60"
    )
    assert waiting.stderr is not None
    assert within(30, lambda: "trying again" in waiting.stderr.readline())  # type: ignore[union-attr]
    run(host.net.gateway, "nft", "delete", "table", "inet", "guarding")
    assert commands.end(waiting)[:2] == (0, "rules of instance gate: installed\n")
    assert call("check-rules")[0] == 0
    assert call("install-rules", "--or-refuse-mail", "--confirm", "9")[0] == 2


def test_the_doctor_says_that_and_why(host: RulesHost) -> None:
    del host
    daemon = DaemonHost(RuleMode="redirect", TransparentProxy="client")
    try:
        run(daemon.gateway, "nft", "-f", "-", stdin=ONE_NOT.replace("}", "\n}\n"))
        inside(daemon.gateway, lambda: install.remove("setup", daemon.store()))
        with pytest.raises(MailRefusedError):
            daemon.install(or_refuse_mail=True)
        found = {finding.step: finding for finding in daemon.examine()}
        assert "mail to port 25 is refused" in found["rules"].text
        assert "so all mail is refused" in found["forwarding policy"].text
        assert "192.0.2.77" in found["forwarding policy"].text
    finally:
        daemon.close()
