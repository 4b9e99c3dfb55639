"""Each rule says whether a packet met it: the counters of both methods, in check-rules and status."""

from __future__ import annotations

import json
import socket
import sys
import time
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.gateway import counting, install
from proxsmtp_tp.gateway.plan import Existing, Fail, Method, Mode, make_plan
from tests.gateway.commands import end, start
from tests.gateway.network import CLIENT, SERVER, greeting, inside, open_socket, run
from tests.gateway.rules_host import METHODS, MODES, PORT, SOON, RulesHost, options, within
from tests.gateway.test_fail import HeartbeatSender

if TYPE_CHECKING:
    from proxsmtp_tp.gateway.counting import Reading

BOTH = [(method, mode) for method in METHODS for mode in MODES]
DAEMON = 65534


def reading(host: RulesHost) -> Reading:
    """What check-rules and status read."""
    found = inside(host.net.gateway, lambda: counting.read("test", host.store()))
    assert found is not None
    return found


def packets(host: RulesHost) -> dict[str, int]:
    """Packets by the name of the rule."""
    found = reading(host)
    assert not found.unread
    return {count.rule: count.packets for count in found.counts}


@pytest.mark.parametrize(("method", "mode"), BOTH)
def test_each_version_is_counted_and_kept(host: RulesHost, method: Method, mode: Mode) -> None:
    host.daemon(mode)
    given: dict[str, Any] = {"method": method, "mode": mode}
    host.install(**given)
    fresh = packets(host)
    assert fresh["intercepted, IPv4"] == fresh["intercepted, IPv6"] == fresh["refused: not intercepted"] == 0
    assert "intercepted, this host, IPv4" not in fresh, "this plan does not intercept its own mail"
    assert greeting(host.net.client, SERVER[4]).startswith("daemon")
    assert packets(host)["intercepted, IPv4"] == 1
    assert packets(host)["intercepted, IPv6"] == 0
    assert greeting(host.net.client, SERVER[6]).startswith("daemon")
    seen = packets(host)
    assert seen["intercepted, IPv6"] == 1
    assert (seen.get("intercepted connections, further packets", 0) > 0) is (mode is Mode.TPROXY)
    assert host.check(**given).in_place, "the number is no difference"
    assert not host.install(**given).changed
    assert packets(host)["intercepted, IPv4"] == 1, "an install that changes nothing keeps the numbers"
    assert host.install(**given, existing=Existing.FINISH).changed
    assert packets(host)["intercepted, IPv4"] == 0, "other rules begin at 0"
    host.remove()
    assert inside(host.net.gateway, lambda: counting.read("test", host.store())) is None


@pytest.mark.parametrize(("method", "mode"), BOTH)
def test_the_guard_and_what_began_before(host: RulesHost, method: Method, mode: Mode) -> None:
    """Packets that were not intercepted: connections without tracking (redirect), without a daemon (tproxy)."""
    net = host.net
    host.server()
    with closing(open_socket(net.client, socket.AF_INET)) as early:
        early.settimeout(5)
        early.connect((SERVER[4], 25))
        host.install(method=method, mode=mode)
        early.sendall(b"x")
    if mode is Mode.REDIRECT:
        untracked = "table inet o { chain c { type filter hook prerouting priority raw; tcp dport 25 notrack; }; }"
        run(net.gateway, "nft", "-f", "-", stdin=untracked)
    dropped = (method, mode) == (Method.IPTABLES, Mode.TPROXY)  # xtables drops what has no listener
    assert greeting(net.client, SERVER[4]) == ("TimeoutError" if dropped else "ConnectionRefusedError")
    seen = packets(host)
    assert (seen["refused: not intercepted"] >= 1) is not dropped
    assert (seen["intercepted, IPv4"] >= 1) is dropped
    assert seen["began unfiltered, IPv4"] >= 1
    if method is Method.NFTABLES:
        assert seen["not intercepted, IPv4"] >= 1
        assert seen["began unfiltered, server reset, IPv4"] == 1
    assert seen["began unfiltered, IPv6"] == 0


