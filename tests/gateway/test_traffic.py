"""What is intercepted and what is not, and which addresses each side sees."""

from __future__ import annotations

import socket
import sys
from contextlib import closing
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from proxsmtp_tp.gateway.interception import Ends, interception
from proxsmtp_tp.gateway.plan import Existing, Method, Mode, make_plan
from tests.gateway.network import (
    CLIENT,
    LAN,
    SERVER,
    WAN,
    greeting,
    open_socket,
    run,
)
from tests.gateway.rules_host import METHODS, MODES, PORT, RulesHost, options

BOTH = [(method, mode) for method in METHODS for mode in MODES]
NOBODY = 65534
# A user of the host sends mail: connect as another user, and say what came.
CONNECT = "import socket,sys; s=socket.create_connection((sys.argv[1],25),5); print(s.makefile().readline().strip())"


def filtered(version: int) -> str:
    """What a client gets from the daemon of `RulesHost.daemon`."""
    return f"daemon for {SERVER[version]}"


def direct(version: int) -> str:
    """What a client gets from the server itself."""
    return f"server saw {CLIENT[version]}"


@pytest.mark.parametrize(("method", "mode"), BOTH)
def test_exceptions_sources_and_ports(host: RulesHost, method: Method, mode: Mode) -> None:
    client = host.net.client
    for address in ("192.0.2.66", "192.0.2.130"):
        run(client, "ip", "addr", "add", f"{address}/24", "dev", "eth0")
    for address in ("2001:db8:1::66", "2001:db8:1:0:8000::1"):
        run(client, "ip", "addr", "add", f"{address}/64", "dev", "eth0", "nodad")
    run(host.net.server, "ip", "addr", "add", "198.51.100.77/24", "dev", "eth0")
    run(host.net.server, "ip", "addr", "add", "2001:db8:2::77/64", "dev", "eth0", "nodad")
    for port in (25, 465, 587, 2525):
        host.server(port)
    host.server(PORT)
    host.daemon(mode)
    given: dict[str, Any] = {
        "method": method,
        "mode": mode,
        "ports": (25, 465, 587),
        "sources": (ip_network("192.0.2.0/25"), ip_network("2001:db8:1:0:0::/65")),
        "except_sources": (ip_network("192.0.2.66"), ip_network("2001:db8:1::66")),
        "except_destinations": (ip_network("198.51.100.77"), ip_network("2001:db8:2::77")),
    }
    host.install(**given)
    plan = make_plan(options(**given))

    def answer_of(server: str, port: int = 25, source: str = "") -> str:
        """What a client gets; `explain` must say the same."""
        ends = Ends(source or CLIENT[ip_address(server).version], server, port)
        said = greeting(client, server, port, source=source)
        assert interception(plan, ends).intercepted is said.startswith("daemon"), (ends, said)
        return said

    assert answer_of(SERVER[4], source=CLIENT[4]) == filtered(4)
    for version in (4, 6):
        for port in (465, 587):
            assert answer_of(SERVER[version], port, source=CLIENT[version]) == filtered(version)
    assert answer_of(SERVER[4], 2525) == direct(4)
    # The daemon's port, but at the address of the server: not intercepted.
    assert answer_of(SERVER[4], PORT) == direct(4)
    assert answer_of(SERVER[6], PORT, source=CLIENT[6]) == direct(6)
    for source in ("192.0.2.66", "192.0.2.130"):
        assert answer_of(SERVER[4], source=source) == f"server saw {source}"
    for source in ("2001:db8:1::66", "2001:db8:1:0:8000::1"):
        assert answer_of(SERVER[6], source=source) == f"server saw {source}"
    assert answer_of("198.51.100.77") == direct(4)
    assert answer_of("2001:db8:2::77", source=CLIENT[6]) == direct(6)


@pytest.mark.parametrize(("method", "mode"), BOTH)
def test_mail_for_the_host_itself_and_from_the_other_side(host: RulesHost, method: Method, mode: Mode) -> None:
    net = host.net
    own = host.daemon(Mode.TPROXY, port=25, transparent=False)
    host.daemon(mode)
    host.install(method=method, mode=mode)
    for version in (4, 6):
        assert greeting(net.client, LAN[version]) == f"daemon for {LAN[version]}"
        assert greeting(net.client, WAN[version]) == f"daemon for {WAN[version]}"
    own.close()
    host.server()
    # From the gateway itself, without --local; and a client elsewhere that is not on the interface.
    assert greeting(net.gateway, SERVER[4]) == f"server saw {WAN[4]}"
    assert greeting(net.gateway, SERVER[6]) == f"server saw {WAN[6]}"


