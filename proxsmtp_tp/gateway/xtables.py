"""From a plan to chains and rules of the iptables method, as values.

Guarantees: pure. The rules mean the same as those of the nft files: both methods treat a packet in the same way, with
two exceptions. The TPROXY target of xtables drops a packet when there is no listener, so with fail closed the client
gets no reset. And the heartbeat is recorded by the recent match instead of a set.

Our rules are in chains of our own; each is called once from a built-in chain.

Source: iptables-extensions(8).
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from proxsmtp_tp.gateway.plan import HEARTBEAT_HOLD, REFUSE_HOLD, UNFILTERED_SECONDS, Existing, Fail, Mode, of_version

if TYPE_CHECKING:
    from proxsmtp_tp.gateway.plan import Names, Plan

SYN = ("FIN,SYN,RST,ACK", "SYN")
ANY_SYN = ("SYN,ACK", "SYN")
"""Matches also a SYN with FIN or RST: some servers accept it as a SYN, but connection tracking does not."""
WELL_FORMED = ("FIN,RST", "NONE")
NO_SERVER = {4: ("0.0.0.0/8", "127.0.0.0/8"), 6: ("::/64",)}
"""Addresses that no server has, and those that connect(2) takes for this host: see the nft files."""
NOT_UNICAST = {4: ("LOCAL", "BROADCAST", "ANYCAST", "MULTICAST"), 6: ("LOCAL", "ANYCAST", "MULTICAST")}
ICMP = {4: "icmp", 6: "icmpv6"}
ANY_ADDRESS = {4: "0.0.0.0", 6: "::"}  # noqa: S104 - not to bind to: on-ip of TPROXY, and the mask that is none
RETURN = ("RETURN", ())

Parameters = tuple[tuple[str, tuple[str, ...]], ...]
"""Each option with its values; a first value "!" negates it."""
Extension = tuple[str, Parameters]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `base` holds src, dst, in-interface, out-interface and protocol; a "!" before a value negates it."""

    target: Extension | tuple[str, tuple[()]]
    base: tuple[tuple[str, str], ...] = ()
    matches: tuple[Extension, ...] = ()

    def __str__(self) -> str:
        """In the syntax of iptables."""
        flags = {"src": "-s", "dst": "-d", "in-interface": "-i", "out-interface": "-o", "protocol": "-p"}
        words = [word for name, value in self.base for word in _option(flags[name], value)]
        for name, parameters in self.matches:
            words += ["-m", name, *_words(parameters)]
        return " ".join(_quoted([*words, "-j", self.target[0], *_words(self.target[1])]))


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of ours in a table, and the rule of a built-in chain that calls it."""

    table: str
    name: str
    caller: str
    call: Rule
    rules: tuple[Rule, ...]


def _option(flag: str, value: str) -> tuple[str, ...]:
    return ("!", flag, value[1:]) if value.startswith("!") else (flag, value)


def _quoted(words: list[str]) -> list[str]:
    """Quoted for a shell, where needed; a single exclamation mark needs no quotes."""
    return [word if word == "!" else shlex.quote(word) for word in words if word]


def _words(parameters: Parameters) -> list[str]:
    words = []
    for name, values in parameters:
        negated = values[:1] == ("!",)
        words += [*(["!"] if negated else []), f"--{name}", *(values[1:] if negated else values)]
    return words


def chains(plan: Plan, version: int) -> tuple[Chain, ...]:
    """The chains for one IP version: the intercepting chains first, then the guard."""
    found = [*_intercepting(plan, version)]
    if plan.options.local:
        found.append(_local(plan, version))
    if plan.refuse_all:
        found = [*_without_interception(found), *_untracked(plan, version)]
    if _refuses(plan):
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
    rules = (*_not_meant(plan, version), *_clients(plan, version, notrack), _probe(plan, notrack))
    found = [Chain("raw", names.prerouting, "PREROUTING", _call(plan, names.prerouting, _new(plan)), rules)]
    if local:
        own = (*_not_meant(plan, version, sources=False), Rule(notrack, (("protocol", "tcp"),)))
        call = _call(plan, names.local, (*_new(plan), *_not_ours(plan)))
        found.append(Chain("raw", names.local, "OUTPUT", call, own))
    return found


def _intercepting(plan: Plan, version: int) -> list[Chain]:
    names, port = plan.names, str(plan.options.listen_port)
    if plan.options.mode is Mode.REDIRECT:
        target: Extension = ("REDIRECT", (("to-ports", (port,)),))
        rules = (*_passed_by(plan, version), *_clients(plan, version, target), _probe(plan, target))
        found = [Chain("nat", names.prerouting, "PREROUTING", _call(plan, names.prerouting, _new(plan)), rules)]
        if plan.options.full:
            call = _call(plan, names.prerouting, ())
            found.append(Chain("mangle", names.prerouting, "PREROUTING", call, (_replies(plan),)))
            found.append(_upstream(plan))
            found.append(_errors(plan, version))
        return found
    target = _tproxy(plan, version, plan.numbers.mark)
    first: list[Rule] = [_ours(plan, (_ports(plan), _flags(new=False)))]
    if plan.options.full:
        first.append(_replies(plan))
    if plan.options.local:
        own = ("mark", (("mark", (f"{plan.numbers.local_mark:#x}",)),))
        base = (("in-interface", "lo"), ("protocol", "tcp"))
        first.append(Rule(_tproxy(plan, version, plan.numbers.local_mark), base, (_ports(plan), own)))
    rules = (
        *first,
        Rule(RETURN, (("protocol", "tcp"),), (_flags(new=False),)),
        *_passed_by(plan, version),
        *_clients(plan, version, target, (_ports(plan),)),
        _probe(plan, target, (_ports(plan),)),
    )
    chain = Chain("mangle", names.prerouting, "PREROUTING", _call(plan, names.prerouting, ()), rules)
    return [chain, _errors(plan, version)]


def _tproxy(plan: Plan, version: int, mark: int) -> Extension:
    return (
        "TPROXY",
        (
            ("on-port", (str(plan.options.listen_port),)),
            ("on-ip", (ANY_ADDRESS[version],)),
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
    name, protocol = plan.names.icmp, ICMP[version]
    call = Rule((name, ()), (("protocol", protocol),), (_comment(plan),))
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
    return Chain("raw", plan.names.output, "OUTPUT", _call(plan, plan.names.output, (ports,)), (rule,))


def _local(plan: Plan, version: int) -> Chain:
    """The host's own outgoing mail."""
    names, options = plan.names, plan.options
    other_user: Extension = ("owner", (("uid-owner", ("!", str(options.daemon_uid))),))
    passed = _passed_by(plan, version, sources=False)
    if options.mode is Mode.REDIRECT:
        call = _call(plan, names.output, (*_new(plan), other_user))
        redirect: Extension = ("REDIRECT", (("to-ports", (str(options.listen_port),)),))
        return Chain("nat", names.output, "OUTPUT", call, (*passed, Rule(redirect, (("protocol", "tcp"),))))
    value = f"{plan.numbers.local_mark:#x}"
    mark: Extension = ("MARK", (("set-mark", (value,)),))
    rules = (
        Rule(mark, matches=(("connmark", (("mark", (value,)),)),)),
        Rule(RETURN, (("protocol", "tcp"),), (_flags(new=False),)),
        Rule(RETURN, matches=(("owner", (("uid-owner", (str(options.daemon_uid),)),)),)),
        *passed,
        Rule(("CONNMARK", (("set-mark", (value,)),))),
        Rule(mark),
    )
    return Chain("mangle", names.output, "OUTPUT", _call(plan, names.output, (_ports(plan),)), rules)


