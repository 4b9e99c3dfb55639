"""From a plan to chains and rules of the iptables method, as values.

Guarantees: pure. The rules mean the same as those of the nft files: both methods treat a packet in the same way, with
two exceptions. The TPROXY target of xtables drops a packet when there is no listener, so with fail closed the client
gets no reset. And the heartbeat is recorded by the recent match instead of a set.

Our rules are in chains of our own; each is called once from a built-in chain.

Source: iptables-extensions(8).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from proxsmtp_tp.gateway import xtables_parts as parts
from proxsmtp_tp.gateway.plan import UNFILTERED_SECONDS, Existing, Fail, Mode
from proxsmtp_tp.gateway.xtables_values import RETURN, Chain, Rule

if TYPE_CHECKING:
    from proxsmtp_tp.gateway.plan import Names, Plan
    from proxsmtp_tp.gateway.xtables_values import Extension


def chains(plan: Plan, version: int) -> tuple[Chain, ...]:
    """The chains for one IP version: the intercepting chains first, then the guard."""
    found = [*_intercepting(plan, version)]
    if plan.options.local:
        found.append(_local(plan, version))
    if plan.refuse_all:
        found = [*_without_interception(found), *_untracked(plan, version)]
    if parts.refuses_unreachable(plan):
        found.append(_failed(plan, version))
    if plan.options.fail is Fail.OPEN:  # in OUTPUT it is called before chain `failed`, which drops what it matches
        found.append(_heartbeat(plan, version))
    found += _guards(plan, version)
    found += _existing(plan, version)
    return tuple(found)


def render(plan: Plan) -> str:
    """All chains as text, in the format of iptables-save."""
    lines = []
    for version in (4, 6):
        lines.append(f"# {'iptables' if version == 4 else 'ip6tables'}")
        for chain in chains(plan, version):
            lines += [f"-t {chain.table} -N {chain.name}", f"-t {chain.table} -I {chain.caller} 1 {chain.call}"]
            lines += [f"-t {chain.table} -A {chain.name} {rule}" for rule in chain.rules]
    return "\n".join(lines)


def every_chain(own: Names) -> tuple[tuple[str, str, str], ...]:
    """Table, built-in chain and own chain, for every chain that an instance may have."""
    return (
        ("filter", "FORWARD", own.forward),
        ("filter", "OUTPUT", own.local),
        ("filter", "FORWARD", own.existing),
        ("filter", "OUTPUT", own.existing_local),
        ("nat", "PREROUTING", own.prerouting),
        ("nat", "OUTPUT", own.output),
        ("mangle", "PREROUTING", own.prerouting),
        ("mangle", "PREROUTING", own.icmp),
        ("mangle", "OUTPUT", own.output),
        ("mangle", "OUTPUT", own.heartbeat),
        ("mangle", "OUTPUT", own.failed),
        ("raw", "OUTPUT", own.output),
        ("raw", "PREROUTING", own.prerouting),
        ("raw", "OUTPUT", own.local),
    )


def _without_interception(found: list[Chain]) -> list[Chain]:
    """Only the rules that serve existing connections of the daemon, without those that intercept new ones."""
    kept = [replace(chain, rules=tuple(rule for rule in chain.rules if not _takes(rule))) for chain in found]
    return [chain for chain in kept if any(rule.target != RETURN for rule in chain.rules)]


def _takes(rule: Rule) -> bool:
    """Whether a rule intercepts new connections. TPROXY and MARK for packets that have our mark already do not."""
    target, known = rule.target[0], any(name in {"mark", "connmark", "socket"} for name, _ in rule.matches)
    return target in {"REDIRECT", "CONNMARK"} or (target in {"TPROXY", "MARK"} and not known)


def _untracked(plan: Plan, version: int) -> list[Chain]:
    """Refuse all: packets to be intercepted are not tracked. So no DNAT changes them, and a guard refuses them."""
    names, local = plan.names, plan.options.local
    notrack: Extension = ("CT", (("notrack", ("",)),))
    rules = (
        *parts.never_intercepted(plan, version),
        *parts.from_clients(plan, version, notrack),
        parts.from_probe(plan, notrack),
    )
    call = parts.call(plan, names.prerouting, parts.new_connection(plan))
    found = [Chain("raw", names.prerouting, "PREROUTING", call, rules)]
    if local:
        own = (*parts.never_intercepted(plan, version, sources=False), Rule(notrack, (("protocol", "tcp"),)))
        call = parts.call(plan, names.local, (*parts.new_connection(plan), *parts.not_the_daemons(plan)))
        found.append(Chain("raw", names.local, "OUTPUT", call, own))
    return found


def _intercepting(plan: Plan, version: int) -> list[Chain]:
    names, port = plan.names, str(plan.options.listen_port)
    if plan.options.mode is Mode.REDIRECT:
        target: Extension = ("REDIRECT", (("to-ports", (port,)),))
        rules = (
            *parts.not_intercepted(plan, version),
            *parts.from_clients(plan, version, target),
            parts.from_probe(plan, target),
        )
        call = parts.call(plan, names.prerouting, parts.new_connection(plan))
        found = [Chain("nat", names.prerouting, "PREROUTING", call, rules)]
        if plan.options.full:
            call = parts.call(plan, names.prerouting, ())
            found.append(Chain("mangle", names.prerouting, "PREROUTING", call, (_replies(plan),)))
            found.append(_upstream(plan))
            found.append(_errors(plan, version))
        return found
    target = _tproxy(plan, version, plan.numbers.mark)
    first: list[Rule] = [_ours(plan, (parts.ports(plan), parts.LATER_PACKET))]
    if plan.options.full:
        first.append(_replies(plan))
    if plan.options.local:
        own = ("mark", (("mark", (f"{plan.numbers.local_mark:#x}",)),))
        base = (("in-interface", "lo"), ("protocol", "tcp"))
        first.append(Rule(_tproxy(plan, version, plan.numbers.local_mark), base, (parts.ports(plan), own)))
    rules = (
        *first,
        Rule(RETURN, (("protocol", "tcp"),), (parts.LATER_PACKET,)),
        *parts.not_intercepted(plan, version),
        *parts.from_clients(plan, version, target, (parts.ports(plan),)),
        parts.from_probe(plan, target, (parts.ports(plan),)),
    )
    chain = Chain("mangle", names.prerouting, "PREROUTING", parts.call(plan, names.prerouting, ()), rules)
    return [chain, _errors(plan, version)]


def _tproxy(plan: Plan, version: int, mark: int) -> Extension:
    return (
        "TPROXY",
        (
            ("on-port", (str(plan.options.listen_port),)),
            ("on-ip", (parts.ANY_ADDRESS[version],)),
            ("tproxy-mark", (f"{mark:#x}/0xffffffff",)),
        ),
    )


def _ours(plan: Plan, matches: tuple[Extension, ...], protocol: str = "tcp") -> Rule:
    """Packets of a transparent socket get the mark."""
    transparent: Extension = ("socket", (("transparent", ("",)),))
    mark: Extension = ("MARK", (("set-mark", (f"{plan.numbers.mark:#x}",)),))
    return Rule(mark, (("protocol", protocol),), (*matches, transparent))


def _errors(plan: Plan, version: int) -> Chain:
    """ICMP errors about packets of a transparent socket (RFC 1191, RFC 8201) are delivered to that socket."""
    name, protocol = plan.names.icmp, parts.ICMP[version]
    call = Rule((name, ()), (("protocol", protocol),), (parts.comment(plan),))
    return Chain("mangle", name, "PREROUTING", call, (_ours(plan, (), protocol),))


def _replies(plan: Plan) -> Rule:
    """Full mode: replies of servers to connections that the daemon makes from a client's address."""
    ports = ",".join(map(str, plan.upstream_ports))
    return _ours(plan, (("multiport", (("sports", (ports,)),)),))


