"""The lines of `status` about the work of an instance, in 80 columns. Missing values have no line."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.cli.durations import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

_WIDTH = 78
_ERROR_MAX = 200
"""Characters of the last error: the log has the rest."""


def activity(answer: dict[str, Any]) -> Iterator[str]:
    """Sessions, filters, totals since the start, the log level where it is not as configured, the last error."""
    if "sessions" in answer:
        yield from _counts("sessions", answer["sessions"], "none")
    if (filters := answer.get("filters")) and filters["configured"]:
        oldest = f", the oldest for {shown(filters['oldest_wait'])}" if filters["waiting"] else ""
        yield f"filters {filters['running']} of {filters['limit']}, {filters['waiting']} waiting{oldest}"
    totals = answer.get("totals", {})
    for name, title in _TOTALS.items():
        if name in totals:
            yield from _counts(title, totals[name], "none")
    if any((tls := totals.get("tls_total", {})).values()):
        yield from _counts("TLS", tls, "none")
    yield from _tls_rejected(answer.get("tls_rejected", {}))
    if any((locks := answer.get("locks", {}).get("active", {})).values()):
        yield from _counts("clients locked", locks, "none")
    log = answer.get("log")
    if log and (log["source"] == "log-level" or log["traced"]):
        traced = "".join(f", tracing {each['network']}" for each in log["traced"])
        left = f" for another {shown(log['left'])}" if log["left"] is not None else ""
        yield f"log level {log['level']}{left}{traced}"
    if error := answer.get("last_error"):
        ago = shown(max(0, time.time() - error["time"]))
        yield f"last error, {ago} ago: {error['text'][:_ERROR_MAX]}"


def _tls_rejected(report: dict[str, Any]) -> Iterator[str]:
    """Clients whose TLS passes because they have rejected the gateway's certificate (TlsRejected)."""
    if number := report.get("number"):
        yield f"TLS passes for {number} clients and servers: the client rejected our certificate"
        for each in report["newest"]:
            name = f", name {each['name']}" if each["name"] else ""
            yield f"    {each['client']} to {each['server']} port {each['port']}{name}"
            yield f"        for another {shown(each['seconds'])}"


def packets_at_rules(report: dict[str, Any] | None) -> Iterator[str]:
    """How many packets met which rules since they were installed. `never` is shown only for rules that intercept."""
    if report is None:
        return
    if report["unread"]:
        yield f"packets at the rules: unknown, {report['unread']}"
        return
    all_of_them = [(str(count["rule"]), int(count["packets"])) for count in report["counts"]]
    met = [(name, number) for name, number in all_of_them if number or _intercepts(name)]
    yield from _joined("packets at the rules", [f"{name} {number or 'never'}" for name, number in met], "; ")


def _intercepts(name: str) -> bool:
    """Whether a rule with this name (`gateway.rule_counts`) takes new connections."""
    return name.startswith(("intercepted, IPv", "intercepted, this host"))


_TOTALS = {
    "connections_total": "connections since start",
    "messages_total": "messages",
    "message_replies_total": "message replies",
    "filter_verdicts_total": "verdicts",
    "recipients_total": "recipients",
    "replies_total": "replies",
    "closed_total": "closed with 421",
}


def _counts(title: str, counts: dict[str, int], nothing: str) -> Iterator[str]:
    """The title, then the counts that are not zero, in as many lines as needed."""
    parts = [f"{name.replace('_', ' ')} {number}" for name, number in counts.items() if number]
    yield from _joined(title, parts or [nothing], ", ")


def _joined(title: str, parts: list[str], between: str) -> Iterator[str]:
    line = f"{title}: {''.join(parts[:1])}"
    for part in parts[1:]:
        if len(line) + len(part) + len(between) > _WIDTH - 2:
            yield f"{line}{between.rstrip()}"
            line = f"    {part}"
        else:
            line += f"{between}{part}"
    yield line
