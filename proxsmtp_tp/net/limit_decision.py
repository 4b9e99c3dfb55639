"""Which limits a client has reached, and which words of its slot change. Pure: no table, no clock.

A worker passes the words of the client's slot and writes the changes back. `explain` passes a copy of these words and
writes nothing. So both get the same answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from proxsmtp_tp.config.rates import AtOnce, ClientLimit, LockReply, RateLimit
from proxsmtp_tp.net.client_table import SERVER_BITS, WINDOW, Word
from proxsmtp_tp.net.gcra import SECOND, Rate
from proxsmtp_tp.session.limits import Exceeded, Finding, Locked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxsmtp_tp.config.settings import Settings

Windows = tuple[list[int], list[int]]
"""The servers of a client: the bits of the current period, and those of the period before."""

ADMINISTRATOR = 255
"""The value of LOCK_REASON for a lock that an administrator made; others are the place in ClientLimit, from 1."""

_SERVERS = ClientLimit.SERVERS
_SERVERS_WORD, _WINDOW_WORD = int(Word.SERVERS), int(Word.SERVERS_WINDOW)
# Names of the module: Python 3.11 takes longer for a member of an Enum than for the decision.

WORDS: dict[ClientLimit, Word] = {
    limit: Word[limit.name] for limit in ClientLimit if limit is not ClientLimit.CONNECTIONS
}


@dataclass(frozen=True, slots=True)
class Rule:
    """One limit. `counts`: the event counts for this limit; otherwise the limit is only checked."""

    limit: ClientLimit
    word: int
    given: RateLimit
    rate: Rate
    counts: bool


@dataclass(frozen=True, slots=True)
class Policy:
    """The configured limits, by the event at which they are checked."""

    connection: tuple[Rule, ...]
    message: tuple[Rule, ...]
    recipient: tuple[Rule, ...]
    outcomes: dict[ClientLimit, Rule]
    at_once: AtOnce | None
    lock_on: frozenset[ClientLimit]
    lock_reply: LockReply

    @property
    def any(self) -> bool:
        """Whether there is a limit at all."""
        return bool(self.at_once or self.connection or self.message or self.recipient or self.outcomes)


class Decision(NamedTuple):
    """`changes`: words and their new values, to be written if nothing else happened since the words were read."""

    finding: Finding | None
    changes: tuple[tuple[int, int], ...] = ()


def policy_of(settings: Settings) -> Policy:
    """The limits of a configuration."""
    rules = {limit: _rule(limit, given) for limit, given in configured(settings).items()}

    def those(*limits: ClientLimit, counted: ClientLimit | None) -> tuple[Rule, ...]:
        return tuple(
            rules[limit] if limit is counted or counted is None else _rule(limit, rules[limit].given, counts=False)
            for limit in limits
            if limit in rules
        )

    outcomes = (ClientLimit.REJECTS, ClientLimit.SPAM)
    return Policy(
        connection=those(ClientLimit.CONNECTION_RATE, ClientLimit.SERVERS, counted=None),
        message=those(*outcomes, ClientLimit.MESSAGES, counted=ClientLimit.MESSAGES),
        recipient=those(ClientLimit.REJECTS, ClientLimit.RECIPIENTS, counted=ClientLimit.RECIPIENTS),
        outcomes={limit: rules[limit] for limit in outcomes if limit in rules},
        at_once=settings.client_connections,
        lock_on=frozenset(settings.lock_on),
        lock_reply=settings.lock_reply,
    )


def configured(settings: Settings) -> dict[ClientLimit, RateLimit]:
    """The limits per time that are not off."""
    given = {limit: getattr(settings, limit.field) for limit in WORDS}
    return {limit: rate for limit, rate in given.items() if rate is not None}


def decide(rules: tuple[Rule, ...], words: Sequence[int], now: int, server_weight: float = 0.0) -> Decision:
    """Look at each rule. The first one that is reached refuses; then the event counts for no limit.

    `now` is in nanoseconds, on the clock of the words. `server_weight`: see `server_weight`.
    """
    shadow: list[Exceeded] = []
    changes: list[tuple[int, int]] = []
    for rule in rules:
        weight = server_weight if rule.limit is _SERVERS else 1.0
        if not weight:
            continue
        wait = rule.rate.wait(words[rule.word], now)
        if wait:
            exceeded = Exceeded(rule.limit, rule.given, -(-wait // SECOND))
            if not rule.given.shadow:
                return Decision(Finding(exceeded, tuple(shadow)))
            shadow.append(exceeded)
        elif rule.counts:
            changes.append((rule.word, rule.rate.after(words[rule.word], now, weight)))
    return Decision(Finding(None, tuple(shadow)) if shadow else None, tuple(changes))


def too_many_at_once(policy: Policy, others: int) -> Exceeded | None:
    """Whether one more connection exceeds ClientConnections, if the client has this many others."""
    given = policy.at_once
    return Exceeded(ClientLimit.CONNECTIONS, given, 0) if given is not None and others >= given.count else None


def with_connections(decision: Finding | None, over: Exceeded) -> Finding:
    """The finding, with ClientConnections in shadow form added: the connection exceeds it, too."""
    return Finding(decision.refused if decision else None, (over, *(decision.shadow if decision else ())))


def decide_outcome(rule: Rule, words: Sequence[int], now: int) -> Decision:
    """Count an event that cannot be refused any more. There is a finding if the limit is reached with this event.

    So a client is locked by the event that uses up the burst, and not by a later command.
    """
    state = words[rule.word]
    changes: tuple[tuple[int, int], ...] = ()
    if not rule.rate.wait(state, now):
        state = rule.rate.after(state, now)
        changes = ((rule.word, state),)
    wait = rule.rate.wait(state, now)
    if not wait:
        return Decision(None, changes)
    exceeded = Exceeded(rule.limit, rule.given, -(-wait // SECOND))
    return Decision(Finding(None, (exceeded,)) if rule.given.shadow else Finding(exceeded), changes)


def decide_connection(
    rules: tuple[Rule, ...], words: Sequence[int], servers: Windows, bit: int, now: int
) -> tuple[Decision, Windows | None]:
    """Like `decide`, for a connection to the server of this bit. Also returns the windows to write (None: no change).

    A refused connection adds no server: otherwise a second attempt to the same server would be admitted.
    """
    for rule in rules:
        if rule.limit is _SERVERS:
            break
    else:
        return decide(rules, words, now), None
    current, before, period = _windows(rule, words, servers, now)
    weight = server_weight(current, before, bit)
    decision = decide(rules, words, now, weight)
    if not weight and period == words[_WINDOW_WORD] and current[bit // 64] >> bit % 64 & 1:
        return decision, None  # the usual case: one of the servers that it is known for
    counted = any(word == _SERVERS_WORD for word, _ in decision.changes)
    refused = decision.finding is not None and decision.finding.refused is not None
    if counted or (not weight and not refused):
        current = [*current]
        current[bit // 64] |= 1 << bit % 64
    changes = (*decision.changes, (_WINDOW_WORD, period))
    return Decision(decision.finding, changes), (current, before)


def usage(settings: Settings, words: Sequence[int], now: int, connections: int) -> list[dict[str, Any]]:
    """What the client has used of the burst of each limit. `seconds`: until one more event passes."""
    rows = []
    if (at_once := settings.client_connections) is not None:
        name = ClientLimit.CONNECTIONS.value
        row = {"limit": name, "value": str(at_once), "used": connections, "burst": at_once.count, "seconds": 0}
        rows.append(row | {"shadow": at_once.shadow})
    for limit, given in configured(settings).items():
        rule = _rule(limit, given)
        wait = rule.rate.wait(words[rule.word], now)
        rows.append(
            {
                "limit": limit.value,
                "value": str(given),
                "used": rule.rate.used(words[rule.word], now),
                "burst": given.burst,
                "seconds": -(-wait // SECOND),
                "shadow": given.shadow,
            }
        )
    return rows


def locked(words: Sequence[int], wall: float, client: str, reply: LockReply) -> Locked | None:
    """Whether the client is locked. `wall` is the time in seconds since 1970."""
    until = words[Word.LOCKED_UNTIL]
    if until <= wall:
        return None
    return Locked(client, show_until(until), reason_name(words[Word.LOCK_REASON]), reply)


def server_weight(current: Sequence[int], before: Sequence[int], bit: int) -> float:
    """How many servers a connection to the server of this bit counts as; 0 if the bit is set in one of the windows.

    Several servers may have the same bit. So a new bit counts as more than one server: the fewer bits are free, the
    more. On average the sum is right (linear counting, each step weighted: Ting, Streamed approximate counting of
    distinct elements, 2014).
    """
    word, mask = bit // 64, 1 << bit % 64
    if (current[word] | before[word]) & mask:
        return 0.0
    used = sum((now | then).bit_count() for now, then in zip(current, before, strict=True))
    return SERVER_BITS / (SERVER_BITS - used)  # not a division by 0: this bit is free


def _windows(rule: Rule, words: Sequence[int], servers: Windows, now: int) -> tuple[list[int], list[int], int]:
    """The two windows of servers as they are at `now`, and the number of the current period."""
    current, before = servers
    period, last = now // (rule.given.period * SECOND), words[_WINDOW_WORD]
    if period == last:
        return current, before, period
    return [0] * WINDOW, current if period == last + 1 else [0] * WINDOW, period


def reason_number(limit: ClientLimit) -> int:
    """The value of LOCK_REASON."""
    return list(ClientLimit).index(limit) + 1


def reason_name(number: int) -> str:
    """A value of LOCK_REASON in words: the directive, or `administrator`."""
    limits = list(ClientLimit)
    return limits[number - 1].value if 0 < number <= len(limits) else "administrator"


def show_until(until: float) -> str:
    """A time in UTC (RFC 3339), in whole seconds, rounded up."""
    return datetime.fromtimestamp(math.ceil(until), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _rule(limit: ClientLimit, given: RateLimit, *, counts: bool = True) -> Rule:
    rate = Rate.of(given.count, given.period, given.burst)
    if (
        limit is ClientLimit.SERVERS
    ):  # their number is an estimate, so more are tolerated: an estimate that is too high refuses nobody
        rate = replace(rate, tolerance=rate.tolerance + rate.interval // 2 + rate.interval * given.burst // 20)
    return Rule(limit, WORDS[limit], given, rate, counts)