@pytest.mark.parametrize(("method", "mode"), BOTH)
@pytest.mark.parametrize("full", [False, True], ids=["client", "full"])
def test_whom_the_server_sees(host: RulesHost, method: Method, mode: Mode, full: bool) -> None:
    before = host.snapshot()
    host.server()
    host.relay(mode, full=full)
    host.install(method=method, mode=mode, full=full)
    seen = CLIENT if full else WAN
    for version in (4, 6):
        assert greeting(host.net.client, SERVER[version]) == f"daemon: server saw {seen[version]}"
    assert host.check(method=method, mode=mode, full=full).in_place
    host.remove()
    assert host.snapshot() == before


@pytest.mark.parametrize(("method", "mode"), BOTH)
def test_the_hosts_own_mail(host: RulesHost, method: Method, mode: Mode) -> None:
    before = host.snapshot()
    net = host.net
    host.server()
    host.daemon(mode)

    def send(user: int, version: int) -> str:
        who = ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups")
        return run(net.gateway, *who, "/usr/bin/python3", "-c", CONNECT, SERVER[version]).strip()

    host.install(method=method, mode=mode, local=True, daemon_uid=NOBODY)
    for version in (4, 6):
        assert send(1000, version) == filtered(version)
        assert send(0, version) == filtered(version)
        # The daemon itself: never.
        assert send(NOBODY, version) == f"server saw {WAN[version]}"
        # `quarantine release` by root: with the daemon's user as the owner of the socket.
        released = f"from proxsmtp_tp.cli.release import as_user\nwith as_user({NOBODY}): exec({CONNECT!r})"
        assert run(net.gateway, sys.executable, "-c", released, SERVER[version]).strip() == f"server saw {WAN[version]}"
        assert greeting(net.client, SERVER[version]) == filtered(version)
    host.install(method=method, mode=mode, local=True, daemon_uid=NOBODY, interfaces=())
    assert send(1000, 4) == filtered(4)
    assert greeting(net.client, SERVER[4]) == direct(4)
    host.remove()
    assert host.snapshot() == before


@pytest.mark.parametrize(("method", "mode"), BOTH)
def test_connections_under_way_go_on(host: RulesHost, method: Method, mode: Mode) -> None:
    """With finish, an install cuts no connection that began before; a change of options cuts none that is filtered."""
    net = host.net
    listening = open_socket(net.server, socket.AF_INET)
    listening.bind((SERVER[4], 25))
    listening.listen()
    with closing(listening), closing(open_socket(net.client, socket.AF_INET)) as early:
        early.settimeout(5)
        early.connect((SERVER[4], 25))
        at_server, _ = listening.accept()
        with closing(at_server):
            host.install(method=method, mode=mode, existing=Existing.FINISH)
            assert _speaks(early, at_server)
            at_daemon = open_socket(net.gateway, socket.AF_INET, transparent=mode is Mode.TPROXY)
            at_daemon.bind(("0.0.0.0", PORT))
            at_daemon.listen()
            with closing(at_daemon), closing(open_socket(net.client, socket.AF_INET)) as late:
                late.settimeout(5)
                late.connect((SERVER[4], 25))
                accepted, _ = at_daemon.accept()
                with closing(accepted):
                    host.install(method=method, mode=mode, ports=(25, 587))
                    assert _speaks(late, accepted)
                    # Now with reset, which is for those that were never filtered.
                    with pytest.raises(ConnectionResetError):
                        _speaks(early, at_server)


def _speaks(one: socket.socket, other: socket.socket) -> bool:
    other.settimeout(5)
    one.sendall(b"ping")
    other.sendall(b"pong")
    return other.recv(4) == b"ping" and one.recv(4) == b"pong"


