"""Finds connections that the host's forwarding policy forbids (FORWARD, policy routing) but interception would allow.

A redirected connection is not forwarded: the daemon makes its own connection. So a drop in a forward chain, or a policy
rule that prohibits a destination for a client, would no longer have an effect. This module tests the policy with sample
clients and servers: some hosts of the interfaces' networks, servers that no rule names, and one host for every address
that a rule names. Firewall rules are tested in a copy of the host (`forward_trial`); routes, with the lookup that the
kernel makes for the client's packet.

Sources: ip-rule(8), ip-route(8), rtnetlink(7).
"""

from __future__ import annotations

import errno
import json
import re
import shutil
import socket
import subprocess
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING, Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from proxsmtp_tp.gateway import routing, rulesets, survey
from proxsmtp_tp.gateway.errors import GatewayError
from proxsmtp_tp.gateway.plan import PROTOCOL, Mode
from proxsmtp_tp.gateway.python import module_command

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from proxsmtp_tp.gateway.plan import Network, Plan
    from proxsmtp_tp.gateway.rulesets import Ruleset

# Documentation addresses (RFC 5737, RFC 3849): servers that no rule names.
EXAMPLES = {4: ("203.0.113.250", "198.51.100.250"), 6: ("2001:db8:ffff::250", "2001:db8:fffe::250")}
NAMED_MAX = 200  # addresses from rules, for each IP version: a blocklist has tens of thousands, all used alike
TRIALS_MAX = 20000  # SYNs: sending them takes about a second
SHOWN = 3  # number of rules, or connections, in one line
_TIMEOUT = 120.0
_PRIORITY = {Mode.REDIRECT: -104, Mode.TPROXY: -149}  # just after our rules in the prerouting hook
_REFUSALS = {6: "blackhole", 7: "unreachable", 8: "prohibit"}  # linux/rtnetlink.h, and fib_rules.h
_REFUSED = {errno.EINVAL, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES}
_ADDRESS = re.compile(r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-fA-F]{0,4}(?::[0-9a-fA-F]{0,4}){2,7})(?:/\d{1,3})?")
_CLOSES = re.compile(r"\b(?:drop|reject|DROP|REJECT)\b")


@dataclass(frozen=True, slots=True)
class Closed:
    """Connections that the host would not forward: `who` is the ruleset or policy rule that forbids them."""

    who: str
    rules: tuple[str, ...]
    connections: tuple[str, ...]

    def __str__(self) -> str:
        rules = f" ({'; '.join(self.rules)})" if self.rules else ""
        more = f" and {len(self.connections) - SHOWN} more" if len(self.connections) > SHOWN else ""
        return f"{self.who}{rules} does not forward {', '.join(self.connections[:SHOWN])}{more}"


@dataclass(frozen=True, slots=True)
class _Trial:
    interface: str
    client: str
    server: str
    port: int
    out: str

    def __str__(self) -> str:
        server = f"[{self.server}]" if ":" in self.server else self.server
        return f"{self.client} -> {server}:{self.port} (from {self.interface})"


def closed(plan: Plan) -> list[Closed]:
    """What the host's policy forbids and interception would allow. Raises GatewayError if that cannot be tested."""
    if not plan.options.interfaces:
        return []
    return [*_closed_by_routing(plan), *_closed_by_firewall(plan)]


def _closed_by_firewall(plan: Plan) -> list[Closed]:
    closing = [ruleset for ruleset in rulesets.foreign_rulesets(plan) if _CLOSES.search(ruleset.script[1])]
    if not closing:
        return []
    if shutil.which("nft") is None:
        raise GatewayError("the forwarding policy cannot be tried without nft: apt-get install nftables")
    trials = list(_trials(plan, [ruleset.script[1] for ruleset in closing]))[:TRIALS_MAX]
    stopped = _stopped(plan, closing, trials)
    if not stopped:
        return []
    found, explained = [], set[_Trial]()
    for ruleset in closing:
        # Of one ruleset it is known already: a trial costs a third of a second.
        if by_this := _stopped(plan, [ruleset], stopped) if len(closing) > 1 else stopped:
            found.append(Closed(ruleset.name, _rules(ruleset), _shown(by_this)))
            explained.update(by_this)
    if left := [trial for trial in stopped if trial not in explained]:
        found.append(Closed("the rulesets together", (), _shown(left)))
    return found


