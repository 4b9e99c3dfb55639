"""Checks the rules: in place, with policy routing, delivery of marked packets, and the daemon's heartbeat."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from proxsmtp_tp.gateway import check, counting, existing, nftables, overlap, routing
from proxsmtp_tp.gateway.doctor.findings import Finding, Setup
from proxsmtp_tp.gateway.doctor.fixes import NONE, Fix, fix
from proxsmtp_tp.gateway.doctor.host import own_networks
from proxsmtp_tp.gateway.nft_text import ALIVE_SET
from proxsmtp_tp.gateway.plan import Existing, Fail, Method

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxsmtp_tp.gateway.plan import Network

_SHOWN = 3  # number of differences in one line; check-rules shows all
_LATE = 30000  # after every priority of ours, before the main table (32766)
RTN_LOCAL = 2  # linux/rtnetlink.h
# Documentation addresses (RFC 5737, RFC 3849), which no server has.
EXAMPLES = {
    4: ("203.0.113.250", "198.51.100.250", "192.0.2.250"),
    6: ("2001:db8:ffff::250", "2001:db8:fffe::250", "2001:db8:fffd::250"),
}


def look_at_rules(setup: Setup) -> Iterator[Finding]:
    """Checks that firewall rules and policy routing are as planned."""
    if not setup.plan.options.interfaces and not setup.plan.options.local:
        text = "none are installed, and the configuration names no interface: set RuleInterface, then install-rules"
        yield Finding("rules", False, text)
        return
    finding = check.examine_installed(setup.plan, setup.store.read(setup.plan.options.instance))
    install = setup.command("install-rules")
    routes = [line for line in finding.differences if line.startswith(("missing: ip ", "unexpected: ip "))]
    others = [line for line in finding.differences if line not in routes]
    if finding.absent:
        yield Finding("rules", False, "they are not installed", fix("rules are absent", install_rules=install))
        return
    command = fix("rules differ", install_rules=install) if others else NONE
    yield Finding("rules", not others, _some(others) or f"in place{_met(setup)}", command)
    if setup.plan.diverts or routes:
        command = fix("policy routing differs", install_rules=install) if routes else NONE
        yield Finding("policy routing", not routes, _some(routes) or "in place", command)


def _met(setup: Setup) -> str:
    """A hint, where no client was intercepted: nobody may have sent mail since the rules were installed."""
    options = setup.plan.options
    reading = counting.read(options.instance, setup.store) if options.interfaces else None
    if reading is None or reading.unread or not reading.counts:
        return ""
    names = ("intercepted, IPv4", "intercepted, IPv6")
    if any(count.packets for count in reading.counts if count.rule in names):
        return ""
    return "; no connection of a client has met them since they were installed"


def look_at_overlap(setup: Setup) -> Iterator[Finding]:
    """Checks that no other instance intercepts the same connections."""
    states = setup.store.read_all()
    found = overlap.others(setup.plan, states)
    for text in found:
        remove = setup.command("remove-rules", "--instance", text.split()[1])
        more = "one of the two gets no mail; give each its own clients, or remove the rules of one"
        command = fix("rules of another instance", remove_rules=remove)
        yield Finding("other instances", False, f"{text}: {more}", command)
    if len(states) > 1 and not found:
        yield Finding("other instances", True, "none intercepts the same connections")


def _some(lines: list[str]) -> str:
    more = len(lines) - _SHOWN
    return "; ".join(lines[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def look_at_existing(setup: Setup) -> Iterator[Finding]:
    """Reports connections that began unfiltered: how many there are, and what happens to them."""
    found = existing.connections(setup.plan)
    kept = setup.plan.options.existing is Existing.FINISH
    none = f"none began unfiltered ({'they would go on' if kept else 'they would be reset'})"
    yield Finding("existing connections", True, existing.sentence(setup.plan, found) or none)


def look_at_delivery(setup: Setup) -> Iterator[Finding]:
    """Checks that packets with our mark are delivered to this host, in spite of other policy rules."""
    if not setup.plan.diverts:
        return
    if not check.wanted_routing(setup.plan)[0] <= routing.read_routing().rules:
        return  # look_at_rules reports it
    for name in setup.plan.options.interfaces:
        for version in routing.versions():
            source = client_address(setup, name, version)
            server = server_address(setup, version)
            if source is None or server is None:
                continue
            delivered = _delivered(source, server, name, setup.plan.numbers.mark)
            step = f"delivery, {name}, IPv{version}"
            text = "marked packets come to this host"
            wrong, command = _who_routes(setup, version) if not delivered else ("", NONE)
            yield Finding(step, delivered, text if delivered else wrong, command)


def client_address(setup: Setup, interface: str, version: int) -> str | None:
    """An address that an intercepted client could have: in a network of the interface, or else of --source."""
    options = setup.plan.options
    near = [ip_interface(text) for text in own_networks(interface) if ip_interface(text).version == version]
    networks: list[Network] = [address.network for address in near]
    own = {address.ip for address in near}
    for network in [*networks, *(n for n in setup.plan.sources(version) if n.prefixlen)]:
        for host in _some_hosts(network):
            listed = any(host in source for source in setup.plan.sources(version))
            if listed and host not in own and not any(host in n for n in options.except_sources):
                return str(host)
    return None


def _some_hosts(network: Network) -> Iterator[object]:
    size = network.num_addresses
    for offset in (size // 2, size // 2 + 1, 1, 2, 3, 0):
        if offset < size:
            yield network[offset]


def server_address(setup: Setup, version: int) -> str | None:
    """An address of a server to which mail would be intercepted."""
    for text in EXAMPLES[version]:
        address = ip_address(text)
        excepted = any(address in network for network in setup.plan.options.except_destinations)
        if not excepted:
            return text
    return None


def _delivered(source: str, server: str, interface: str, mark: int) -> bool:
    with IPRoute() as netlink:
        (index,) = netlink.link_lookup(ifname=interface)
        family = routing.FAMILIES[ip_address(server).version]
        try:
            (found,) = netlink.route("get", dst=server, src=source, iif=index, mark=mark, family=family)
        except NetlinkError:
            return False
    return bool(found["type"] == RTN_LOCAL)


def _who_routes(setup: Setup, version: int) -> tuple[str, Fix]:
    """The policy rules before ours, one of which routes the packet, and a command that moves the first after ours."""
    first = setup.plan.numbers.priority
    before = [
        rule for rule in routing.read_routing().foreign_rules if rule.version == version and 0 < rule.priority < first
    ]
    if not before:
        return "marked packets are not delivered to this host (ip route get ... mark)", NONE
    text = f"marked packets are routed away by a policy rule before ours: {'; '.join(map(str, before))}"
    return text, fix("policy rule comes first", ip=["ip", f"-{version}"], late=_LATE, old=before[0].priority)


def look_at_heartbeat(setup: Setup) -> Iterator[Finding]:
    """Checks for the heartbeat: with fail open, mail is intercepted only while the daemon sends it."""
    options = setup.plan.options
    if options.fail is not Fail.OPEN or options.method is not Method.NFTABLES:
        return
    listed = nftables.run_nft("list", "set", nftables.FAMILY, setup.plan.names.table, ALIVE_SET)
    if listed.returncode:
        return  # there are no rules; look_at_rules reports it
    alive = "expires" in listed.stdout
    text = "the daemon sends it" if alive else "there is none: mail passes unfiltered now"
    yield Finding("heartbeat", alive, text, NONE if alive else fix("no heartbeat", restart=setup.restart))