@pytest.mark.parametrize(("method", "mode"), BOTH)
def test_port_forwarding_of_other_programs_stays_as_it_is(host: RulesHost, method: Method, mode: Mode) -> None:
    """Mail for an address of the host that a DNAT rule hands on to a server behind it, as Docker and routers do."""
    run(
        host.net.gateway, "nft", "-f", "-",
        stdin=f"""table ip forwarding {{
            chain pre {{
                type nat hook prerouting priority dstnat;
                tcp dport 25 ip daddr {LAN[4]} dnat to {SERVER[4]}
            }}
        }}
        """,
    )  # fmt: skip
    host.server()
    host.daemon(mode)
    host.install(method=method, mode=mode)
    assert greeting(host.net.client, LAN[4]) == direct(4)
    assert greeting(host.net.client, SERVER[4]) == filtered(4)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("method", METHODS)
def test_without_connection_tracking_nothing_slips_through(host: RulesHost, method: Method, mode: Mode) -> None:
    """NAT needs connection tracking: where somebody switched it off for mail, fail closed refuses."""
    run(
        host.net.gateway, "nft", "-f", "-",
        stdin="""table inet untracked {
            chain pre { type filter hook prerouting priority raw; tcp dport 25 notrack
            }
        }
        """,
    )  # fmt: skip
    host.server()
    host.daemon(mode)
    host.install(method=method, mode=mode)
    expected = "ConnectionRefusedError" if mode is Mode.REDIRECT else filtered(4)
    assert greeting(host.net.client, SERVER[4]) == expected


@pytest.mark.parametrize("mode", MODES)
def test_a_client_of_a_dual_stack_listener(host: RulesHost, mode: Mode) -> None:
    host.daemon(mode, kinds=(socket.AF_INET6,), dual=True)
    host.install(mode=mode)
    for version in (4, 6):
        assert greeting(host.net.client, SERVER[version]) == filtered(version)


@pytest.mark.parametrize(("method", "rp_filter"), [(Method.NFTABLES, "1"), (Method.IPTABLES, "2")])
def test_reverse_path_checks_do_not_drop_diverted_packets(host: RulesHost, method: Method, rp_filter: str) -> None:
    """rp_filter with src_valid_mark (wg-quick sets it), and firewalld's check for IPv6: both look routes up by mark."""
    gateway = host.net.gateway
    run(gateway, "sysctl", "-qw", f"net.ipv4.conf.all.rp_filter={rp_filter}", "net.ipv4.conf.all.src_valid_mark=1")
    run(
        gateway, "nft", "-f", "-",
        stdin="""table inet firewalld {
            chain filter_PREROUTING {
                type filter hook prerouting priority filter + 10; policy accept;
                meta nfproto ipv6 fib saddr . mark . iif oif missing drop
            }
        }
        """,
    )  # fmt: skip
    host.server()
    relay = host.relay(Mode.TPROXY, full=True)
    host.install(method=method, mode=Mode.TPROXY, full=True)
    for version in (4, 6):
        assert greeting(host.net.client, SERVER[version]) == f"daemon: server saw {CLIENT[version]}"
    relay.close()
    host.daemon(Mode.TPROXY)
    host.install(method=method, mode=Mode.TPROXY, local=True, daemon_uid=NOBODY)
    # Since Linux 6.15 that check drops IPv6 packets on lo that xtables has given to a socket: docs/gateway.md.
    for version in (4, 6) if method is Method.NFTABLES else (4,):
        assert greeting(gateway, SERVER[version]) == filtered(version)


@pytest.mark.parametrize("method", METHODS)
def test_interfaces_with_odd_names(host: RulesHost, method: Method) -> None:
    names = ("l#n$1", "a,b;c'd", "x{y}(z)", "-dash", "a&b|c!", "u+v")
    for number, name in enumerate(names):
        run(host.net.gateway, "ip", "link", "add", "odd", "type", "veth", "peer", "name", f"peer{number}")
        run(host.net.gateway, "ip", "link", "set", "dev", "odd", "name", name)
    host.daemon(Mode.REDIRECT)
    host.install(method=method, interfaces=("lan0", *names))
    assert host.check(method=method, interfaces=("lan0", *names)).in_place
    assert greeting(host.net.client, SERVER[4]) == filtered(4)
    assert host.check(method=method, interfaces=("lan0",)).differences
    host.remove()
    assert host.check(method=method, interfaces=("lan0", *names)).absent