def _shown(trials: list[_Trial]) -> tuple[str, ...]:
    """The trials as text: one of each IP version first."""
    first = {":" in trial.client: trial for trial in reversed(trials)}
    return tuple(map(str, dict.fromkeys([*sorted(first.values(), key=lambda trial: ":" in trial.client), *trials])))


def _stopped(plan: Plan, rulesets: list[Ruleset], trials: list[_Trial]) -> list[_Trial]:
    """The trials that reach the place of our rules, but are not forwarded."""
    links = {
        interface.name: [address for address in interface.addresses if not address.startswith("fe80:")]
        for interface in survey.interfaces()
    }
    found = []
    for name in plan.options.interfaces:
        own = [trial for trial in trials if trial.interface == name]
        if not own:
            continue
        job = {
            "links": links,
            "client": name,
            "scripts": [ruleset.script for ruleset in rulesets],
            "priority": _PRIORITY[plan.options.mode],
            "trials": [[trial.client, trial.server, trial.port, trial.out] for trial in own],
        }
        done = subprocess.run(
            ["unshare", "--net", *module_command("proxsmtp_tp.gateway.forward_trial")],
            input=json.dumps(job), capture_output=True, text=True, check=False, timeout=_TIMEOUT,
        )  # fmt: skip
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise GatewayError(f"the forwarding policy cannot be tried, the rulesets cannot be copied ({reason})")
        results = json.loads(done.stdout)["results"]
        found += [trial for trial, result in zip(own, results, strict=True) if result == "stopped"]
    return found


def _trials(plan: Plan, scripts: list[str]) -> Iterator[_Trial]:
    """Sample clients and servers, and those that rules name; only those that would be intercepted and have a route."""
    named = list(_named(scripts))
    with IPRoute() as netlink:
        for name in plan.options.interfaces:
            for version in routing.versions():
                hosts = [host for host in named if ip_address(host).version == version]
                clients = [host for host in _clients(plan, name, version, hosts) if _out(netlink, host) == name]
                servers = {host: _out(netlink, host) for host in _servers(plan, name, version, hosts)}
                for client in clients:
                    for server, out in servers.items():
                        if out not in {None, name, "lo"} and client != server:
                            for port in plan.options.ports:
                                yield _Trial(name, client, server, port, str(out))


def _named(scripts: Iterable[str]) -> Iterator[str]:
    """One host of every network that the rules name; only the first NAMED_MAX of each IP version."""
    found: dict[int, set[str]] = {4: set(), 6: set()}
    for script in scripts:
        for text in _ADDRESS.findall(script):
            try:
                network = ip_network(text, strict=False)
            except ValueError:
                continue
            host = str(network[min(1, network.num_addresses - 1)])
            if network.prefixlen and host not in found[network.version] and len(found[network.version]) < NAMED_MAX:
                found[network.version].add(host)
                yield host


def _clients(plan: Plan, interface: str, version: int, named: list[str]) -> list[str]:
    options = plan.options
    near = [ip_interface(text) for item in survey.interfaces() if item.name == interface for text in item.addresses]
    own = {str(address.ip) for address in near}
    networks: list[Network] = [
        *(a.network for a in near if a.version == version and not a.is_link_local),
        *(network for network in plan.sources(version) if network.prefixlen),
    ]
    hosts = [str(host) for network in networks for host in _some_hosts(network)]
    return [
        host
        for host in dict.fromkeys([*hosts, *named])
        if host not in own
        and _within(host, plan.sources(version))
        and not _within(host, options.except_sources)
    ]  # fmt: skip


def _servers(plan: Plan, interface: str, version: int, named: list[str]) -> list[str]:
    others = [ip_interface(text) for item in survey.interfaces() if item.name != interface for text in item.addresses]
    near = [
        str(host) for address in others if address.version == version and not address.is_link_local
        for host in list(_some_hosts(address.network))[:1] if host != address.ip
    ]  # fmt: skip
    hosts = dict.fromkeys([*EXAMPLES[version], *near, *named])
    return [host for host in hosts if not _within(host, plan.options.except_destinations)]


