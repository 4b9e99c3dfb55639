"""Checks the host: interfaces, forwarding, reverse paths, IPv6, bridges, connection tracking.

Sources: Documentation/networking/ip-sysctl.rst (ip_forward, rp_filter: the larger value of `all` and of the interface
is in effect), nf_conntrack-sysctl.rst, bridge-nf-call-iptables in ip-sysctl.rst.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING, Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from proxsmtp_tp.gateway import nftables, routing, survey
from proxsmtp_tp.gateway.doctor.findings import Finding, Setup, setting, setting_name, setting_path
from proxsmtp_tp.gateway.doctor.fixes import NONE, Fix, fix
from proxsmtp_tp.gateway.plan import Method, Mode

if TYPE_CHECKING:
    from collections.abc import Iterator

STRICT = 1  # a value of rp_filter
_UNICAST = 1  # RTN_UNICAST, linux/rtnetlink.h
_TOOL_SECONDS = 8.0  # less than a step may take
_FULL = 0.9  # of the connection table: the rest may fill within seconds
_RAW_TOOLS = {"iptables-legacy-save": "iptables-legacy", "ip6tables-legacy-save": "ip6tables-legacy"}


@dataclass(frozen=True, slots=True)
class Link:
    """One interface."""

    name: str
    up: bool
    carrier: bool
    master: str
    """The bridge (or other device) that it is a port of."""
    kind: str


def links() -> dict[str, Link]:
    """All interfaces by name."""
    with IPRoute() as netlink:
        messages = list(netlink.get_links())
    names = {message["index"]: message.get("IFLA_IFNAME") for message in messages}
    return {
        message.get("IFLA_IFNAME"): Link(
            message.get("IFLA_IFNAME"),
            bool(message["flags"] & 1),  # IFF_UP
            message.get("IFLA_OPERSTATE") in {"UP", "UNKNOWN"},
            names.get(message.get("IFLA_MASTER"), "") or "",
            message.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or "",
        )
        for message in messages
    }


def look_at_interfaces(setup: Setup) -> Iterator[Finding]:
    """Checks that the client interfaces exist, are up, and are not ports of a bridge."""
    there = links()
    for name in setup.plan.options.interfaces:
        step, link = f"interface {name}", there.get(name)
        if link is None:
            yield Finding(step, False, f"it does not exist; there are {', '.join(sorted(there))}")
        elif not link.up:
            yield Finding(step, False, "it is down", fix("interface is down", interface=name))
        elif not link.carrier:
            yield Finding(step, False, "it has no carrier: no cable, or the other end is down")
        elif link.master and there[link.master].kind == "bridge":
            text = f"it is a port of bridge {link.master}: packets come in by the bridge, and the rules never match"
            install = setup.command("install-rules")
            yield Finding(step, False, text, fix("port of a bridge", install_rules=install, bridge=link.master))
        else:
            yield Finding(step, True, "it is up")


def look_at_forwarding(setup: Setup) -> Iterator[Finding]:
    """Checks that the host forwards: everything except mail, and with fail open also mail while no daemon runs."""
    if not setup.plan.options.interfaces:
        return
    for version, name in ((4, "net.ipv4.ip_forward"), (6, "net.ipv6.conf.all.forwarding")):
        if version in _versions_of(setup):
            on = setting(name) == "1"
            text = f"IPv{version} packets are {'forwarded' if on else 'not forwarded: this host is no router'}"
            yield Finding(f"forwarding, IPv{version}", on, text, NONE if on else fix("not forwarded", setting=name))


def _versions_of(setup: Setup) -> list[int]:
    """The IP versions that the client interfaces have."""
    there = {interface.name: interface for interface in survey.interfaces()}
    return [
        version
        for version in routing.versions()
        if any(there[name].has_address(version) for name in setup.plan.options.interfaces if name in there)
    ]


def look_at_reverse_paths(setup: Setup) -> Iterator[Finding]:
    """Checks that answers to a client leave by the client's interface, or that rp_filter allows another one."""
    options = setup.plan.options
    for interface in survey.interfaces():
        if interface.name not in options.interfaces:
            continue
        effective = max(int(setting(setting_name("net", "ipv4", "conf", which, "rp_filter")) or 0)
                        for which in ("all", interface.name))  # fmt: skip
        step = f"return path, {interface.name}"
        problems = [
            finding
            for network in options.sources
            if (finding := _return_path(step, interface.name, str(network[0]), str(network), effective)) is not None
        ]
        yield from problems
        if not problems:
            yield Finding(step, True, f"answers leave by it (rp_filter {effective})")