def _upstream(plan: Plan) -> Chain:
    """Full mode with NAT: the daemon's connections are tracked in a zone of their own (redirect.nft says why)."""
    ports: Extension = ("multiport", (("dports", (",".join(map(str, plan.upstream_ports)),)),))
    foreign: Extension = ("addrtype", (("src-type", ("!", "LOCAL")),))
    rule = Rule(("CT", (("zone-orig", (str(plan.numbers.zone),)),)), (("protocol", "tcp"),), (foreign,))
    return Chain("raw", plan.names.output, "OUTPUT", parts.call(plan, plan.names.output, (ports,)), (rule,))


def _local(plan: Plan, version: int) -> Chain:
    """The host's own outgoing mail."""
    names, options = plan.names, plan.options
    other_user: Extension = ("owner", (("uid-owner", ("!", str(options.daemon_uid))),))
    passed = parts.not_intercepted(plan, version, sources=False)
    if options.mode is Mode.REDIRECT:
        call = parts.call(plan, names.output, (*parts.new_connection(plan), other_user))
        redirect: Extension = ("REDIRECT", (("to-ports", (str(options.listen_port),)),))
        return Chain("nat", names.output, "OUTPUT", call, (*passed, Rule(redirect, (("protocol", "tcp"),))))
    value = f"{plan.numbers.local_mark:#x}"
    mark: Extension = ("MARK", (("set-mark", (value,)),))
    rules = (
        Rule(mark, matches=(("connmark", (("mark", (value,)),)),)),
        Rule(RETURN, (("protocol", "tcp"),), (parts.LATER_PACKET,)),
        Rule(RETURN, matches=(("owner", (("uid-owner", (str(options.daemon_uid),)),)),)),
        *passed,
        Rule(("CONNMARK", (("set-mark", (value,)),))),
        Rule(mark),
    )
    return Chain("mangle", names.output, "OUTPUT", parts.call(plan, names.output, (parts.ports(plan),)), rules)