def _guards(plan: Plan, version: int) -> list[Chain]:
    """Refuse connections that are forwarded although they should be intercepted, but not what other DNAT forwards.

    With fail open, refuse only: packets that cannot be intercepted and that no server may get either; connections to a
    server that the daemon could not reach, which are not intercepted; and, with NAT, packets that NAT did not redirect
    although the daemon runs (redirect.nft says why).
    """
    names, options = plan.names, plan.options
    reject: Extension = ("REJECT", (("reject-with", ("tcp-reset",)),))
    closed = options.fail is Fail.CLOSED
    failed = _to_failed(plan, version)
    opened = (_silent(plan, version),) if options.mode is Mode.REDIRECT else ()
    base = (("dst", f"!{NO_SERVER[version][0]}"), ("protocol", "tcp"))
    well_formed = Rule(RETURN, base, (_tcp_flags(WELL_FORMED), *opened))
    rules = (
        Rule(RETURN, matches=(("conntrack", (("ctstate", ("DNAT",)),)),)),
        *_excepted(plan, version),
        *(
            ()
            if closed
            else (*(rule for match in failed for rule in _clients(plan, version, reject, match)), well_formed)
        ),
        *_clients(plan, version, reject),
        *([_probe(plan, reject)] if plan.refuse_all else []),
    )
    new = (_ports(plan), _tcp_flags(ANY_SYN))
    found = [Chain("filter", names.forward, "FORWARD", _call(plan, names.forward, new), rules)]
    if options.local and (closed or failed):
        rules = (
            _to("LOCAL"),
            *_excepted(plan, version, sources=False),
            *(Rule(reject, (("protocol", "tcp"),), match) for match in ([()] if closed else failed)),
        )
        call = _call(plan, names.local, (*new, *_not_ours(plan)))
        found.append(Chain("filter", names.local, "OUTPUT", call, rules))
    return found