def _return_path(step: str, interface: str, address: str, network: str, effective: int) -> Finding | None:
    if network in {"0.0.0.0/0", "::/0"}:
        return None
    back = route_to(address)
    if back is None:
        text = f"there is no route back to {network}"
        return Finding(step, False, text, fix("no route back", network=network, interface=interface))
    if back == interface or effective != STRICT or ":" in address:
        return None
    text = f"answers to {network} leave by {back}, and strict rp_filter drops what comes in by {interface}"
    name = setting_name("net", "ipv4", "conf", interface, "rp_filter")
    return Finding(step, False, text, fix("strict reverse path", setting=name))


def route_to(address: str) -> str | None:
    """The interface by which packets for an address leave; None if there is no route."""
    version = ip_address(address).version
    with IPRoute() as netlink:
        try:
            (found,) = netlink.route("get", dst=address, family=routing.FAMILIES[version])
            (link,) = netlink.get_links(found.get("RTA_OIF"))
        except NetlinkError:
            return None
    return str(link.get("IFLA_IFNAME"))


def look_at_ipv6(setup: Setup) -> Iterator[Finding]:
    """Checks that interception of IPv6 works on each client interface, or that IPv6 is not in use there."""
    for interface in survey.interfaces():
        if interface.name not in setup.plan.options.interfaces or 6 not in routing.versions():
            continue
        step = f"IPv6, {interface.name}"
        local_only = any(address.startswith("fe80:") for address in interface.addresses)
        routes = setting(setting_name("net", "ipv6", "conf", interface.name, "forwarding")) == "1"
        if interface.has_address(6):
            yield Finding(step, True, "it has an address")
        elif local_only and routes and setup.plan.options.mode is Mode.REDIRECT and _ipv6_leads_somewhere():
            text = "it forwards, but has only a link-local address, which REDIRECT cannot use: IPv6 mail is dropped"
            # Any unique local address (RFC 4193) is enough; mode tproxy needs none.
            address = f"fd25:2525:{setup.plan.numbers.slot:x}::1/64"
            command = fix("link-local address only", address=address, interface=interface.name)
            yield Finding(step, False, text, command)
        else:
            yield Finding(step, True, "not in use")
    yield from _way_out(setup)


def _way_out(setup: Setup) -> Iterator[Finding]:
    """Checks for an IPv6 route to servers: clients with IPv6 try it first (RFC 6724), and would fail without one."""
    options = setup.plan.options
    clients = [item.name for item in survey.interfaces() if item.name in options.interfaces and item.has_address(6)]
    if not (clients and setup.plan.sources(6) and setup.settings.transparent and 6 in routing.versions()):
        return
    step = "IPv6, way out"
    if _ipv6_leads_somewhere(without=options.interfaces):
        yield Finding(step, True, "a route leads on")
    elif options.refuse_failed and options.method is Method.NFTABLES:
        yield Finding(step, True, f"no route leads on from {', '.join(clients)}: the rules tell clients so at once")
    else:
        text = f"no route leads on, but IPv6 connections from {', '.join(clients)} are accepted, and fail only then:"
        advice = "a route, or RuleSource: 0.0.0.0/0, or RuleMethod: nftables with ConnectFailure: refuse"
        yield Finding(step, False, f"{text} give the gateway {advice}")


