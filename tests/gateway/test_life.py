"""The whole life of rules, for each method and mode, with traffic of both IP versions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.gateway.plan import Method, Mode
from tests.gateway.box import METHODS, MODES
from tests.gateway.network import SERVER, greeting, run

if TYPE_CHECKING:
    from tests.gateway.box import Box

DRIFT = {
    Method.NFTABLES: ("nft", "add", "element", "inet", "proxsmtp_test", "ports", "{ 587 }"),
    Method.IPTABLES: ("iptables-legacy", "-t", "filter", "-F", "PXFWD-test"),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", METHODS)
def test_whole_life(box: Box, method: Method, mode: Mode) -> None:
    net = box.net
    before = box.snapshot()
    server, daemon = box.server(), box.daemon(mode)

    def heard() -> list[str]:
        return [greeting(net.client, SERVER[version]) for version in (4, 6)]

    direct = [f"server saw {address}" for address in ("192.0.2.10", "2001:db8:1::10")]
    filtered = [f"daemon for {SERVER[version]}" for version in (4, 6)]
    assert heard() == direct
    assert box.check(method=method, mode=mode).absent

    assert box.install(method=method, mode=mode).changed
    installed = box.snapshot()
    assert heard() == filtered
    assert box.check(method=method, mode=mode).in_place

    assert not box.install(method=method, mode=mode).changed
    assert box.snapshot() == installed

    assert box.install(method=method, mode=mode, ports=(25, 587)).changed
    assert heard() == filtered
    assert not box.check(method=method, mode=mode).in_place
    assert box.install(method=method, mode=mode).changed
    assert box.snapshot() == installed

    run(net.gateway, *DRIFT[method])
    drifted = box.check(method=method, mode=mode)
    assert not drifted.in_place
    assert drifted.differences
    assert box.install(method=method, mode=mode).changed
    assert box.snapshot() == installed

    daemon.close()
    # Refused, or with xtables' TPROXY dropped: one second tells that nothing comes.
    assert not [v for v in (4, 6) if "server" in greeting(net.client, SERVER[v], wait=1)]

    assert box.remove().changed
    assert box.snapshot() == before
    assert heard() == direct
    assert not box.remove().changed
    assert box.snapshot() == before
    assert not box.state.exists()
    server.close()


@pytest.mark.parametrize("mode", MODES)
def test_from_one_method_to_the_other(box: Box, mode: Mode) -> None:
    box.daemon(mode)
    before = box.snapshot()
    for method in (Method.NFTABLES, Method.IPTABLES, Method.NFTABLES):
        assert box.install(method=method, mode=mode).changed
        assert box.check(method=method, mode=mode).in_place
        assert greeting(box.net.client, SERVER[4]) == f"daemon for {SERVER[4]}"
    box.remove()
    assert box.snapshot() == before


@pytest.mark.parametrize("method", METHODS)
def test_from_one_mode_to_the_other(box: Box, method: Method) -> None:
    before = box.snapshot()
    for mode in (Mode.TPROXY, Mode.REDIRECT, Mode.TPROXY):
        assert box.install(method=method, mode=mode).changed
        assert box.check(method=method, mode=mode).in_place
    box.remove()
    assert box.snapshot() == before


def test_two_instances_live_side_by_side(box: Box) -> None:
    before = box.snapshot()
    box.install(mode=Mode.TPROXY)
    with_one = box.snapshot()
    box.install(instance="other", mode=Mode.TPROXY, ports=(587,), listen_port=10026)
    box.server(587)
    box.daemon(Mode.TPROXY)
    box.daemon(Mode.TPROXY, port=10026)
    assert greeting(box.net.client, SERVER[4]) == f"daemon for {SERVER[4]}"
    assert greeting(box.net.client, SERVER[6], 587) == f"daemon for {SERVER[6]}"
    box.remove("other")
    assert box.snapshot() == with_one
    box.remove()
    assert box.snapshot() == before


def test_state_survives_only_as_long_as_the_rules(box: Box) -> None:
    box.install(mode=Mode.TPROXY)
    (path,) = box.state.glob("*.json")
    assert json.loads(path.read_text())["plan"]["options"]["interfaces"] == ["lan0"]
    # The file is lost: the rules are found by their names and numbers.
    path.unlink()
    assert box.check(mode=Mode.TPROXY).in_place
    assert box.remove().changed
    assert box.check(mode=Mode.TPROXY).absent
