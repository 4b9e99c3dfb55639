"""A server that cannot be reached: a client's connection fails almost as it would without the proxy."""

from __future__ import annotations

import socket
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.gateway.plan import REFUSE_HOLD
from tests.gateway.daemon_host import DaemonHost
from tests.gateway.network import CLIENT, SERVER, Listener, family, inside, open_socket, run, server_greeting
from tests.gateway.rules_host import SOON, within

if TYPE_CHECKING:
    from collections.abc import Iterator

METHODS_AND_MODES = [(method, mode) for method in ("nftables", "iptables") for mode in ("redirect", "tproxy")]
NOWHERE = {4: "203.0.114.25", 6: "2001:db8:99::25"}
"""Where no route of the gateway leads."""
REFUSED = "connect: ConnectionRefusedError 111"
RESET = "greeting: ConnectionResetError"


@pytest.fixture
def hosts() -> Iterator[list[DaemonHost]]:
    """Gateways to be closed at the end."""
    found: list[DaemonHost] = []
    yield found
    for host in found:
        host.close()


def gateway(hosts: list[DaemonHost], **directives: str) -> DaemonHost:
    """A gateway without a server behind it, which intercepts."""
    host = DaemonHost(**{"TransparentProxy": "client", "ConnectTimeOut": "8", "Workers": "2"} | directives)
    hosts.append(host)
    return host


def outcome(name: str, address: str, source: str = "", seconds: float = 20) -> str:
    """What a connection from a namespace to port 25 comes to: a greeting, or where and how it failed."""
    with closing(open_socket(name, family(address))) as link:
        link.settimeout(seconds)
        if source:
            link.bind((source, 0))
        try:
            link.connect((address, 25))
        except ConnectionResetError:  # it was connected, and reset before we saw it
            return RESET
        except OSError as error:
            return f"connect: {type(error).__name__} {error.errno}"
        try:
            return link.recv(512).decode() or "closed"
        except OSError as error:
            return f"greeting: {type(error).__name__}"


@pytest.mark.parametrize(("method", "mode"), METHODS_AND_MODES)
@pytest.mark.parametrize("fail", ["closed", "open"])
def test_a_server_that_refuses(hosts: list[DaemonHost], method: str, mode: str, fail: str) -> None:
    """The first client is reset without a word, the next ones are refused by the kernel, until the server is back."""
    host = gateway(hosts, RuleMethod=method, RuleMode=mode, RuleFail=fail)
    for version in (4, 6):
        server = SERVER[version]
        assert within(SOON, lambda server=server: outcome(host.net.client, server) == RESET)  # type: ignore[misc]
        assert [outcome(host.net.client, server) for _ in range(3)] == [REFUSED] * 3
        assert f"{server}" in host.instance.log
    before = host.instance.log.count("accepted connection from")
    assert outcome(host.net.client, SERVER[4]) == REFUSED
    assert host.instance.log.count("accepted connection from") == before
    with closing(Listener(host.net.server, 25, lambda peer: f"220 {server_greeting(peer)}")):
        for server in SERVER.values():
            assert within(REFUSE_HOLD + SOON, lambda server=server: outcome(host.net.client, server)[:4] == "220 ")  # type: ignore[misc]


@pytest.mark.parametrize(
    ("method", "mode", "way"),
    [
        ("nftables", "redirect", "client"),
        ("nftables", "tproxy", "full"),
        ("nftables", "redirect", "full"),
        ("iptables", "tproxy", "client"),
    ],
)
def test_a_client_that_comes_minutes_later_is_refused_too(
    hosts: list[DaemonHost], method: str, mode: str, way: str
) -> None:
    """The daemon itself finds out whether the server is back: no client has to be the first one each time."""
    host = gateway(hosts, RuleMethod=method, RuleMode=mode, TransparentProxy=way)
    for server in SERVER.values():
        assert within(SOON, lambda server=server: outcome(host.net.client, server) == RESET)  # type: ignore[misc]
    time.sleep(REFUSE_HOLD + 5)  # the rules alone would have forgotten it
    assert [outcome(host.net.client, server) for server in SERVER.values()] == [REFUSED] * 2
    assert host.instance.log.count("clients are refused until it can") == 2
    with closing(Listener(host.net.server, 25, lambda peer: f"220 {server_greeting(peer)}")):
        for server in SERVER.values():
            assert within(REFUSE_HOLD + SOON, lambda server=server: outcome(host.net.client, server)[:4] == "220 ")  # type: ignore[misc]
        assert host.instance.log.count("can be reached again") == 2


@pytest.mark.parametrize(("method", "mode"), METHODS_AND_MODES)
def test_a_server_that_gives_no_answer(hosts: list[DaemonHost], method: str, mode: str) -> None:
    """While one client waits for it, the others are refused."""
    host = gateway(hosts, RuleMethod=method, RuleMode=mode)
    run(host.net.server, "nft", "add table inet t; add chain inet t in { type filter hook input priority 0; };"
        " add rule inet t in tcp dport 25 drop")  # fmt: skip
    for server in SERVER.values():
        with closing(open_socket(host.net.client, family(server))) as first:
            first.settimeout(20)
            first.connect((server, 25))
            time.sleep(4.5)
            assert outcome(host.net.client, server) == REFUSED
            with pytest.raises(ConnectionResetError):
                first.recv(512)
        assert outcome(host.net.client, server) == REFUSED


