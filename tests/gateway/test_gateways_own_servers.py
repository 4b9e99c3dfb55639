"""No client reaches the gateway's own servers through the daemon, and no unusual packet avoids it.

The packets are put on the client's link as they are. On the gateway a mail server listens on loopback and on all
addresses: it must not see one of them.
"""

from __future__ import annotations

import itertools
import socket
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.gateway.plan import Numbers, preferred_slot
from proxsmtp_tp.net.original_destination import Endpoint
from tests.gateway.daemon_host import DaemonHost
from tests.gateway.network import CLIENT, LAN, SERVER, WAN, Listener, family, greeting, run
from tests.gateway.packets import CWR, ECE, FIN, PACKET_CLIENT, PSH, RST, SYN, URG, Wire, listening, seen
from tests.gateway.rules_host import SOON, within

if TYPE_CHECKING:
    from collections.abc import Iterator

WAYS = list(itertools.product(["nftables", "iptables"], ["redirect", "tproxy"], ["client", "full"]))
# Of the gateway's networks (RFC 4291 section 2.6.1): its own, though its TCP accepts nothing there.
ANYCAST = ["2001:db8:1::", "2001:db8:2::"]
# Each means the gateway itself to connect(2), or no server at all. What the rules do not intercept:
NEVER = [
    "::ffff:127.0.0.1", "::ffff:0.0.0.0", f"::ffff:{LAN[4]}", f"::ffff:{WAN[4]}", f"::ffff:{SERVER[4]}",
    "::", "::1", "::127.0.0.1", f"::{LAN[4]}", "::ffff:0:127.0.0.1", "ff02::1", "ff0e::1",
    *ANYCAST,
    "0.0.0.0", "0.0.0.9", "127.0.0.1", "127.0.0.9", "255.255.255.255", "192.0.2.255", "198.51.100.255", "224.0.0.1",
]  # fmt: skip
# And what only the daemon knows:
HOME = [
    *NEVER, "64:ff9b::127.0.0.1", f"64:ff9b::{WAN[4]}", "2002:7f00:1::1", "2001:db8:77::5efe:127.0.0.1", "fe80::99",
    "240.0.0.1",
]  # fmt: skip


@pytest.fixture(scope="module", params=WAYS, ids=["-".join(way) for way in WAYS])
def host(request: pytest.FixtureRequest) -> Iterator[DaemonHost]:
    """A gateway with the real daemon, which also routes its loopback network and has a mail server of its own."""
    method, mode, transparency = request.param
    made = DaemonHost(RuleMethod=method, RuleMode=mode, TransparentProxy=transparency)
    try:
        for version in (4, 6):  # otherwise what no route leads to is refused before it could be intercepted
            run(made.gateway, "ip", f"-{version}", "route", "add", "default", "via", SERVER[version])
        yield made
    finally:
        made.close()


class Heard:
    """A mail server that records its clients."""

    def __init__(self, name: str) -> None:
        self.peers: list[str] = []
        self._listener = Listener(name, 25, self._greet)
        self.close = self._listener.close

    def _greet(self, peer: socket.socket) -> str:
        self.peers.append(peer.getpeername()[0])
        return "220 hello"


@pytest.fixture
def own(host: DaemonHost) -> Iterator[Heard]:
    """A mail server on the gateway, on all its addresses."""
    heard = Heard(host.gateway)
    yield heard
    heard.close()


@pytest.fixture
def server(host: DaemonHost) -> Iterator[Heard]:
    """The mail server behind the gateway."""
    heard = Heard(host.net.server)
    yield heard
    heard.close()


@pytest.fixture
def wire(host: DaemonHost) -> Iterator[Wire]:
    """The client's link."""
    made = Wire(host.net)
    yield made
    made.close()


def test_the_gateways_own_servers_get_no_connection(host: DaemonHost, own: Heard, server: Heard, wire: Wire) -> None:
    """Nor does the server, of addresses that are not its own."""
    said = wire.connect(*HOME, *SERVER.values())
    assert within(10, lambda: len(server.peers) == 2), said
    # None of the first is intercepted; the others are taken by the daemon, and refused there.
    assert not [address for address in NEVER if said[address] == "connected"]
    assert_refused(host, {address for address in HOME if said[address] == "connected"})
    assert (own.peers, len(server.peers)) == ([], 2)


