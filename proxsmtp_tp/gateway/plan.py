"""What is to be installed, as values: the one source that every renderer, installer and check reads.

Guarantees: pure and frozen; equal options and slot give equal plans. Every name and number that we own derives from
the instance: nft table, xtables chains, marks, route table, rule priorities. Policy rules and routes carry protocol
number `PROTOCOL`, so that ours are told from other people's.

Numbers come in slots, so that several instances live side by side. Slot N owns the marks
0x25000000 + 256 N (routed connections) and that + 1 (the host's own), route table 25000 + N, and the priorities
100 + 3 N to 102 + 3 N. They lie before the usual policy rules, because a rule for a source network that came first
would route diverted packets away.

Sources: ip-rule(8), Documentation/networking/tproxy.rst, nft(8).
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Network, IPv6Network

Network = IPv4Network | IPv6Network

SLOTS = 64  # marks keep to bits 8..13 below the common ones of other software (Kubernetes: bits 14, 15)
MARK_BASE = 0x2500_0000
TABLE_BASE = 25000
PRIORITY_BASE = 100
PROTOCOL = 25
"""rtm_protocol of our rules and routes; free in /etc/iproute2/rt_protos."""
MARK_MASK = 0xFFFF_FFFF
UNFILTERED_SECONDS = 900
"""How long a connection that goes on unfiltered is counted after its last packet: longer than any wait of RFC 5321
4.5.3.2 (10 minutes for the reply to the final dot).
"""
UID_MAX = 0xFFFF_FFFE  # (uid_t) -1 is no user
INTERFACE_NAME_MAX = 15  # IFNAMSIZ without the final NUL (linux/if.h)
CHAIN_NAME_MAX = 28  # XT_FUNCTION_MAXNAMELEN - 1, and iptables refuses 29
MULTIPORT_MAX = 15  # XT_MULTI_PORTS: the multiport match of xtables
HEARTBEAT_HOLD = 10
"""Seconds, with fail open: how long one heartbeat holds. The daemon sends one each second; a machine short of processor
time or memory may keep it waiting for some of them. Mail that is refused for ten seconds is sent again; mail that
passed unfiltered cannot be called back.
"""
REFUSE_HOLD = 10
"""Seconds for which a server that could not be reached is refused: long enough for a sender that comes again at once,
and no long time to miss a server that is back, which the first connection after it finds out."""

ANYWHERE: tuple[Network, ...] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))

_INSTANCE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
# Kernel rules (dev_valid_name) less what nft cannot quote: `"` and `\` end or escape a string, `*` is a wildcard.
_INTERFACE = re.compile(r"[^\s/:\"\\*\x00-\x20\x7f-\U0010ffff]{1,15}")


class Method(Enum):
    """Which firewall carries the rules."""

    NFTABLES = "nftables"
    IPTABLES = "iptables"


class Mode(Enum):
    """How connections are turned to us."""

    REDIRECT = "redirect"
    TPROXY = "tproxy"


class Fail(Enum):
    """What becomes of mail while the daemon is down."""

    CLOSED = "closed"
    OPEN = "open"


class Existing(Enum):
    """What becomes of connections that began unfiltered: before the rules, or while fail open let them pass."""

    RESET = "reset"
    FINISH = "finish"


class Forward(Enum):
    """What to do where interception would open connections that the host's forwarding policy closes."""

    REFUSE = "refuse"
    OVERRULE = "overrule"


class PlanError(Exception):
    """The options make no plan. The text says what is wrong and what to write instead."""


@dataclass(frozen=True, slots=True)
class Options:
    """What an administrator asks for. `make_plan` validates it."""

    instance: str
    method: Method = Method.NFTABLES
    mode: Mode = Mode.REDIRECT
    interfaces: tuple[str, ...] = ()
    sources: tuple[Network, ...] = ()
    """Empty: all."""
    except_sources: tuple[Network, ...] = ()
    except_destinations: tuple[Network, ...] = ()
    ports: tuple[int, ...] = (25,)
    listen_port: int = 10025
    fail: Fail = Fail.CLOSED
    existing: Existing = Existing.RESET
    forward: Forward = Forward.REFUSE
    local: bool = False
    daemon_uid: int | None = None
    """None: nobody said as whom the daemon runs."""
    full: bool = False
    """TransparentProxy full: bring the replies of servers back, too."""
    refuse_failed: bool = False
    """Refuse new connections to servers that the daemon could not reach (ConnectFailure refuse)."""
    out_port: int | None = None
    """The port of OutAddress: in full mode replies may come from it."""


