"""Limits for one client, as the configuration file writes them: `500/1h burst 100 shadow`, `15m x2 max 1d`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# As the defaults of LockDuration: a quarter of an hour ends most outbreaks, a day is long enough for an administrator.
_LOCK_FIRST, _LOCK_FACTOR, _LOCK_MOST = 900, 2, 86400
_RATE = re.compile(
    r"(?P<count>[0-9]{1,9})/(?P<times>[0-9]{1,6})?(?P<unit>[smhd])"
    r"(?:[ \t]+burst[ \t]+(?P<burst>[0-9]{1,9}))?(?P<shadow>[ \t]+shadow)?",
    re.IGNORECASE,
)
_TIME = re.compile(r"([0-9]{1,6})([smhd])", re.IGNORECASE)
_DURATION = re.compile(
    r"(?P<first>[0-9]{1,6}[smhd])(?:[ \t]+x(?P<factor>[0-9]{1,3}))?(?:[ \t]+max[ \t]+(?P<most>[0-9]{1,6}[smhd]))?",
    re.IGNORECASE,
)
# After its burst a client waits a year at most: longer is a lock. The state of a limit, 64 bits of nanoseconds, has
# space for 500 years.
_RECOVERY_MAX = 366 * 86400
# To refuse a client for longer, write a firewall rule.
_LOCK_MAX = 10 * 366 * 86400


class ClientLimit(Enum):
    """The limits of one client, per time or (CONNECTIONS) at once; the value is the name of the directive."""

    __hash__ = object.__hash__  # by identity: members are looked up for every message, and Enum's own hash is slow

    CONNECTION_RATE = "ClientConnectionRate"
    SERVERS = "ClientServers"
    MESSAGES = "ClientMessages"
    RECIPIENTS = "ClientRecipients"
    REJECTS = "ClientRejects"
    SPAM = "ClientSpam"
    CONNECTIONS = "ClientConnections"

    @property
    def field(self) -> str:
        """The field in `Settings`."""
        return f"client_{self.name.lower()}"


class LockReply(Enum):
    """The code that a locked client gets: 421 (try again later) or 554 (refused)."""

    TRY_AGAIN = "421"
    REFUSED = "554"


@dataclass(frozen=True, slots=True)
class RateLimit:
    """`burst` events at once, and `count` in each `period` (seconds) in the long run. `shadow`: only log and count."""

    count: int
    period: int
    burst: int
    shadow: bool = False

    def __str__(self) -> str:
        """As the configuration file writes it."""
        burst = f" burst {self.burst}" if self.burst != self.count else ""
        return f"{self.count}/{show_time(self.period)}{burst}{' shadow' if self.shadow else ''}"


@dataclass(frozen=True, slots=True)
class AtOnce:
    """So many connections at the same time. `shadow`: only log and count."""

    count: int
    shadow: bool = False

    def __str__(self) -> str:
        """As the configuration file writes it."""
        return f"{self.count}{' shadow' if self.shadow else ''}"


@dataclass(frozen=True, slots=True)
class LockDuration:
    """How long a lock lasts, in seconds: `first`, and `factor` times longer with each repetition, at most `most`."""

    first: int = _LOCK_FIRST
    factor: int = _LOCK_FACTOR
    most: int = _LOCK_MOST

    def seconds(self, earlier: int) -> int:
        """The duration of the next lock of a client that has had this number of locks before."""
        return min(self.most, self.first * int(self.factor ** min(earlier, 64)))

    def __str__(self) -> str:
        """As the configuration file writes it."""
        return f"{show_time(self.first)} x{self.factor} max {show_time(self.most)}"


def parse_rate(text: str) -> RateLimit | None:
    """Read a limit; `off` or 0 is None. Raises ValueError."""
    if text.lower() in {"off", "0"}:
        return None
    found = _RATE.fullmatch(text)
    if found is None:
        raise ValueError(
            f"{text!r} is no limit: write a number and a time such as 500/1h, perhaps with `burst 100` or `shadow`"
            " behind it, or off"
        )
    count = int(found["count"])
    period = int(found["times"] or 1) * _SECONDS[found["unit"].lower()]
    burst = int(found["burst"] or count)
    if not count or not period or not burst:
        raise ValueError(f"{text!r} would let nothing pass: write numbers of 1 or more, or off")
    if burst * period > _RECOVERY_MAX * count:
        raise ValueError(
            f"{text!r}: after its burst a client would wait longer than a year: lower the burst or the time"
        )
    return RateLimit(count, period, burst, found["shadow"] is not None)


def parse_at_once(text: str) -> AtOnce | None:
    """Read a number of connections, perhaps with `shadow`; `off` or 0 is None. Raises ValueError."""
    if text.lower() in {"off", "0"}:
        return None
    found = re.fullmatch(r"([0-9]{1,6})([ \t]+shadow)?", text, re.IGNORECASE)
    if found is None or not int(found[1]):
        raise ValueError(f"{text!r} is no limit: write a number such as 20, perhaps with `shadow` behind it, or off")
    return AtOnce(int(found[1]), found[2] is not None)


def parse_lock_duration(text: str) -> LockDuration:
    """Read the duration of locks. Raises ValueError."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no duration: write a time such as 15m, or 15m x2 max 1d for one that grows")
    first = parse_time(found["first"])
    factor = int(found["factor"] or 1)
    most = parse_time(found["most"]) if found["most"] else (first if factor == 1 else max(first, _LOCK_MOST))
    if factor < 1 or most < first:
        raise ValueError(f"{text!r}: the factor must be 1 or more, and the maximum not less than the first time")
    return LockDuration(first, factor, most)


def parse_time(text: str) -> int:
    """Read a time with its unit (s, m, h, d), 1 s to 10 years: seconds. Raises ValueError."""
    found = _TIME.fullmatch(text)
    seconds = int(found[1]) * _SECONDS[str(found[2]).lower()] if found else 0
    if not 0 < seconds <= _LOCK_MAX:
        raise ValueError(f"{text!r} is no time: write a number and s, m, h or d, such as 15m, at most 10 years")
    return seconds


def show_time(seconds: int) -> str:
    """Seconds with the largest unit that fits."""
    unit = next(unit for unit in "dhms" if not seconds % _SECONDS[unit])
    return f"{seconds // _SECONDS[unit]}{unit}"
