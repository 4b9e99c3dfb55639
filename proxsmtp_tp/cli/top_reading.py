"""What `top` has read from the daemon, and what happened between two readings. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

VIEWS = ("clients", "servers", "sessions")


class NoReadingError(ValueError):
    """The answer is not that of a daemon of this version."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One answer of the daemon. Times in seconds."""

    time: float
    """The time of the daemon, on CLOCK_MONOTONIC."""
    status: dict[str, Any]
    times: dict[str, tuple[int, float]]
    """By name: how many durations there were since the start, and their sum."""
    rows: dict[str, list[dict[str, Any]]]
    """By view."""
    total: int
    """Sessions that run; `counted` of them are in the rows of clients and servers."""
    counted: int
    numbers: list[int]
    lost: int
    """Messages since the reading before that are missing in the rows of clients and servers."""

    @property
    def daemon(self) -> tuple[int, float]:
        """The identity of the daemon, different after a restart: process id, and time of the start in units of 10
        seconds.
        """
        return int(self.status["pid"]), round((self.time - self.status["uptime"]) / 10)


def reading(answer: dict[str, Any]) -> Reading:
    """From the answer of the daemon. Raises NoReadingError."""
    try:
        status = answer["status"]
        made = Reading(
            time=float(answer["time"]),
            status=status,
            times={name: (int(number), float(total)) for name, (number, total) in answer["times"].items()},
            rows={
                "clients": list(answer["clients"]),
                "servers": _with_those_down(answer["servers"], status.get("servers_down", [])),
                "sessions": list(answer["sessions"]),
            },
            total=int(answer["total"]),
            counted=int(answer["counted"]),
            numbers=list(answer["numbers"]),
            lost=int(answer["lost"]),
        )
        _ = made.daemon, status["instance"], status["connections"], status["max_connections"], status["sessions"]
        _ = [status["totals"][family]["accepted"] for family in ("connections_total", "recipients_total")]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise NoReadingError("the daemon is of another version: restart it, or use its own command") from None
    return made


def _with_those_down(servers: list[dict[str, Any]], down: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Servers that could not be reached lately have `down`, seconds; those without a session get a row."""
    rows = {row["server"]: row for row in servers}
    for each in down:
        address = str(each["server"]).rpartition(":")[0].strip("[]")
        rows.setdefault(address, {"server": address})["down"] = each["seconds"]
    return list(rows.values())


@dataclass(frozen=True, slots=True)
class Rates:
    """What happened between two readings: per second, and mean durations in seconds."""

    seconds: float = 0.0
    """Seconds between the readings; 0: there is only one, or the daemon was restarted in between."""
    totals: dict[str, dict[str, float]] = field(default_factory=dict)
    """By metric and label."""
    means: dict[str, float] = field(default_factory=dict)
    """By duration; those that did not happen are absent."""


def rates(before: Reading | None, now: Reading) -> Rates:
    """The difference of two readings."""
    if before is None or before.status["pid"] != now.status["pid"] or now.time <= before.time:
        return Rates()
    seconds = now.time - before.time
    totals: dict[str, dict[str, float]] = {}
    for family, series in now.status["totals"].items():
        earlier = before.status["totals"].get(family, {})
        totals[family] = {name: max(0, value - earlier.get(name, 0)) / seconds for name, value in series.items()}
    means = {}
    for name, (number, total) in now.times.items():
        earlier_number, earlier_total = before.times.get(name, (0, 0.0))
        if number > earlier_number:
            means[name] = max(0.0, total - earlier_total) / (number - earlier_number)
    return Rates(seconds, totals, means)
