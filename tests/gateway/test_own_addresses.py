"""Which addresses the daemon takes for this host's, with addresses, routes and settings that make it hard to tell."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from tests.gateway.network import LAN, SERVER, WAN, run

if TYPE_CHECKING:
    from tests.gateway.network import Network

OTHERS = (SERVER[4], SERVER[6], "203.0.113.99", "2001:db8:9::1", "192.0.2.10", "2001:db8:1::10", "fd00::9")
ASK = """
import ipaddress, json, sys
from proxsmtp_tp.net.own_addresses import ends_here
print(json.dumps([address for address in sys.argv[1:] if ends_here(ipaddress.ip_address(address))]))
"""


def own(net: Network, *addresses: str) -> list[str]:
    """Those of the addresses that the gateway takes for its own, asked without privileges as the daemon is."""
    user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all")
    found: list[str] = json.loads(run(net.gateway, *user, sys.executable, "-c", ASK, *addresses))
    return found


CHANGES = {
    "as it is": ([], []),
    "another address": (
        ["ip addr add 203.0.113.7/32 dev lan0", "ip addr add 2001:db8:7::7/128 dev lan0 nodad"],
        ["203.0.113.7", "2001:db8:7::7"],
    ),
    "without an interface that is up": (
        ["ip link add spare type veth peer name other", "ip addr add 203.0.113.7/32 dev spare"], ["203.0.113.7"],
    ),
    "AnyIP": (
        ["ip route add local 203.0.113.0/28 dev lo", "ip -6 route add local 2001:db8:7::/64 dev lo"],
        ["203.0.113.7", "2001:db8:7::7"],
    ),
    "AnyIP with another source address": (
        [f"ip route add local 203.0.113.0/28 dev lo src {LAN[4]}",
         f"ip -6 route add local 2001:db8:7::/64 dev lo src {LAN[6]}"],
        ["203.0.113.7", "2001:db8:7::7"],
    ),
    "AnyIP by way of another interface than lo": (
        ["ip route add local 203.0.113.0/28 dev lan0", "ip -6 route add local 2001:db8:7::/64 dev lan0"],
        ["203.0.113.7", "2001:db8:7::7"],
    ),
    "policy routing first": (
        ["ip rule add priority 32765 lookup local", "ip rule del priority 0",
         "ip rule add priority 5 lookup 77", f"ip route add default via {SERVER[4]} table 77"],
        [],
    ),
    "binding to anything": (
        ["sysctl -qw net.ipv4.ip_nonlocal_bind=1 net.ipv6.ip_nonlocal_bind=1", "ip addr add 203.0.113.7/32 dev lan0",
         "ip addr add 2001:db8:7::7/128 dev lan0 nodad"],
        ["203.0.113.7", "2001:db8:7::7"],
    ),
    "a broadcast address that nobody would guess": (
        ["ip addr add 203.0.113.7/24 broadcast 203.0.113.77 dev lan0"], ["203.0.113.7", "203.0.113.77"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_ends_on_this_host(net: Network, change: str) -> None:
    commands, added = CHANGES[change]
    for command in commands:
        run(net.gateway, *command.split())
    always = [LAN[4], WAN[4], LAN[6], WAN[6], "127.0.0.1", "::1", "192.0.2.255"]
    assert own(net, *always, *added, *OTHERS) == [*always, *added]


def test_addresses_that_come_later_and_many(net: Network) -> None:
    addresses = [f"10.{number // 250}.{number % 250}.1" for number in range(1000)]
    assert own(net, *addresses[::100]) == []
    run(net.gateway, "ip", "-batch", "-", stdin="".join(f"addr add {text}/32 dev lan0\n" for text in addresses))
    assert own(net, *addresses[::100]) == addresses[::100]
