"""Metrics as text for Prometheus: https://prometheus.io/docs/instrumenting/exposition_formats/, version 0.0.4. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from proxsmtp_tp.telemetry.counters import Counter
from proxsmtp_tp.telemetry.metrics import BOUNDS, FAMILIES, seconds_of

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "proxsmtp_"


class Plain(NamedTuple):
    """A metric that is not in `metrics.FAMILIES`: name without prefix, type, help, and values by labels."""

    name: str
    kind: str
    help: str
    values: list[tuple[dict[str, str], float]]


def exposition(totals: list[int], counters: dict[Counter, int], gauges: list[Plain]) -> str:
    """The text. `totals` are those of `metrics.Metrics`, `counters` those of `counters.Counters`."""
    lines: list[str] = []
    for plain in (*gauges, *_plain(counters)):
        lines += _head(plain.name, plain.kind, plain.help)
        lines += [f"{PREFIX}{plain.name}{_labels(labels)} {_number(value)}" for labels, value in plain.values]
    for family in FAMILIES:
        if family.histogram:
            lines += _head(family.name, "histogram", family.help)
            lines += _histogram(family.name, *seconds_of(totals, family.first))
        else:
            lines += _head(family.name, "counter", family.help)
            for place, values in enumerate(family.values):
                labels = dict(zip(family.labels, values, strict=True))
                lines.append(f"{PREFIX}{family.name}{_labels(labels)} {totals[family.first + place]}")
    return "\n".join(lines) + "\n"


def names(gauges: list[Plain]) -> set[str]:
    """The names of all series, with those that a histogram has."""
    found = {PREFIX + plain.name for plain in (*gauges, *_plain(dict.fromkeys(Counter, 0)))}
    for family in FAMILIES:
        ends = ("_bucket", "_sum", "_count") if family.histogram else ("",)
        found |= {PREFIX + family.name + end for end in ends}
    return found


def gauges_of(report: dict[str, Any]) -> list[Plain]:
    """What is true now, from the report of the master."""
    failed = float(report["configuration"]["reload"]["state"] == "failed")
    return [
        *_of_the_daemon(report),
        *_of_filters(report["filters"]),
        *_of_servers_and_workers(report),
        *_of_the_client_table(report["client_table"]),
        *_of_locks(report["locks"]),
        Plain("reload_failed", "gauge", "1 where the last reload failed.", [({}, failed)]),
    ]


def _of_the_daemon(report: dict[str, Any]) -> list[Plain]:
    sessions = [({"phase": phase}, float(number)) for phase, number in report["sessions"].items()]
    return [
        Plain("build_info", "gauge", "The version that runs.", [({"version": str(report["version"])}, 1.0)]),
        Plain("uptime_seconds", "gauge", "Time since the start of the daemon.", [({}, report["uptime"])]),
        Plain("connections_open", "gauge", "Connections of clients.", [({}, report["connections"])]),
        Plain("connections_limit", "gauge", "MaxConnections.", [({}, report["max_connections"])]),
        Plain("sessions", "gauge", "Sessions by what they do or wait for.", sessions),
    ]


def _of_filters(filters: dict[str, Any]) -> list[Plain]:
    oldest = "How long the oldest of them waits."
    return [
        Plain("filter_running", "gauge", "Messages at the filter.", [({}, filters["running"])]),
        Plain("filter_limit", "gauge", "FilterProcesses.", [({}, filters["limit"])]),
        Plain("filter_waiting", "gauge", "Messages that wait for the filter.", [({}, filters["waiting"])]),
        Plain("filter_oldest_wait_seconds", "gauge", oldest, [({}, filters["oldest_wait"])]),
    ]


def _of_servers_and_workers(report: dict[str, Any]) -> list[Plain]:
    down, running = len(report["servers_down"]), [each for each in report["workers"] if each["phase"] == "running"]
    replaced, lag = report["replaced_workers"], "How late a timer of a worker was, at most, in the last minute or two."
    return [
        Plain("servers_down", "gauge", "Servers that could not be reached lately.", [({}, down)]),
        Plain("workers", "gauge", "Workers that accept connections.", [({}, len(running))]),
        Plain("worker_restarts_total", "counter", "Workers that ended and were replaced.", [({}, replaced)]),
        Plain("loop_lag_seconds_max", "gauge", lag, [({}, report["loop_lag"])]),
    ]


def _of_the_client_table(table: dict[str, Any]) -> list[Plain]:
    forgotten = "Clients that were forgotten for another one."
    return [
        Plain("client_table_entries", "gauge", "Clients in the table of limits.", [({}, table["entries"])]),
        Plain("client_table_size", "gauge", "Clients that fit into it (ClientTableSize).", [({}, table["size"])]),
        Plain("client_table_evictions_total", "counter", forgotten, [({}, table["evictions"])]),
    ]


def _of_locks(locks: dict[str, dict[str, int]]) -> list[Plain]:
    active, total = (
        [({"reason": reason}, float(number)) for reason, number in locks[which].items()]
        for which in ("active", "total")
    )
    return [
        Plain("locks_active", "gauge", "Clients that are locked, by the limit that locked them.", active),
        Plain("locks_total", "counter", "Locks that began, by the limit that locked.", total),
    ]


_CLOSES = {"connections", "connection_rate", "servers"}
_NAMES = {
    Counter.POSSIBLE_DUPLICATES: "duplicate_risk_total",
    Counter.CLIENTS_UNTRACKED: "client_table_untracked_total",
}
"""Where the name of the metric is not that of the counter."""


def _plain(counters: dict[Counter, int]) -> Iterator[Plain]:
    """Counters of `counters.Counter`: those of limits are one metric with labels."""
    limited, shadow, others = [], [], []
    for counter, value in counters.items():
        start, _, limit = counter.name.lower().partition("_")
        if start == "limited":
            limited.append(({"limit": limit, "action": _action(limit)}, float(value)))
        elif start == "shadow":
            shadow.append(({"limit": limit}, float(value)))
        else:
            others.append((counter, value))
    text = "What limits and locks of clients refused; action close: 421, defer: 450, lock: LockReply."
    yield Plain("limit_hits_total", "counter", text, limited)
    yield Plain("shadow_hits_total", "counter", "What limits in shadow form would have refused.", shadow)
    for counter, value in others:
        words = counter.name.lower()
        text = f"As `status` counts: {words.replace('_', ' ')} (proxsmtp-tp(8))."
        yield Plain(_NAMES.get(counter, f"{words}_total"), "counter", text, [({}, value)])


def _action(limit: str) -> str:
    return "lock" if limit == "locked" else "close" if limit in _CLOSES else "defer"


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {PREFIX}{name} {text}", f"# TYPE {PREFIX}{name} {kind}"]


def _histogram(name: str, counts: list[int], total: float) -> Iterator[str]:
    sum_so_far = 0
    for bound, count in zip((*(f"{bound:g}" for bound in BOUNDS), "+Inf"), counts, strict=True):
        sum_so_far += count
        yield f'{PREFIX}{name}_bucket{{le="{bound}"}} {sum_so_far}'
    yield f"{PREFIX}{name}_sum {total:.6f}"
    yield f"{PREFIX}{name}_count {sum_so_far}"


def _labels(labels: dict[str, str]) -> str:
    if not labels:
        return ""
    escaped = {
        name: value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for name, value in labels.items()
    }
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped.items()) + "}"


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