def _existing(plan: Plan, version: int) -> list[Chain]:
    """Connections that began unfiltered. xtables can only send a reset to the client, not to the server: the server
    gets one from the client's host when it sends its next packet.
    """
    names, options = plan.names, plan.options
    under_way: tuple[Extension, ...] = (_ports(plan), ("tcp", (("tcp-flags", ("SYN,RST", "NONE")),)))
    # Each connection is one entry of the hash table, until it expires. The rate limit is too high to be reached.
    entry: Extension = ("hashlimit", (
        ("hashlimit-upto", ("10000/sec",)), ("hashlimit-burst", ("10000",)),
        ("hashlimit-mode", ("srcip,srcport,dstip,dstport",)), ("hashlimit-name", (plan.names.recent,)),
        ("hashlimit-htable-expire", (f"{UNFILTERED_SECONDS * 1000}",)),
    ))  # fmt: skip
    targets: list[tuple[Extension | tuple[str, tuple[()]], tuple[Extension, ...]]] = [(RETURN, (entry,))]
    if options.existing is Existing.RESET:
        reset: Extension = ("REJECT", (("reject-with", ("tcp-reset",)),))
        targets = [(reset, (entry,)), (reset, ())]
    dnat = Rule(RETURN, matches=(("conntrack", (("ctstate", ("DNAT",)),)),))
    passed = _passed_by(plan, version)
    clients = [rule for target, matches in targets for rule in _clients(plan, version, target, matches)]
    call = _call(plan, names.existing, under_way)
    found = [Chain("filter", names.existing, "FORWARD", call, (dnat, *passed, *clients))]
    if options.local:
        rules = (
            *_passed_by(plan, version, sources=False),
            *(Rule(target, (("protocol", "tcp"),), matches) for target, matches in targets),
        )
        call = _call(plan, names.existing_local, (*under_way, *_not_ours(plan)))
        found.append(Chain("filter", names.existing_local, "OUTPUT", call, rules))
    return found


def _not_ours(plan: Plan) -> tuple[Extension, ...]:
    """Matches packets of this host that neither come from the daemon nor are routed to it."""
    return (
        ("mark", (("mark", ("!", f"{plan.numbers.local_mark:#x}")),)),
        ("owner", (("uid-owner", ("!", str(plan.options.daemon_uid))),)),
    )


def _heartbeat(plan: Plan, version: int) -> Chain:
    """Fail open: record each datagram that the daemon sends to itself as a heartbeat."""
    names, uid = plan.names, plan.options.daemon_uid
    base = (("out-interface", "lo"), ("protocol", "udp"))
    port: Extension = ("udp", (("dport", (str(plan.options.listen_port),)),))
    user: tuple[Extension, ...] = () if uid is None else (("owner", (("uid-owner", (str(uid),)),)),)
    call = Rule((names.heartbeat, ()), base, (port, *user, _comment(plan)))
    note = Rule(RETURN, matches=(_recent(plan, version, ("set", ("",))),))
    return Chain("mangle", names.heartbeat, "OUTPUT", call, (note,))


def _refuses(plan: Plan) -> bool:
    """Whether connections to unreachable servers are refused. Not in full mode: a server may refuse only one client's
    address, and an entry of the recent match has one address, not two.
    """
    return plan.options.refuse_failed and not plan.options.full


def _failed(plan: Plan, version: int) -> Chain:
    """Record, then drop, the daemon's datagram to a server that it could not reach."""
    names = plan.names
    owner: Extension = ("owner", (("uid-owner", (str(plan.options.daemon_uid or 0),)),))
    call = Rule((names.failed, ()), (("protocol", "udp"),), (_ports(plan), owner, _comment(plan)))
    notes = tuple(
        Rule(("DROP", ()), (("protocol", "udp"),), (("udp", (("dport", (str(port),)),)), match))
        for port in sorted(plan.options.ports)
        for match in [_server(plan, version, port, ("set", ("",)))]
    )
    return Chain("mangle", names.failed, "OUTPUT", call, notes)