BY_HAND = {
    "redirect": "type nat hook prerouting priority dstnat - 10; iifname lan0 tcp dport 25 redirect to :10025",
    "tproxy": """type filter hook prerouting priority mangle - 10;
        iifname lan0 tcp dport 25 meta nfproto ipv4 tproxy ip to :10025 meta mark set {mark:#x}
        iifname lan0 tcp dport 25 meta nfproto ipv6 tproxy ip6 to :10025 meta mark set {mark:#x}""",
}


def test_whatever_the_rules_say(host: DaemonHost, own: Heard, server: Heard, wire: Wire) -> None:
    """Rules loaded by hand, that know no exception."""
    rules = BY_HAND[host.instance.directives["RuleMode"]].format(mark=Numbers(preferred_slot("setup")).mark)
    run(host.gateway, "nft", "-f", "-", stdin=f"table inet byhand {{ chain pre {{ {rules}\n }}\n }}\n")
    try:
        said = wire.connect(*HOME, *(*LAN.values(), *WAN.values()), *SERVER.values())
        assert within(10, lambda: len(server.peers) == 2), said
        accepted = {address for address in said if said[address] == "connected"}
        assert_refused(host, accepted - {*SERVER.values(), *ANYCAST})
        assert (own.peers, len(server.peers)) == ([], 2)
        assert said[LAN[4]] == said[WAN[6]] == "connected"
    finally:
        run(host.gateway, "nft", "delete", "table", "inet", "byhand")


def assert_refused(host: DaemonHost, addresses: set[str]) -> None:
    """The daemon has a line for each."""
    usual = [socket.inet_ntop(family(address), socket.inet_pton(family(address), address)) for address in addresses]
    lines = [f"original destination {Endpoint(address, 25)} is refused" for address in usual]
    within(10, lambda: all(line in host.instance.log for line in lines))
    assert [line for line in lines if line not in host.instance.log] == []


# A SYN for some server, with FIN or RST; and what is a SYN for connection tracking, too.
ODD_SYNS = [SYN | FIN, SYN | RST, SYN | FIN | RST, SYN | FIN | PSH | URG, SYN | RST | ECE | CWR]
SYNS = [SYN, SYN | URG, SYN | PSH, SYN | ECE | CWR, SYN | PSH | URG | ECE | CWR]


@pytest.mark.parametrize("fail", ["closed", "open"])
@pytest.mark.parametrize("mode", ["redirect", "tproxy"])
@pytest.mark.parametrize("method", ["nftables", "iptables"])
def test_no_packet_that_opens_a_connection_passes_by(method: str, mode: str, fail: str) -> None:
    host = DaemonHost(RuleMethod=method, RuleMode=mode, TransparentProxy="client", RuleFail=fail)
    wire, server = Wire(host.net), Heard(host.net.server)
    try:
        for version in (4, 6):
            run(host.gateway, "ip", f"-{version}", "route", "add", "default", "via", SERVER[version])

        def filtered() -> bool:
            greeting(host.net.client, SERVER[4], wait=1)
            return server.peers[-1:] == [WAN[4]]

        assert within(SOON, filtered)
        with closing(listening(host.net.server, "eth0")) as behind:
            for version in (4, 6):
                for flags in ODD_SYNS:
                    assert wire.connect(SERVER[version], flags=flags, seconds=0.2)[SERVER[version]] != "connected"
                for flags in SYNS:
                    assert wire.connect(SERVER[version], flags=flags, seconds=2)[SERVER[version]] == "connected"
            wire.connect(*NEVER, seconds=0.5)
            passed = [segment for segment in seen(behind, 0.5) if segment.source[0] in PACKET_CLIENT.values()]
        assert passed == []
        if fail == "open":
            host.instance.stop()
            assert within(SOON, lambda: not filtered() and server.peers[-1:] == [CLIENT[4]])
            with closing(listening(host.net.server, "eth0")) as behind:
                for version in (4, 6):
                    for flags in ODD_SYNS:
                        wire.connect(SERVER[version], flags=flags, seconds=0.2)
                passed = [segment for segment in seen(behind, 0.5) if segment.source[0] in PACKET_CLIENT.values()]
            assert passed == []
    finally:
        wire.close()
        server.close()
        host.close()
