"""The plan: a frozen value that says what an instance installs. Every renderer, installer and check reads it.

Guarantees: pure and frozen; equal options and slot give equal plans. Every name and number that we use derives from
the instance: nft table, xtables chains, marks, route table, rule priorities. Our policy rules and routes have the
protocol number `PROTOCOL`, which distinguishes them from those of other software.

Numbers are allocated in slots, so that several instances can run on one host. Slot N has two marks,
0x25000000 + 256 N (routed connections) and that + 1 (the host's own connections), route table 25000 + N, and the
priorities 100 + 3 N to 102 + 3 N. The kernel evaluates these priorities before the usual policy rules: an earlier rule
for a source network would route diverted packets away.

Sources: ip-rule(8), Documentation/networking/tproxy.rst, nft(8).
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Network, IPv6Network

Network = IPv4Network | IPv6Network

SLOTS = 64  # the slot is in bits 8..13 of a mark: other software uses higher bits (Kubernetes: 14, 15)
MARK_BASE = 0x2500_0000
TABLE_BASE = 25000
PRIORITY_BASE = 100
PROTOCOL = 25
"""rtm_protocol of our rules and routes; free in /etc/iproute2/rt_protos."""
MARK_MASK = 0xFFFF_FFFF
UNFILTERED_SECONDS = 900
"""Seconds for which an unfiltered connection is counted after its last packet: longer than any timeout of RFC 5321
4.5.3.2 (10 minutes for the reply to the final dot).
"""
UID_MAX = 0xFFFF_FFFE  # (uid_t) -1 is not a user
INTERFACE_NAME_MAX = 15  # IFNAMSIZ without the final NUL (linux/if.h)
CHAIN_NAME_MAX = 28  # XT_FUNCTION_MAXNAMELEN - 1, and iptables refuses 29
MULTIPORT_MAX = 15  # XT_MULTI_PORTS: the multiport match of xtables
HEARTBEAT_HOLD = 10
"""Seconds for which one heartbeat is valid (fail open). The daemon sends one each second; on a machine short of
processor time or memory some are late. The value is long because refused mail is sent again, but mail that passed
unfiltered cannot be recalled.
"""
REFUSE_HOLD = 10
"""Seconds for which connections to an unreachable server are refused. Long enough that a sender that retries at once is
refused, too; short enough that a server that works again is soon used: the next connection after this time tries it."""

ANYWHERE: tuple[Network, ...] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))

_INSTANCE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
# The names that the kernel allows (dev_valid_name), without the characters that nft cannot quote: `"` and `\` end or
# escape a string, `*` is a wildcard.
_INTERFACE = re.compile(r"[^\s/:\"\\*\x00-\x20\x7f-\U0010ffff]{1,15}")


class Method(Enum):
    """Which firewall the rules are installed in."""

    NFTABLES = "nftables"
    IPTABLES = "iptables"


class Mode(Enum):
    """How the kernel gives connections to the daemon."""

    REDIRECT = "redirect"
    TPROXY = "tproxy"


class Fail(Enum):
    """What happens to mail while the daemon is down."""

    CLOSED = "closed"
    OPEN = "open"


class Existing(Enum):
    """What happens to connections that began unfiltered: before the rules, or while fail open let mail pass."""

    RESET = "reset"
    FINISH = "finish"


class Forward(Enum):
    """What to do if interception would allow connections that the host's forwarding policy forbids."""

    REFUSE = "refuse"
    OVERRULE = "overrule"


class PlanError(Exception):
    """The options are invalid. The text says what is wrong and what to write instead."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a plan, from configuration and command line. `make_plan` validates them."""

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
    """User id of the daemon. None: not known."""
    full: bool = False
    """TransparentProxy full: the replies of servers are diverted to the daemon, too."""
    refuse_failed: bool = False
    """Refuse new connections to servers that the daemon could not reach (ConnectFailure refuse)."""
    out_port: int | None = None
    """The port of OutAddress: in full mode servers may reply from it."""


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one instance's tables, chains and lists."""

    table: str
    """nft table (family inet)."""
    prerouting: str
    """This and the following names: chains of the iptables method, in the tables that need them."""
    icmp: str
    output: str
    forward: str
    local: str
    existing: str
    existing_local: str
    heartbeat: str
    failed: str
    recent: str
    """The list of xt_recent in which heartbeats are recorded."""
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
        """On packets of routed connections that belong to a socket of the daemon."""
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
        """The connection tracking zone of connections that the daemon makes from clients' addresses (16 bits)."""
        return self.table

    @property
    def probe(self) -> str:
        """The interface of a probe (doctor --probe); the rules intercept connections from it, too."""
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
        """The arguments of `ip rule add`."""
        mark = f" fwmark {self.mark:#x}" if self.mark else ""
        iif = f" iif {self.iif}" if self.iif else ""
        target = f" {self.target}" if self.target else ""
        return f"-{self.version} rule priority {self.priority}{iif}{mark} {self.action}{target} protocol {PROTOCOL}"


@dataclass(frozen=True, slots=True, order=True)
class LocalRoute:
    """The route of our table: it delivers every packet to this host."""

    version: int
    table: int

    def __str__(self) -> str:
        """The arguments of `ip route add`."""
        return f"-{self.version} route local default dev lo table {self.table} protocol {PROTOCOL}"


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that one instance installs on the host."""

    options: Options
    numbers: Numbers
    refuse_all: bool = False
    """Refuse each connection that would be intercepted. Used when RuleForward refuses to install the rules."""

    @property
    def names(self) -> Names:
        """The names of the instance's tables, chains and lists."""
        return names(self.options.instance)

    @property
    def diverts(self) -> bool:
        """Whether packets for addresses of other hosts must reach sockets of this host: that needs policy routing."""
        return self.options.mode is Mode.TPROXY or self.options.full

    @property
    def rules(self) -> frozenset[PolicyRule]:
        """The policy rules.

        The kernel also looks up the reverse path of a packet with the packet's mark (src_valid_mark, and firewalld's
        rpfilter). The second rule would give `lo` as the reverse path, and the packet would be dropped. Therefore the
        first rule skips the second one for these lookups, which have `iif lo`. Connections of the host itself have the
        other mark, so the first rule does not match them.
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
        """The source networks of one IP version whose connections are intercepted."""
        return of_version(self.options.sources or ANYWHERE, version)


def names(instance: str) -> Names:
    """The names of an instance. Raises PlanError if `instance` is not a valid name."""
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


def instance_of_chain(chain: str) -> str | None:
    """The instance that a chain of the iptables method belongs to; None if that is no chain of ours.

    A long name that was cut (`_chain`) stays cut.
    """
    prefix, _, instance = chain.partition("-")
    ours = {name.partition("-")[0] for name in names("_").chains}
    return instance if prefix in ours and _INSTANCE.fullmatch(instance) else None


def preferred_slot(instance: str) -> int:
    """The slot of an instance, unless other software uses the numbers of that slot."""
    return zlib.crc32(instance.encode()) % SLOTS


def of_version(networks: tuple[Network, ...], version: int) -> tuple[Network, ...]:
    """The networks of one IP version."""
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
        # In iptables "!" negates a name, and a final "+" matches any ending.
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
        # The kernel would assign every packet for that port, to any address, to the listener.
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
    reason = "--local needs a daemon with a user of its own, whose mail is not intercepted"
    return [f"{reason}: set User in the configuration file (not root)"]