def _to_failed(plan: Plan, version: int) -> tuple[tuple[Extension, ...], ...]:
    """For each port, the matches for a connection to a server that the daemon could not reach."""
    if not _refuses(plan):
        return ()
    recently = (("rcheck", ("",)), ("seconds", (str(REFUSE_HOLD),)))
    return tuple(
        (("tcp", (("dport", (str(port),)),)), _server(plan, version, port, *recently))
        for port in sorted(plan.options.ports)
    )


def _server(plan: Plan, version: int, port: int, *action: tuple[str, tuple[str, ...]]) -> Extension:
    """One list of the recent match for each port: a list records addresses only, the newest hundred."""
    return ("recent", (*action, ("name", (f"{plan.names.recent}.{version}.{port}",)), ("rdest", ("",))))


def _recent(plan: Plan, version: int, *action: tuple[str, tuple[str, ...]]) -> Extension:
    # With a mask of no bits all addresses are equal: the list has one entry, the time of the last datagram.
    kept = (("name", (f"{plan.names.recent}.{version}",)), ("mask", (ANY_ADDRESS[version],)), ("rsource", ("",)))
    return ("recent", (*action, *kept))


def _call(plan: Plan, chain: str, matches: tuple[Extension, ...]) -> Rule:
    return Rule((chain, ()), (("protocol", "tcp"),), (*matches, _comment(plan)))


def _comment(plan: Plan) -> Extension:
    return ("comment", (("comment", (plan.names.comment,)),))


def _ports(plan: Plan) -> Extension:
    return ("multiport", (("dports", (",".join(map(str, sorted(plan.options.ports))),)),))


def _flags(*, new: bool) -> Extension:
    return _tcp_flags(SYN if new else ("!", *SYN))


def _tcp_flags(values: tuple[str, ...]) -> Extension:
    return ("tcp", (("tcp-flags", values),))


def _new(plan: Plan) -> tuple[Extension, ...]:
    return (_ports(plan), _flags(new=True))


def _to(kind: str) -> Rule:
    """Packets to one type of address are not intercepted. One rule for each type: for IPv6, a list of types matches
    only addresses that have all of them.
    """
    return Rule(RETURN, matches=(("addrtype", (("dst-type", (kind,)),)),))


def _excepted(plan: Plan, version: int, *, sources: bool = True) -> tuple[Rule, ...]:
    found = [("dst", network) for network in of_version(plan.options.except_destinations, version)]
    if sources:
        found += [("src", network) for network in of_version(plan.options.except_sources, version)]
    return tuple(Rule(RETURN, ((side, str(network)),)) for side, network in found)


def _not_meant(plan: Plan, version: int, *, sources: bool = True) -> tuple[Rule, ...]:
    """Return for packets to this host or to no single host, and for the exceptions of the plan."""
    return (
        *(_to(kind) for kind in NOT_UNICAST[version]),
        *(Rule(RETURN, (("dst", network),)) for network in NO_SERVER[version]),
        *_excepted(plan, version, sources=sources),
    )


def _passed_by(plan: Plan, version: int, *, sources: bool = True) -> tuple[Rule, ...]:
    """Return for what is not intercepted: the exceptions, and connections to a server that has just failed.

    With fail open also every connection while no heartbeat comes.
    """
    found = (
        *_not_meant(plan, version, sources=sources),
        # A guard refuses these.
        *(Rule(RETURN, (("protocol", "tcp"),), match) for match in _to_failed(plan, version)),
    )
    if plan.options.fail is Fail.CLOSED:
        return found
    return (*found, Rule(RETURN, matches=(_silent(plan, version),)))


def _silent(plan: Plan, version: int) -> Extension:
    """Fail open: matches while there is no heartbeat."""
    return _recent(plan, version, ("rcheck", ("!", "")), ("seconds", (str(HEARTBEAT_HOLD),)))


def _clients(plan: Plan, version: int, target: Extension, matches: tuple[Extension, ...] = ()) -> tuple[Rule, ...]:
    """One rule for each interface and network."""
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


def _probe(plan: Plan, target: Extension, matches: tuple[Extension, ...] = ()) -> Rule:
    """Everything that comes in by the interface of a probe, from any address."""
    return Rule(target, (("in-interface", plan.numbers.probe), ("protocol", "tcp")), matches)
