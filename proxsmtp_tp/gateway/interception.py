"""Whether the rules of a plan intercept a connection, and why. Pure: decides as the firewall would.

Only addresses and port are compared. The interface that the connection comes in by is not known here, so with
RuleInterface the answer is a condition ("if it comes in by").
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import TYPE_CHECKING

from proxsmtp_tp.gateway.plan import ANYWHERE

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    from proxsmtp_tp.gateway.plan import Network, Plan

# As no_server4 and no_server6 in nftables/*.nft: what no server has, and what means this host to connect(2).
NO_SERVER: tuple[Network, ...] = (IPv4Network("0.0.0.0/8"), IPv4Network("127.0.0.0/8"), IPv6Network("::/64"))


@dataclass(frozen=True, slots=True)
class Interception:
    """`refused`: the rules refuse the connection instead (RuleForward). `why` is one line."""

    intercepted: bool
    why: str
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Ends:
    """The two ends of a connection, and which of them are addresses of this host."""

    client: str
    server: str
    port: int
    client_is_here: bool = False
    server_is_here: bool = False


def interception(plan: Plan, ends: Ends) -> Interception:
    """What the rules do with a new connection."""
    why_not = _why_not(plan, ends)
    if why_not:
        return Interception(False, why_not)
    if ends.client_is_here:
        came = "RuleLocal: it comes from this host, from any user but the daemon's"
    else:
        names = ", ".join(plan.options.interfaces)
        came = f"if it comes in by {names} (RuleInterface)"
    if plan.refuse_all:
        return Interception(False, f"refused: RuleForward forbids the rules; {came}", refused=True)
    return Interception(True, came)


def _why_not(plan: Plan, ends: Ends) -> str:
    options = plan.options
    client, server = ip_address(ends.client), ip_address(ends.server)
    if client.version != server.version:
        return f"{client} and {server} are of different IP versions"
    if ends.port not in options.ports:
        return f"port {ends.port} is not in RulePort ({', '.join(map(str, options.ports))})"
    if found := _containing(options.except_destinations, server):
        return f"{server} is in RuleExceptDestination ({found})"
    if found := _containing(NO_SERVER, server):
        return f"{server} is no server's address ({found})"
    if ends.server_is_here or server.is_multicast or str(server) == "255.255.255.255":
        return f"{server} is an address of this host, or of no single host"
    if ends.client_is_here:
        return "" if options.local else "it comes from this host, and RuleLocal is off"
    if not options.interfaces:
        return "no RuleInterface: nothing that this host forwards is intercepted"
    if not _containing(options.sources or ANYWHERE, client):
        return f"{client} is not in RuleSource"
    if found := _containing(options.except_sources, client):
        return f"{client} is in RuleExceptSource ({found})"
    return ""


def _containing(networks: tuple[Network, ...], address: IPv4Address | IPv6Address) -> Network | None:
    return next((network for network in networks if address in network), None)
