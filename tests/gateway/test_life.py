"""The whole life of rules, for each method and mode, with traffic of both IP versions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.gateway.plan import Method, Mode
from tests.gateway.network import SERVER, greeting, run
from tests.gateway.rules_host import METHODS, MODES

if TYPE_CHECKING:
    from tests.gateway.rules_host import RulesHost

DRIFT = {
    Method.NFTABLES: ("nft", "add", "element", "inet", "proxsmtp_test", "ports", "{ 587 }"),
    Method.IPTABLES: ("iptables-legacy", "-t", "filter", "-F", "PXFWD-test"),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", METHODS)
def test_whole_life(host: RulesHost, method: Method, mode: Mode) -> None:
    net = host.net
    before = host.snapshot()
    server, daemon = host.server(), host.daemon(mode)

    def answers() -> list[str]:
        return [greeting(net.client, SERVER[version]) for version in (4, 6)]

    direct = [f"server saw {address}" for address in ("192.0.2.10", "2001:db8:1::10")]
    filtered = [f"daemon for {SERVER[version]}" for version in (4, 6)]
    assert answers() == direct
    assert host.check(method=method, mode=mode).absent

    assert host.install(method=method, mode=mode).changed
    installed = host.snapshot()
    assert answers() == filtered
    assert host.check(method=method, mode=mode).in_place

    assert not host.install(method=method, mode=mode).changed
    assert host.snapshot() == installed

    assert host.install(method=method, mode=mode, ports=(25, 587)).changed
    assert answers() == filtered
    assert not host.check(method=method, mode=mode).in_place
    assert host.install(method=method, mode=mode).changed
    assert host.snapshot() == installed

    run(net.gateway, *DRIFT[method])
    drifted = host.check(method=method, mode=mode)
    assert not drifted.in_place
    assert drifted.differences
    assert host.install(method=method, mode=mode).changed
    assert host.snapshot() == installed

    daemon.close()
    # Refused; with xtables' TPROXY dropped: after one second without an answer.
    assert not [v for v in (4, 6) if "server" in greeting(net.client, SERVER[v], wait=1)]

    assert host.remove().changed
    assert host.snapshot() == before
    assert answers() == direct
    assert not host.remove().changed
    assert host.snapshot() == before
    assert not host.state.exists()
    server.close()


@pytest.mark.parametrize("mode", MODES)
def test_from_one_method_to_the_other(host: RulesHost, mode: Mode) -> None:
    host.daemon(mode)
    before = host.snapshot()
    for method in (Method.NFTABLES, Method.IPTABLES, Method.NFTABLES):
        assert host.install(method=method, mode=mode).changed
        assert host.check(method=method, mode=mode).in_place
        assert greeting(host.net.client, SERVER[4]) == f"daemon for {SERVER[4]}"
    host.remove()
    assert host.snapshot() == before


@pytest.mark.parametrize("method", METHODS)
def test_from_one_mode_to_the_other(host: RulesHost, method: Method) -> None:
    before = host.snapshot()
    for mode in (Mode.TPROXY, Mode.REDIRECT, Mode.TPROXY):
        assert host.install(method=method, mode=mode).changed
        assert host.check(method=method, mode=mode).in_place
    host.remove()
    assert host.snapshot() == before


def test_two_instances_live_side_by_side(host: RulesHost) -> None:
    before = host.snapshot()
    host.install(mode=Mode.TPROXY)
    with_one = host.snapshot()
    host.install(instance="other", mode=Mode.TPROXY, ports=(587,), listen_port=10026)
    host.server(587)
    host.daemon(Mode.TPROXY)
    host.daemon(Mode.TPROXY, port=10026)
    assert greeting(host.net.client, SERVER[4]) == f"daemon for {SERVER[4]}"
    assert greeting(host.net.client, SERVER[6], 587) == f"daemon for {SERVER[6]}"
    host.remove("other")
    assert host.snapshot() == with_one
    host.remove()
    assert host.snapshot() == before


def test_state_survives_only_as_long_as_the_rules(host: RulesHost) -> None:
    host.install(mode=Mode.TPROXY)
    (path,) = host.state.glob("*.json")
    assert json.loads(path.read_text())["plan"]["options"]["interfaces"] == ["lan0"]
    # The file is lost: the rules are found by their names and numbers.
    path.unlink()
    assert host.check(mode=Mode.TPROXY).in_place
    assert host.remove().changed
    assert host.check(mode=Mode.TPROXY).absent
