"""Parts that several chains of the iptables method share: matches (`Extension`), and whole rules.

Source: iptables-extensions(8).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxsmtp_tp.gateway.plan import HEARTBEAT_HOLD, REFUSE_HOLD, Fail, of_version
from proxsmtp_tp.gateway.xtables_values import RETURN, Rule

if TYPE_CHECKING:
    from proxsmtp_tp.gateway.plan import Plan
    from proxsmtp_tp.gateway.xtables_values import Extension

_SYN = ("FIN,SYN,RST,ACK", "SYN")
ANY_SYN = ("SYN,ACK", "SYN")
"""Matches also a SYN with FIN or RST: some servers accept it as a SYN, but connection tracking does not."""
WELL_FORMED = ("FIN,RST", "NONE")
NO_SERVER = {4: ("0.0.0.0/8", "127.0.0.0/8"), 6: ("::/64",)}
"""Addresses that no server has, and those that connect(2) takes for this host: see the nft files."""
NOT_UNICAST = {4: ("LOCAL", "BROADCAST", "ANYCAST", "MULTICAST"), 6: ("LOCAL", "ANYCAST", "MULTICAST")}
ICMP = {4: "icmp", 6: "icmpv6"}
ANY_ADDRESS = {4: "0.0.0.0", 6: "::"}  # noqa: S104 - not to bind to: on-ip of TPROXY, and a mask without bits
FIRST_PACKET: Extension = ("tcp", (("tcp-flags", _SYN),))
"""A SYN that connection tracking accepts as the first packet of a connection."""
LATER_PACKET: Extension = ("tcp", (("tcp-flags", ("!", *_SYN)),))


def not_the_daemons(plan: Plan) -> tuple[Extension, ...]:
    """Matches packets of this host that neither come from the daemon nor are routed to it."""
    return (
        ("mark", (("mark", ("!", f"{plan.numbers.local_mark:#x}")),)),
        ("owner", (("uid-owner", ("!", str(plan.options.daemon_uid))),)),
    )


def refuses_unreachable(plan: Plan) -> bool:
    """Whether connections to unreachable servers are refused. Not in full mode: a server may refuse only one client's
    address, and an entry of the recent match has one address, not two.
    """
    return plan.options.refuse_failed and not plan.options.full


def to_unreachable(plan: Plan, version: int) -> tuple[tuple[Extension, ...], ...]:
    """For each port, the matches for a connection to a server that the daemon could not reach."""
    if not refuses_unreachable(plan):
        return ()
    recently = (("rcheck", ("",)), ("seconds", (str(REFUSE_HOLD),)))
    return tuple(
        (("tcp", (("dport", (str(port),)),)), unreachable_list(plan, version, port, *recently))
        for port in sorted(plan.options.ports)
    )


def unreachable_list(plan: Plan, version: int, port: int, *action: tuple[str, tuple[str, ...]]) -> Extension:
    """One list of the recent match for each port: a list records addresses only, the newest hundred."""
    return ("recent", (*action, ("name", (f"{plan.names.recent}.{version}.{port}",)), ("rdest", ("",))))


def heartbeat_list(plan: Plan, version: int, *action: tuple[str, tuple[str, ...]]) -> Extension:
    """The list of the recent match in which heartbeats are recorded."""
    # With a mask of no bits all addresses are equal: the list has one entry, the time of the last datagram.
    kept = (("name", (f"{plan.names.recent}.{version}",)), ("mask", (ANY_ADDRESS[version],)), ("rsource", ("",)))
    return ("recent", (*action, *kept))


def call(plan: Plan, chain: str, matches: tuple[Extension, ...]) -> Rule:
    """The rule of a built-in chain that calls ours."""
    return Rule((chain, ()), (("protocol", "tcp"),), (*matches, comment(plan)))


def comment(plan: Plan) -> Extension:
    """The instance's name, for people who list the rules."""
    return ("comment", (("comment", (plan.names.comment,)),))


def ports(plan: Plan) -> Extension:
    """Matches packets to an intercepted port."""
    return ("multiport", (("dports", (",".join(map(str, sorted(plan.options.ports))),)),))


def tcp_flags(values: tuple[str, ...]) -> Extension:
    """The flags that are looked at, and those of them that must be set."""
    return ("tcp", (("tcp-flags", values),))


def new_connection(plan: Plan) -> tuple[Extension, ...]:
    """Matches the first packet of a connection to an intercepted port."""
    return (ports(plan), FIRST_PACKET)


def to_type(kind: str) -> Rule:
    """Return for packets to one type of address. One rule for each type: for IPv6, a list of types matches only
    addresses that have all of them.
    """
    return Rule(RETURN, matches=(("addrtype", (("dst-type", (kind,)),)),))


def excepted(plan: Plan, version: int, *, sources: bool = True) -> tuple[Rule, ...]:
    """Return for the exceptions of the plan; `sources`: also for those by source."""
    found = [("dst", network) for network in of_version(plan.options.except_destinations, version)]
    if sources:
        found += [("src", network) for network in of_version(plan.options.except_sources, version)]
    return tuple(Rule(RETURN, ((side, str(network)),)) for side, network in found)


def never_intercepted(plan: Plan, version: int, *, sources: bool = True) -> tuple[Rule, ...]:
    """Return for packets to this host or to no single host, and for the exceptions of the plan."""
    return (
        *(to_type(kind) for kind in NOT_UNICAST[version]),
        *(Rule(RETURN, (("dst", network),)) for network in NO_SERVER[version]),
        *excepted(plan, version, sources=sources),
    )


def not_intercepted(plan: Plan, version: int, *, sources: bool = True) -> tuple[Rule, ...]:
    """Return for what is not intercepted: see `never_intercepted`, and connections to an unreachable server.

    With fail open also every connection while no heartbeat comes.
    """
    found = (
        *never_intercepted(plan, version, sources=sources),
        # The guard refuses connections to unreachable servers.
        *(Rule(RETURN, (("protocol", "tcp"),), match) for match in to_unreachable(plan, version)),
    )
    if plan.options.fail is Fail.CLOSED:
        return found
    return (*found, Rule(RETURN, matches=(no_heartbeat(plan, version),)))


def no_heartbeat(plan: Plan, version: int) -> Extension:
    """Fail open: matches while there is no heartbeat."""
    return heartbeat_list(plan, version, ("rcheck", ("!", "")), ("seconds", (str(HEARTBEAT_HOLD),)))


def from_clients(plan: Plan, version: int, target: Extension, matches: tuple[Extension, ...] = ()) -> tuple[Rule, ...]:
    """One rule for each client interface and source network."""
    return tuple(
        Rule(
            target,
            (
                *((("src", str(source)),) if source.prefixlen else ()),
                ("in-interface", interface),
                ("protocol", "tcp"),
            ),
            matches,
        )
        for interface in sorted(plan.options.interfaces)
        for source in plan.sources(version)
    )


def from_probe(plan: Plan, target: Extension, matches: tuple[Extension, ...] = ()) -> Rule:
    """Everything that comes in by the interface of a probe, from any address."""
    return Rule(target, (("in-interface", plan.numbers.probe), ("protocol", "tcp")), matches)