def _guards(plan: Plan, version: int) -> list[Chain]:
    """Refuse connections that are forwarded although they should be intercepted, but not what other DNAT forwards.

    With fail open, refuse only: packets that cannot be intercepted and that no server may get either; connections to a
    server that the daemon could not reach, which are not intercepted; and, with NAT, packets that NAT did not redirect
    although the daemon runs (redirect.nft says why).
    """
    names, options = plan.names, plan.options
    reject: Extension = ("REJECT", (("reject-with", ("tcp-reset",)),))
    closed = options.fail is Fail.CLOSED
    failed = parts.to_unreachable(plan, version)
    opened = (parts.no_heartbeat(plan, version),) if options.mode is Mode.REDIRECT else ()
    base = (("dst", f"!{parts.NO_SERVER[version][0]}"), ("protocol", "tcp"))
    well_formed = Rule(RETURN, base, (parts.tcp_flags(parts.WELL_FORMED), *opened))
    rules = (
        Rule(RETURN, matches=(("conntrack", (("ctstate", ("DNAT",)),)),)),
        *parts.excepted(plan, version),
        *(
            ()
            if closed
            else (*(rule for match in failed for rule in parts.from_clients(plan, version, reject, match)), well_formed)
        ),
        *parts.from_clients(plan, version, reject),
        *([parts.from_probe(plan, reject)] if plan.refuse_all else []),
    )
    new = (parts.ports(plan), parts.tcp_flags(parts.ANY_SYN))
    found = [Chain("filter", names.forward, "FORWARD", parts.call(plan, names.forward, new), rules)]
    if options.local and (closed or failed):
        rules = (
            parts.to_type("LOCAL"),
            *parts.excepted(plan, version, sources=False),
            *(Rule(reject, (("protocol", "tcp"),), match) for match in ([()] if closed else failed)),
        )
        call = parts.call(plan, names.local, (*new, *parts.not_the_daemons(plan)))
        found.append(Chain("filter", names.local, "OUTPUT", call, rules))
    return found


def _existing(plan: Plan, version: int) -> list[Chain]:
    """Connections that began unfiltered. xtables can only send a reset to the client, not to the server: the server
    gets one from the client's host when it sends its next packet.
    """
    names, options = plan.names, plan.options
    under_way: tuple[Extension, ...] = (parts.ports(plan), ("tcp", (("tcp-flags", ("SYN,RST", "NONE")),)))
    # Each connection is one entry of the hash table, until it expires. The rate limit is too high to be reached.
    entry: Extension = ("hashlimit", (
        ("hashlimit-upto", ("10000/sec",)), ("hashlimit-burst", ("10000",)),
        ("hashlimit-mode", ("srcip,srcport,dstip,dstport",)), ("hashlimit-name", (plan.names.recent,)),
        ("hashlimit-htable-expire", (f"{UNFILTERED_SECONDS * 1000}",)),
    ))  # fmt: skip
    targets: list[tuple[Extension, tuple[Extension, ...]]] = [(RETURN, (entry,))]
    if options.existing is Existing.RESET:
        reset: Extension = ("REJECT", (("reject-with", ("tcp-reset",)),))
        targets = [(reset, (entry,)), (reset, ())]
    dnat = Rule(RETURN, matches=(("conntrack", (("ctstate", ("DNAT",)),)),))
    passed = parts.not_intercepted(plan, version)
    clients = [rule for target, matches in targets for rule in parts.from_clients(plan, version, target, matches)]
    call = parts.call(plan, names.existing, under_way)
    found = [Chain("filter", names.existing, "FORWARD", call, (dnat, *passed, *clients))]
    if options.local:
        rules = (
            *parts.not_intercepted(plan, version, sources=False),
            *(Rule(target, (("protocol", "tcp"),), matches) for target, matches in targets),
        )
        call = parts.call(plan, names.existing_local, (*under_way, *parts.not_the_daemons(plan)))
        found.append(Chain("filter", names.existing_local, "OUTPUT", call, rules))
    return found


def _heartbeat(plan: Plan, version: int) -> Chain:
    """Fail open: record each datagram that the daemon sends to itself as a heartbeat."""
    names, uid = plan.names, plan.options.daemon_uid
    base = (("out-interface", "lo"), ("protocol", "udp"))
    port: Extension = ("udp", (("dport", (str(plan.options.listen_port),)),))
    user: tuple[Extension, ...] = () if uid is None else (("owner", (("uid-owner", (str(uid),)),)),)
    call = Rule((names.heartbeat, ()), base, (port, *user, parts.comment(plan)))
    note = Rule(RETURN, matches=(parts.heartbeat_list(plan, version, ("set", ("",))),))
    return Chain("mangle", names.heartbeat, "OUTPUT", call, (note,))


def _failed(plan: Plan, version: int) -> Chain:
    """Record, then drop, the daemon's datagram to a server that it could not reach."""
    names = plan.names
    owner: Extension = ("owner", (("uid-owner", (str(plan.options.daemon_uid or 0),)),))
    call = Rule((names.failed, ()), (("protocol", "udp"),), (parts.ports(plan), owner, parts.comment(plan)))
    notes = tuple(
        Rule(("DROP", ()), (("protocol", "udp"),), (("udp", (("dport", (str(port),)),)), match))
        for port in sorted(plan.options.ports)
        for match in [parts.unreachable_list(plan, version, port, ("set", ("",)))]
    )
    return Chain("mangle", names.failed, "OUTPUT", call, notes)
