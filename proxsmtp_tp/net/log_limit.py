"""How many log lines one client may cause: a token bucket for each client address, in each worker.

Without it a client that connects again and again, or sends refused commands, could fill the disk: one octet from it can
cause ten in the log. Omitted lines are counted, and one line tells their number. Never omitted are the line of each
message (`status=`), lines of -d 4, and internal errors.

IPv6 clients of one /64 are counted as one, because a client may choose any address in it (RFC 4291 section 2.5.4).
"""

from __future__ import annotations

from ipaddress import IPv6Network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LINES_PER_SECOND = 50.0
"""Average for one client: more than the busiest relay causes; at most 0.5 GB a day."""

BURST = 500.0
"""Lines of one client at once: enough for a relay that opens many connections, with some lines for each."""

SUMMARY_INTERVAL = 10.0
"""Seconds between two lines about the omitted lines of one client."""

CLIENTS_MAX = 10_000
"""Clients with a bucket of their own, some hundred octets each. All further clients share one bucket."""

OTHERS = "other clients"


class _Bucket:
    __slots__ = ("left_out", "said", "seen", "tokens")

    def __init__(self, now: float) -> None:
        self.tokens = BURST
        self.seen = now
        self.left_out = 0
        self.said = now

    def refill(self, now: float) -> None:
        self.tokens = min(BURST, self.tokens + (now - self.seen) * LINES_PER_SECOND)
        self.seen = now


class LogLimit:
    """The limit in one worker."""

    def __init__(self) -> None:
        self._buckets: dict[str, _Bucket] = {}

    def allows(self, client: str, now: float) -> bool:
        """Whether a line about this client (IP address; "" for a unix socket) may be written; counts it."""
        bucket = self._bucket(_name(client), now)
        bucket.refill(now)
        if bucket.tokens < 1:
            bucket.left_out += 1
            return False
        bucket.tokens -= 1
        return True

    def summaries(self, now: float, *, all_of_them: bool = False) -> Iterator[str]:
        """Lines that tell how many were left out, one for each client in SUMMARY_INTERVAL; forgets inactive clients."""
        for name, bucket in list(self._buckets.items()):
            if bucket.left_out and (all_of_them or now >= bucket.said + SUMMARY_INTERVAL):
                yield f"client={name}: {bucket.left_out} log lines left out: more than {LINES_PER_SECOND:g} a second"
                bucket.left_out = 0
                bucket.said = now
            bucket.refill(now)
            if bucket.tokens == BURST and not bucket.left_out:
                del self._buckets[name]

    def _bucket(self, name: str, now: float) -> _Bucket:
        bucket = self._buckets.get(name)
        if bucket is None:
            name = name if len(self._buckets) < CLIENTS_MAX else OTHERS
            bucket = self._buckets.setdefault(name, _Bucket(now))
        return bucket


def _name(client: str) -> str:
    if ":" not in client:
        return client or "a unix socket"
    return str(IPv6Network((client.partition("%")[0], 64), strict=False))