def _some_hosts(network: Network) -> Iterator[object]:
    size = network.num_addresses
    for offset in dict.fromkeys((size // 2, size // 2 + 1, size // 3)):
        if 0 < offset < size:
            yield network[offset]


def _within(host: str, networks: Iterable[Network]) -> bool:
    return any(ip_address(host) in network for network in networks)


def _out(netlink: IPRoute, host: str) -> str | None:
    """The interface of the route to a host; None if there is no route."""
    family = routing.FAMILIES[ip_address(host).version]
    try:
        (found,) = netlink.route("get", dst=host, family=family)
        return socket.if_indextoname(found.get("RTA_OIF"))
    except (NetlinkError, OSError, TypeError):
        return None


def _rules(ruleset: Ruleset) -> tuple[str, ...]:
    """The first few rules of a ruleset that may drop or reject forwarded packets."""
    found = []
    block = ""
    for raw in ruleset.script[1].splitlines():
        line = raw.strip()
        block = line if line.startswith("chain ") else block
        if " hook " in line:
            block += f" {line}"
        concerns = not any(f"hook {hook} " in f"{block} " for hook in ("input", "output", "ingress"))
        concerns = concerns and not line.startswith(("-A INPUT", "-A OUTPUT", ":INPUT", ":OUTPUT"))
        if concerns and _CLOSES.search(line):
            found.append(line)
    return tuple(found[:SHOWN]) + ((f"and {len(found) - SHOWN} more rules",) if len(found) > SHOWN else ())


def _closed_by_routing(plan: Plan) -> list[Closed]:
    """Policy rules that forbid a client a destination that the daemon may reach: by source, interface or table."""
    found = []
    with IPRoute() as netlink:
        for version in routing.versions():
            rules = list(netlink.get_rules(family=routing.FAMILIES[version]))
            routes = list(netlink.get_routes(family=routing.FAMILIES[version]))
            for rule in rules:
                if rule.get("FRA_PROTOCOL") == PROTOCOL or rule.get("FRA_OIFNAME"):
                    continue  # ours, or a rule only for sockets of this host
                for what, source, destinations in _refusals(version, rule, routes):
                    refused = [
                        f"{client} -> {server} (from {name})"
                        for name in plan.options.interfaces
                        if rule.get("FRA_IIFNAME") in {None, name}
                        for client in _clients(plan, name, version, _hosts(source))
                        if not source or _within(client, [ip_network(source)])
                        for server in destinations or _servers(plan, name, version, [])
                        if not _within(server, plan.options.except_destinations)
                        and _refused(netlink, name, client, server, rule.get("FRA_FWMARK") or 0)
                    ]
                    if refused:
                        found.append(Closed(what, (), tuple(refused)))
    return found


def _refusals(version: int, rule: Any, routes: list[Any]) -> Iterator[tuple[str, str, list[str]]]:
    """What a policy rule refuses: the rule as text, its source network ("" for any), and hosts of its destination."""
    source = _network(rule.get("FRA_SRC"), rule["src_len"])
    destination = _network(rule.get("FRA_DST"), rule["dst_len"])
    words = [f"ip -{version} rule {rule.get('FRA_PRIORITY') or 0}"]
    words += [f"from {source}"] if source else []
    words += [f"to {destination}"] if destination else []
    words += [f"iif {rule.get('FRA_IIFNAME')}"] if rule.get("FRA_IIFNAME") else []
    destinations = _hosts(destination)
    if rule["action"] in _REFUSALS:
        yield " ".join([*words, _REFUSALS[rule["action"]]]), source, destinations
        return
    table = rule.get("FRA_TABLE") or rule["table"]
    for route in routes:
        if (route.get("RTA_TABLE") or route["table"]) == table and route["type"] in _REFUSALS:
            to = _network(route.get("RTA_DST"), route["dst_len"])
            text = f"{' '.join(words)} lookup {table}: {_REFUSALS[route['type']]} {to or 'default'}"
            yield text, source, _hosts(to) or destinations


def _network(address: str | None, length: int) -> str:
    return f"{address}/{length}" if address and length else ""


def _hosts(network: str) -> list[str]:
    if not network:
        return []
    hosts = ip_network(network, strict=False)
    return [str(hosts[min(1, hosts.num_addresses - 1)])]


def _refused(netlink: IPRoute, interface: str, client: str, server: str, mark: int) -> bool:
    """Whether the kernel would refuse to route the client's packet, but not the daemon's."""
    family = routing.FAMILIES[ip_address(server).version]
    index = socket.if_nametoindex(interface)
    if _refusal(netlink, dst=server, family=family):
        return False
    return _refusal(netlink, dst=server, src=client, iif=index, family=family, **({"mark": mark} if mark else {}))


def _refusal(netlink: IPRoute, **lookup: Any) -> bool:
    try:
        (found,) = netlink.route("get", **lookup)
    except NetlinkError as error:
        return error.code in _REFUSED
    return found["type"] in _REFUSALS