def _ipv6_leads_somewhere(without: tuple[str, ...] = ()) -> bool:
    """Whether there is an IPv6 route other than link-local ones, which every interface has.

    `without`: interfaces whose routes do not count.
    """
    with IPRoute() as netlink:
        routes = list(netlink.get_routes(family=socket.AF_INET6, type=_UNICAST))
    names = dict(socket.if_nameindex())
    found = set[str]()
    for route in routes:
        target = str(route.get("RTA_DST") or "::")
        if target == "::1" or target.startswith("fe80:"):
            continue
        hops = route.get("RTA_MULTIPATH") or []
        found |= {names.get(index or 0, "") for index in (route.get("RTA_OIF"), *(hop["oif"] for hop in hops))}
    return bool(found - {*without, "lo", ""})


def look_at_bridges(setup: Setup) -> Iterator[Finding]:
    """Checks that the rules do not see packets that a bridge forwards from port to port: these are not routed."""
    there = links()
    bridges = [name for name in setup.plan.options.interfaces if name in there and there[name].kind == "bridge"]
    for name in bridges:
        for setting_of in ("net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables"):
            on = setting(setting_of) == "1"
            text = f"{setting_of} is on: the rules also see mail that {name} only hands from port to port"
            command = fix("bridge that filters", setting=setting_of) if on else NONE
            yield Finding(f"bridge {name}", not on, text if on else f"{setting_of} is off", command)


def look_at_connection_tracking(setup: Setup) -> Iterator[Finding]:
    """Checks that connection tracking, which REDIRECT needs, is on for mail and has free entries."""
    if setup.plan.options.mode is not Mode.REDIRECT and not setup.plan.options.local:
        return
    step = "connection tracking"
    off = [*_untracked_by_nft(), *_untracked_by_xtables()]
    for where, command in off:
        yield Finding(step, False, f"{where} switches it off, so NAT does not happen", command)
    used, limit = (setting(f"net.netfilter.nf_conntrack_{what}") for what in ("count", "max"))
    if used and limit and int(used) > _FULL * int(limit):
        yield _table_is_full(step, used, limit)
    elif not off:
        yield Finding(step, True, f"{used or 0} of {limit or '?'} connections")


def _table_is_full(step: str, used: str, limit: str) -> Finding:
    text = f"{used} of {limit} connections: new ones are dropped"
    name = "net.netfilter.nf_conntrack_max"
    if not os.access(setting_path(name), os.W_OK):  # a container: its host has the table
        return Finding(step, False, f"{text}; raise {name} on the host of this container")
    return Finding(step, False, text, fix("connection table is full", limit=2 * int(limit)))


def _untracked_by_nft() -> Iterator[tuple[str, Fix]]:
    for item in nftables.ruleset():
        rule: dict[str, Any] | None = item.get("rule")
        if rule and any("notrack" in statement for statement in rule["expr"]):
            where = [rule["family"], rule["table"], rule["chain"]]
            command = fix("untracked by nft", chain=where, handle=rule["handle"])
            yield f"a rule of nft {' '.join(where)}", command


def _untracked_by_xtables() -> Iterator[tuple[str, Fix]]:
    for save, tool in _RAW_TOOLS.items():
        try:
            saved = subprocess.run(
                [save, "-t", "raw"], capture_output=True, text=True, check=False, timeout=_TOOL_SECONDS
            )
        except (FileNotFoundError, subprocess.TimeoutExpired):
            continue
        for line in saved.stdout.splitlines():
            if line.startswith("-A ") and line.endswith(("--notrack", "-j NOTRACK")):
                yield f"{tool} -t raw", fix("untracked by iptables", tool=tool, rule=shlex.split(line[3:]))


def own_networks(name: str) -> list[str]:
    """The addresses of an interface with their prefix lengths, without link-local ones."""
    return [
        str(ip_interface(address))
        for interface in survey.interfaces()
        if interface.name == name
        for address in interface.addresses
        if not address.startswith("fe80:")
    ]