@pytest.mark.parametrize("mode", ["redirect", "tproxy"])
@pytest.mark.parametrize("fail", ["closed", "open"])
def test_no_route(hosts: list[DaemonHost], mode: str, fail: str) -> None:
    """The kernel says so at once, as it does without us: the very first client goes on."""
    host = gateway(hosts, RuleMode=mode, RuleFail=fail)
    direct = [outcome(host.net.client, server) for server in NOWHERE.values()]
    assert direct == ["connect: OSError 101"] * 2
    run(host.gateway, "ip", "route", "add", "unreachable", f"{NOWHERE[4]}/32")
    run(host.gateway, "ip", "-6", "route", "add", "unreachable", f"{NOWHERE[6]}/128")
    for server in NOWHERE.values():
        assert outcome(host.net.client, server) in {"connect: OSError 101", "connect: OSError 113"}
    assert "accepted connection" not in host.instance.log


@pytest.mark.parametrize("mode", ["redirect", "tproxy"])
def test_no_route_with_iptables(hosts: list[DaemonHost], mode: str) -> None:
    """xtables can not ask for a route before it intercepts: the client is reset."""
    host = gateway(hosts, RuleMode=mode, RuleMethod="iptables")
    assert [outcome(host.net.client, server) for server in NOWHERE.values()] == [RESET] * 2


@pytest.mark.parametrize("mode", ["redirect", "tproxy"])
def test_from_the_clients_address_it_counts_for_that_client(hosts: list[DaemonHost], mode: str) -> None:
    host = gateway(hosts, RuleMode=mode, TransparentProxy="full")
    other = {4: "192.0.2.11", 6: "2001:db8:1::11"}
    run(host.net.client, "ip", "addr", "add", f"{other[4]}/24", "dev", "eth0")
    run(host.net.client, "ip", "addr", "add", f"{other[6]}/64", "dev", "eth0", "nodad")
    rules = f"ip saddr {CLIENT[4]} tcp dport 25 reject with tcp reset"
    rules6 = f"ip6 saddr {CLIENT[6]} tcp dport 25 reject with tcp reset"
    run(host.net.server, "nft", "add table inet t; add chain inet t in { type filter hook input priority 0; };"
        f" add rule inet t in {rules}; add rule inet t in {rules6}")  # fmt: skip
    with closing(Listener(host.net.server, 25, lambda peer: f"220 {server_greeting(peer)}")):
        for version in (4, 6):
            assert outcome(host.net.client, SERVER[version], CLIENT[version]) == RESET
            assert outcome(host.net.client, SERVER[version], CLIENT[version]) == REFUSED
            assert outcome(host.net.client, SERVER[version], other[version])[:4] == "220 "


@pytest.mark.parametrize(("method", "mode"), METHODS_AND_MODES)
def test_no_other_process_can_have_a_server_refused(hosts: list[DaemonHost], method: str, mode: str) -> None:
    """A datagram of a client, or of another user of the gateway, has no effect; check-rules reports no difference."""
    host = gateway(hosts, RuleMethod=method, RuleMode=mode)
    with closing(Listener(host.net.server, 25, lambda peer: f"220 {server_greeting(peer)}")):
        for server in SERVER.values():
            for name in (host.net.client, host.gateway):
                kind = family(server)
                with closing(inside(name, lambda kind=kind: socket.socket(kind, socket.SOCK_DGRAM))) as link:  # type: ignore[misc]
                    link.sendto(b"", (server, 25))
            assert outcome(host.net.client, server)[:4] == "220 "
    assert outcome(host.net.client, SERVER[4]) == RESET
    assert outcome(host.net.client, SERVER[4]) == REFUSED
    assert [finding for finding in host.examine() if finding.step == "rules"] == []


@pytest.mark.parametrize(("method", "mode"), METHODS_AND_MODES)
def test_mail_of_this_host(hosts: list[DaemonHost], method: str, mode: str) -> None:
    host = gateway(hosts, RuleMethod=method, RuleMode=mode, RuleLocal="on")
    for server in SERVER.values():
        assert outcome(host.gateway, server) == RESET
        assert outcome(host.gateway, server) == REFUSED


@pytest.mark.parametrize(("value", "again"), [("reset", RESET), ("reply", "421 ")])
def test_without_the_rules_help(hosts: list[DaemonHost], value: str, again: str) -> None:
    host = gateway(hosts, ConnectFailure=value)
    assert all(outcome(host.net.client, SERVER[4]).startswith(again) for _ in range(3))


def test_no_datagram_leaves_the_host(hosts: list[DaemonHost]) -> None:
    host = gateway(hosts)
    with closing(inside(host.net.server, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))) as link:
        link.bind((SERVER[4], 25))
        link.settimeout(1)
        assert outcome(host.net.client, SERVER[4]) == RESET
        with pytest.raises(TimeoutError):
            link.recv(1)
