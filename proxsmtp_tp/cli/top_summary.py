"""The lines of `top` above its table: what the instance does now, and how much a second. Pure; 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxsmtp_tp.cli.durations import shown
from proxsmtp_tp.cli.top_rows import rate
from proxsmtp_tp.config.reader import printable
from proxsmtp_tp.service.faults import faults

if TYPE_CHECKING:
    from proxsmtp_tp.cli.top_reading import Rates, Reading

_TIMES = {
    "filter_wait": "queue",
    "filter": "filter",
    "server_connect": "connect",
    "server_final": "server",
    "dot_to_reply": "reply",
}


def summary(read: Reading, per_second: Rates) -> list[str]:
    """One line for each: connections, messages, replies, recipients, filters, verdicts, times, sessions."""
    status, totals = read.status, per_second.totals
    new = _rated(", new", totals.get("connections_total"))
    replies = _rated(" to messages", totals.get("message_replies_total"))
    closed = _rated(", closed with 421", totals.get("closed_total"), always=False)
    lines = [
        f"connections {status['connections']} of {status['max_connections']}{new}",
        f"messages{_rated('', totals.get('messages_total'))}{_bytes(per_second)}",
        f"replies{replies}{closed}",
        f"recipients{_rated('', totals.get('recipients_total'))}",
        _filters(status),
        f"verdicts{_rated('', totals.get('filter_verdicts_total'))}",
        f"mean seconds{_means(per_second)}",
        _sessions(read),
    ]
    return [printable(line) for line in lines]


def warnings(status: dict[str, Any]) -> list[str]:
    """What is wrong, with its fix, and the bypass of the filter: a line for each."""
    try:
        found = [f"WRONG: {fault}" for fault in faults(status)]
    except (KeyError, TypeError, ValueError):
        found = []  # of another version
    if status.get("bypass"):
        found.append(f"the filter is bypassed: {status['bypass'].get('reason', '')}")
    return [printable(line) for line in found]


def title(read: Reading) -> str:
    """Which instance this is."""
    status = read.status
    stops = ", it stops" if status.get("stopping") else ""
    return printable(f"{status['instance']} {status.get('version', '')}, up {shown(status['uptime'])}{stops}")


def _rated(what: str, series: dict[str, float] | None, *, always: bool = True) -> str:
    """`what 12.5/s: accepted 12.3, full 0.2`; with one that is not zero, no list. Unknown: nothing."""
    if series is None:
        return f"{what} -" if always else ""
    happened = {name: number for name, number in series.items() if number}
    if not happened and not always:
        return ""
    parts = ", ".join(f"{name.replace('_', ' ')} {rate(number)}" for name, number in happened.items())
    return f"{what} {rate(sum(series.values()))}/s{f': {parts}' if parts else ''}"


def _bytes(per_second: Rates) -> str:
    octets = sum(per_second.totals.get("message_bytes_total", {}).values())
    return f"; {octets / 1024:.1f} KiB/s" if octets else ""


def _filters(status: dict[str, Any]) -> str:
    filters = status["filters"]
    if not filters["configured"]:
        return "filters none configured"
    waiting = f", {filters['waiting']} waiting"
    if filters["waiting"]:
        waiting += f", the oldest for {shown(filters['oldest_wait'])}"
    return f"filters {filters['running']} of {filters['limit']}{waiting}"


def _means(per_second: Rates) -> str:
    parts = [f" {name} {_mean(per_second.means[key])}" for key, name in _TIMES.items() if key in per_second.means]
    return ",".join(parts) or " -"


def _mean(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds < 9.995 else f"{seconds:.0f}"


def _sessions(read: Reading) -> str:
    phases = ", ".join(f"{name} {number}" for name, number in read.status["sessions"].items() if number)
    return f"sessions {read.total}{f': {phases}' if phases else ''}"
