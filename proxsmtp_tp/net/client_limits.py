"""The limits of clients in one worker: who is counted, and the state of each in the table that all workers share.

A client is an IPv4 address or an IPv6 /64 (ClientIPv4Prefix, ClientIPv6Prefix). Programs of this host and ClientExcept
are not counted and not locked. The decisions are in `limit_decision`; this module reads and writes the table.

Two workers never count two events with one state: a change happens under the table's lock. With no limit and no lock
configured, nothing is looked up.
"""

from __future__ import annotations

import ipaddress
import time
from functools import lru_cache
from typing import TYPE_CHECKING

from proxsmtp_tp.net.client_table import LockRequest
from proxsmtp_tp.net.limit_decision import (
    decide,
    decide_connection,
    decide_outcome,
    locked,
    policy_of,
    reason_number,
    too_many_at_once,
    with_connections,
)
from proxsmtp_tp.session.limits import Exceeded, Finding
from proxsmtp_tp.telemetry.counters import Counter

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxsmtp_tp.config.rates import ClientLimit
    from proxsmtp_tp.config.settings import Settings
    from proxsmtp_tp.net.client_table import ClientTable
    from proxsmtp_tp.net.limit_decision import Decision, Rule

_CACHED = 4096
"""Addresses whose client a worker remembers: finding it takes 10 microseconds."""

_MAPPED = bytes(10) + b"\xff\xff"


class Keys:
    """Tells which client an address belongs to. The same for workers, the master and `explain`."""

    def __init__(self, settings: Settings) -> None:
        self._prefixes = {4: settings.client_ipv4_prefix, 6: settings.client_ipv6_prefix}
        self._except = settings.client_except

    def network(self, ip: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
        """The client; None: it is not counted. Raises ValueError if `ip` is no address."""
        if not ip:
            return None
        address = ipaddress.ip_address(ip.partition("%")[0])
        if address.is_loopback or any(address in network for network in self._except):
            return None
        return ipaddress.ip_network((address, self._prefixes[address.version]), strict=False)


def key_of(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bytes:
    """The key of a client in the table: 16 octets."""
    packed = network.network_address.packed
    return packed if len(packed) == 16 else _MAPPED + packed


def name_of(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> str:
    """How a client is written: an address, or a network."""
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)


class WorkerLimits:
    """The limits in one worker. `count` increments a counter of the worker."""

    def __init__(self, settings: Settings, table: ClientTable, worker: int, count: Callable[[Counter], None]) -> None:
        self.policy = policy_of(settings)
        self.limited = self.policy.any
        self.table = table
        self.worker = worker
        self.count = count
        self.network = lru_cache(_CACHED)(Keys(settings).network)
        self.key = lru_cache(_CACHED)(self._key)
        self.server_bit = lru_cache(_CACHED)(table.server_bit)

    def _key(self, ip: str) -> bytes | None:
        """The key of the client; None: it is not counted."""
        network = self.network(ip)
        return None if network is None else key_of(network)

    def enter(self, ip: str, trace_id: str = "") -> ConnectionLimits:
        """A client has connected from this address ("": by a unix socket). `trace_id` is for the line about a lock."""
        return ConnectionLimits(self, ip, trace_id)


class ConnectionLimits:
    """The limits of one connection's client (`session.limits.ClientLimits`). Call `leave` when it has ended."""

    __slots__ = ("_asked", "_changing", "_ip", "_over", "_slot", "_trace_id", "_worker")

    def __init__(self, worker: WorkerLimits, ip: str, trace_id: str) -> None:
        self._worker = worker
        self._ip = ip
        self._slot: int | None = None
        self._asked: tuple[ClientLimit, ...] = ()
        self._trace_id = trace_id
        self._over: Exceeded | None = None
        if worker.limited and (key := worker.key(ip)) is not None:
            entered = self._worker.table.enter(worker.worker, key)
            if entered is None:
                worker.count(Counter.CLIENTS_UNTRACKED)
            else:
                self._slot, others = entered
                self._changing = self._worker.table.changing_slot(self._slot)
                self._over = too_many_at_once(self._worker.policy, others)

    def leave(self) -> None:
        """The connection has ended. Idempotent."""
        slot, self._slot = self._slot, None
        if slot is not None:
            self._worker.table.leave(self._worker.worker, slot)

    def connection(self, server: str) -> Finding | None:
        finding = self._locked() or self._connected(server)
        if finding is not None and finding.refused is not None:
            self.leave()  # a refused connection does not count
        return finding

    def _connected(self, server: str) -> Finding | None:
        over = self._over
        if over is None:
            return self._count(self._worker.policy.connection, server)
        if not over.rate.shadow:
            self._request_lock(over.limit)
            return Finding(over)
        return with_connections(self._count(self._worker.policy.connection, server), over)

    def message(self) -> Finding | None:
        if (finding := self._locked()) is not None:
            return finding
        return self._count(self._worker.policy.message)

    def recipient(self) -> Finding | None:
        return self._count(self._worker.policy.recipient)

    def happened(self, limit: ClientLimit) -> Finding | None:
        slot, rule = self._slot, self._worker.policy.outcomes.get(limit)
        if slot is None or rule is None:
            return None
        with self._changing:
            decision = decide_outcome(rule, self._worker.table.state(slot), time.monotonic_ns())
            for word, value in decision.changes:
                self._worker.table.set(slot, word, value)
        return self._judged(decision, (rule,))

    def _locked(self) -> Finding | None:
        if not self._worker.table.locks:
            return None
        network = self._worker.network(self._ip)
        slot = self._worker.table.find(key_of(network)) if network is not None else None
        if network is None or slot is None:
            return None
        lock = locked(self._worker.table.state(slot), time.time(), name_of(network), self._worker.policy.lock_reply)
        return Finding(lock) if lock is not None else None

    def _count(self, rules: tuple[Rule, ...], server: str = "") -> Finding | None:
        slot = self._slot
        if slot is None or not rules:
            return None
        table = self._worker.table
        with self._changing:
            now = time.monotonic_ns()
            words = table.state(slot)
            if server:
                bit = self._worker.server_bit(server)
                decision, servers = decide_connection(rules, words, table.servers(slot), bit, now)
                if servers is not None:
                    table.set_servers(slot, *servers)
            else:
                decision = decide(rules, words, now)
            for word, value in decision.changes:
                table.set(slot, word, value)
        return self._judged(decision, rules)

    def _judged(self, decision: Decision, rules: tuple[Rule, ...]) -> Finding | None:
        finding = decision.finding
        if finding is not None and isinstance(finding.refused, Exceeded):
            self._ask_for_lock(rules, finding.refused.limit)
        return finding

    def _ask_for_lock(self, rules: tuple[Rule, ...], limit: ClientLimit) -> None:
        """Only an event that counts for the limit locks the client. A later message is refused because of the same
        events, and does not lock it again.
        """
        if any(rule.limit is limit and rule.counts for rule in rules):
            self._request_lock(limit)

    def _request_lock(self, limit: ClientLimit) -> None:
        if limit not in self._worker.policy.lock_on or limit in self._asked:
            return
        network = self._worker.network(self._ip)
        if network is not None:
            request = LockRequest(key_of(network), reason_number(limit), self._trace_id.encode())
            if self._worker.table.ask_for_lock(request):
                self._asked += (limit,)