@dataclass(frozen=True, slots=True)
class Names:
    """What the rules of one instance are called."""

    table: str
    """nft table (family inet)."""
    prerouting: str
    """The chains of the iptables method, in the tables where they are needed."""
    icmp: str
    output: str
    forward: str
    local: str
    existing: str
    existing_local: str
    heartbeat: str
    failed: str
    recent: str
    """The list of xt_recent that keeps the heartbeat."""
    comment: str

    @property
    def chains(self) -> tuple[str, ...]:
        """Every chain of the iptables method."""
        return (
            self.prerouting, self.icmp, self.output, self.forward, self.local,
            self.existing, self.existing_local, self.heartbeat, self.failed,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers of one slot."""

    slot: int

    @property
    def mark(self) -> int:
        """On packets of routed connections that belong to a socket of ours."""
        return MARK_BASE | self.slot << 8

    @property
    def local_mark(self) -> int:
        """On packets that this host sends itself."""
        return self.mark | 1

    @property
    def table(self) -> int:
        """The route table that delivers marked packets to this host."""
        return TABLE_BASE + self.slot

    @property
    def zone(self) -> int:
        """The zone of connection tracking that our own connections from clients' addresses have (16 bits)."""
        return self.table

    @property
    def probe(self) -> str:
        """The interface of a probe (doctor --probe); the rules intercept what comes in by it, too."""
        return f"pxprobe{self.slot}"

    @property
    def priority(self) -> int:
        """The first of three rule priorities."""
        return PRIORITY_BASE + 3 * self.slot


class RuleAction(Enum):
    """What a policy rule does."""

    LOOKUP = "lookup"
    GOTO = "goto"
    NOP = "nop"


@dataclass(frozen=True, slots=True, order=True)
class PolicyRule:
    """One policy rule, for IPv4 (version 4) or IPv6 (version 6). Unused numbers are 0."""

    version: int
    priority: int
    mark: int
    iif: str
    action: str
    target: int
    """Route table of a lookup, priority of a goto."""

    def __str__(self) -> str:
        """As `ip rule add` takes it."""
        mark = f" fwmark {self.mark:#x}" if self.mark else ""
        iif = f" iif {self.iif}" if self.iif else ""
        target = f" {self.target}" if self.target else ""
        return f"-{self.version} rule priority {self.priority}{iif}{mark} {self.action}{target} protocol {PROTOCOL}"


@dataclass(frozen=True, slots=True, order=True)
class LocalRoute:
    """The route of our table: everything is delivered to this host."""

    version: int
    table: int

    def __str__(self) -> str:
        """As `ip route add` takes it."""
        return f"-{self.version} route local default dev lo table {self.table} protocol {PROTOCOL}"


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that belongs on the host for one instance."""

    options: Options
    numbers: Numbers
    refuse_all: bool = False
    """Refuse each connection that would be intercepted: what stands in for rules that may not be installed."""

    @property
    def names(self) -> Names:
        """What our things are called."""
        return names(self.options.instance)

    @property
    def diverts(self) -> bool:
        """Packets for foreign addresses reach sockets of this host: policy routing is needed."""
        return self.options.mode is Mode.TPROXY or self.options.full

    @property
    def rules(self) -> frozenset[PolicyRule]:
        """The policy rules.

        The first one skips the second for lookups that the kernel makes with the mark but for another reason than
        routing the packet: the reverse path (src_valid_mark, and the rpfilter of firewalld) would end at `lo`, and the
        packet be dropped. `iif lo` is what tells those lookups. A connection of the host itself has the other mark.
        """
        if not self.diverts:
            return frozenset()
        own, first = self.numbers, self.numbers.priority
        found = set[PolicyRule]()
        for version in (4, 6):
            found |= {
                PolicyRule(version, first, own.mark, "lo", RuleAction.GOTO.value, first + 2),
                PolicyRule(version, first + 1, own.mark, "", RuleAction.LOOKUP.value, own.table),
                PolicyRule(version, first + 2, 0, "", RuleAction.NOP.value, 0),
            }
            if self.options.local and self.options.mode is Mode.TPROXY:
                found.add(PolicyRule(version, first + 1, own.local_mark, "", RuleAction.LOOKUP.value, own.table))
        return frozenset(found)

    @property
    def routes(self) -> frozenset[LocalRoute]:
        """The routes."""
        if not self.diverts:
            return frozenset()
        return frozenset(LocalRoute(version, self.numbers.table) for version in (4, 6))

    @property
    def upstream_ports(self) -> tuple[int, ...]:
        """In full mode: the ports from which servers answer."""
        if not self.options.full:
            return ()
        out = self.options.out_port
        return tuple(sorted({*self.options.ports, *([out] if out else [])}))

    def sources(self, version: int) -> tuple[Network, ...]:
        """Whose connections are intercepted, of one IP version."""
        return of_version(self.options.sources or ANYWHERE, version)


def names(instance: str) -> Names:
    """The names of an instance. Raises PlanError if it can be no name."""
    if not _INSTANCE.fullmatch(instance):
        raise PlanError(f"{instance!r} is no name of an instance: use letters, digits, _ and -")
    return Names(
        table=f"proxsmtp_{instance}",
        prerouting=_chain("PXIN", instance),
        icmp=_chain("PXICMP", instance),
        output=_chain("PXOUT", instance),
        forward=_chain("PXFWD", instance),
        local=_chain("PXOWN", instance),
        existing=_chain("PXOLD", instance),
        existing_local=_chain("PXOLDOWN", instance),
        heartbeat=_chain("PXLIFE", instance),
        failed=_chain("PXFAIL", instance),
        recent=_chain("proxsmtp", instance),
        comment=f"proxsmtp-tp {instance}",
    )


def _chain(prefix: str, instance: str) -> str:
    name = f"{prefix}-{instance}"
    if len(name) <= CHAIN_NAME_MAX:
        return name
    digest = f"{zlib.crc32(instance.encode()):08x}"
    return f"{name[: CHAIN_NAME_MAX - 9]}-{digest}"


def preferred_slot(instance: str) -> int:
    """The slot that an instance takes unless somebody uses its numbers."""
    return zlib.crc32(instance.encode()) % SLOTS


def of_version(networks: tuple[Network, ...], version: int) -> tuple[Network, ...]:
    """Those of one IP version."""
    return tuple(network for network in networks if network.version == version)


def make_plan(options: Options, slot: int | None = None) -> Plan:
    """Validate the options. Raises PlanError with everything that an administrator must change."""
    names(options.instance)
    if slot is not None and slot not in range(SLOTS):
        raise PlanError(f"{slot!r} is no slot")
    problems = [*_interface_problems(options), *_port_problems(options), *_local_problems(options)]
    if problems:
        raise PlanError("; ".join(problems))
    return Plan(options, Numbers(preferred_slot(options.instance) if slot is None else slot))


def _interface_problems(options: Options) -> list[str]:
    problems = [
        f"{name!r} cannot be used as an interface: up to {INTERFACE_NAME_MAX} printable ASCII characters"
        ' without / : " \\ *'
        for name in options.interfaces
        if not _INTERFACE.fullmatch(name) or name in {".", ".."}
    ]
    if options.method is Method.IPTABLES:
        # There "!" negates and "+" stands for any ending.
        problems += [
            f"iptables cannot name interface {name!r}: use --method nftables"
            for name in options.interfaces
            if name.startswith("!") or name.endswith("+")
        ]
    if "lo" in options.interfaces:
        problems.append("lo is no interface that clients come in by: --local intercepts the host's own mail")
    return problems


def _port_problems(options: Options) -> list[str]:
    problems = [
        f"{port} is no port: 1 to 65535" for port in (*options.ports, options.listen_port) if not 0 < port < 65536
    ]
    if not options.ports:
        problems.append("no port is to be intercepted: give --port 25")
    if options.mode is Mode.TPROXY and options.listen_port in options.ports:
        # The kernel would take every packet for that port, to any address, as one for the listener.
        problems.append(
            f"with mode tproxy the daemon cannot listen on an intercepted port ({options.listen_port}):"
            " choose another --listen-port and Listen"
        )
    if options.method is Method.IPTABLES and len(set(options.ports)) > MULTIPORT_MAX:
        problems.append(f"iptables takes at most {MULTIPORT_MAX} ports: use --method nftables")
    return problems


def _local_problems(options: Options) -> list[str]:
    if not options.local or options.daemon_uid:
        return []
    reason = "--local needs a daemon with a user of its own, whose mail is not turned back to it"
    return [f"{reason}: set User in the configuration file (not root)"]