@pytest.mark.parametrize(("method", "mode"), BOTH)
def test_mail_of_this_host(host: RulesHost, method: Method, mode: Mode) -> None:
    host.daemon(mode)
    host.install(method=method, mode=mode, local=True, daemon_uid=DAEMON)
    assert packets(host)["intercepted, this host, IPv4"] == 0
    assert greeting(host.net.gateway, SERVER[4]).startswith("daemon")
    seen = packets(host)
    assert (seen["intercepted, this host, IPv4"], seen["intercepted, this host, IPv6"]) == (1, 0)
    assert seen["intercepted, IPv4"] == 0


@pytest.mark.parametrize(("method", "mode"), BOTH)
def test_replies_in_full_mode(host: RulesHost, method: Method, mode: Mode) -> None:
    host.server()
    host.relay(mode, full=True)
    host.install(method=method, mode=mode, full=True)
    assert packets(host)["replies of servers"] == 0
    assert greeting(host.net.client, SERVER[4]) == f"daemon: server saw {CLIENT[4]}"
    assert packets(host)["replies of servers"] > 0


@pytest.mark.parametrize(("method", "mode"), BOTH)
def test_fail_open_and_heartbeats(host: RulesHost, method: Method, mode: Mode) -> None:
    host.install(method=method, mode=mode, fail=Fail.OPEN, daemon_uid=0)
    assert packets(host)["heartbeats"] == 0
    heartbeat_sender = HeartbeatSender(host)
    try:
        assert within(SOON, lambda: packets(host)["heartbeats"] > 0)
    finally:
        heartbeat_sender.stop()


@pytest.mark.parametrize(("method", "mode"), BOTH)
def test_refused_in_place_of_interception(host: RulesHost, method: Method, mode: Mode) -> None:
    refusing = replace(make_plan(options(method=method, mode=mode)), refuse_all=True)

    def apply() -> None:
        with host.store().lock():
            install.apply(refusing, None, host.store(), None, "")

    inside(host.net.gateway, apply)
    assert packets(host)["refused in place of interception, IPv4"] == 0
    assert greeting(host.net.client, SERVER[4]) == "ConnectionRefusedError"
    seen = packets(host)
    assert (seen["refused in place of interception, IPv4"], seen["refused in place of interception, IPv6"]) == (1, 0)


@pytest.mark.parametrize("method", METHODS)
def test_commands_show_them(host: RulesHost, method: Method) -> None:
    host.daemon(Mode.REDIRECT)
    host.install(method=method)
    assert greeting(host.net.client, SERVER[4]).startswith("daemon")
    given = ("--instance", "test", "--method", method.value, "--interface", "lan0", "--listen-port", str(PORT))
    status, out, _ = end(start(host.net.gateway, host.state, "check-rules", *given))
    said = out.splitlines()
    assert (status, said[0]) == (0, "rules of instance test: in place")
    assert "intercepted, IPv4: 1 packet" in said
    assert "intercepted, IPv6: never" in said
    packets_of = json.loads(end(start(host.net.gateway, host.state, "check-rules", *given, "--json"))[1])["packets"]
    assert {"rule": "intercepted, IPv6", "packets": 0, "octets": 0} in packets_of["counts"]
    assert 0 < packets_of["since"] <= time.time()
    assert not packets_of["unread"]


@pytest.mark.parametrize("method", METHODS)
def test_a_user_without_permission_gets_a_clear_error(host: RulesHost, method: Method) -> None:
    host.install(method=method)
    code = (
        "import sys; from pathlib import Path; from proxsmtp_tp.gateway import counting, state; "
        "print(counting.read('test', state.Store(Path(sys.argv[1]))).unread)"
    )
    without = ("setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
    said = run(host.net.gateway, *without, sys.executable, "-c", code, str(host.state))
    assert said.strip() == "only root (CAP_NET_ADMIN) can read them"
