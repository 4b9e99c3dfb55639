"""What `top` shows, in one answer of the control socket: the status, and sessions by client and by server.

The command shows what happened between two readings. Its request contains the numbers of the last reading (`since`), so
the master stores nothing for the command.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.config.addresses import client_of_address
from proxsmtp_tp.service.control import ControlError
from proxsmtp_tp.telemetry import metrics

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from proxsmtp_tp.net.admission import Admission
    from proxsmtp_tp.telemetry.recent_messages import Message

COUNTED_MAX = 10_000
"""Sessions that are read, those longest in their phase first. This takes the master a tenth of a second."""
SESSIONS_MAX = 1000
"""Sessions in the answer, a quarter of a megabyte: more than anybody reads. Further ones are only counted."""
PEERS_MAX = 1000
"""Clients, and servers, in the answer: those with the most messages and sessions."""
_WORKERS_MAX = 512  # rings (`trace_id.ROWS_MAX`)

_TIMES = {
    "filter_wait": metrics.FILTER_WAIT,
    "filter": metrics.FILTER,
    "server_connect": metrics.SERVER_CONNECT,
    "server_final": metrics.SERVER_FINAL,
    "dot_to_reply": metrics.DOT_TO_REPLY,
}


def top_report(admission: Admission, status: dict[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """`since`: `numbers` of the reading before, for messages by client and server. `status`: what `report` returned.

    Times in seconds, `time` on CLOCK_MONOTONIC. Of `times` each has a number and a sum, since the start.
    """
    since = request.get("since")
    if since is not None and not _are_numbers(since):
        raise ControlError("since: write the numbers of an earlier answer")
    totals = admission.metrics.totals()
    sessions = admission.sessions.listed(COUNTED_MAX)
    recent = admission.recent_messages
    messages, lost, numbers = recent.since(recent.numbers() if since is None else since)
    now = time.monotonic()
    return {
        "time": now,
        "status": status,
        "times": {name: _times(totals, first) for name, first in _TIMES.items()},
        "total": sum(status["sessions"].values()),
        "counted": len(sessions),
        "sessions": sessions[:SESSIONS_MAX],
        "clients": _by("client", sessions, messages),
        "servers": _by("server", sessions, messages),
        "numbers": numbers,
        "lost": lost,
    }


def _are_numbers(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= _WORKERS_MAX
        and all(type(each) is int and each >= 0 for each in value)
    )


def _times(totals: list[int], first: int) -> tuple[int, float]:
    counts, seconds = metrics.seconds_of(totals, first)
    return sum(counts), round(seconds, 6)


def _by(side: str, sessions: list[dict[str, Any]], messages: Iterable[Message]) -> list[dict[str, Any]]:
    """One row for each client or server, those with the most messages and sessions first."""
    rows: dict[str, dict[str, Any]] = {}
    for session in sessions:
        name = _client(session["client"]) if side == "client" else session["server"]
        _add_session(rows.setdefault(name, _row(side, name)), session)
    found: dict[bytes, dict[str, Any]] = {}
    for message in messages:
        raw = message.client if side == "client" else message.server
        row = found.get(raw)
        if row is None:
            text = raw.decode("ascii", "replace")
            name = _client_of_ip(text) if side == "client" else text
            row = found[raw] = rows.setdefault(name, _row(side, name))
        row["replies"][_CLASS.get(message.reply, "none")] += 1
        row["octets"] += message.octets
        row["slowest"] = max(row["slowest"], message.seconds)
    return sorted(rows.values(), key=lambda row: -row["sessions"] - sum(row["replies"].values()))[:PEERS_MAX]


def _row(side: str, name: str) -> dict[str, Any]:
    """`wait`: of the session that waits longest for the filter (client), or for the server; `slowest`: of messages
    that have ended, from end of data to the reply. `replies` and `octets` are of these messages, too.
    """
    counts = dict.fromkeys(("sessions", "messages", "waiting", "filter", "connecting", "final"), 0)
    times = dict.fromkeys(("wait", "longest", "slowest"), 0.0)
    return {side: name, **counts, **times, "octets": 0, "replies": Counter({"2xx": 0, "4xx": 0, "5xx": 0, "none": 0})}


def _add_session(row: dict[str, Any], session: dict[str, Any]) -> None:
    phase = session["phase"]
    row["sessions"] += 1
    row["messages"] += session["messages"]
    row["longest"] = max(row["longest"], session["seconds"])
    if phase in row:
        row[phase] += 1
    if phase in (_CLIENT_WAITS if "client" in row else _SERVER_WAITS):
        row["wait"] = max(row["wait"], session["phase_seconds"])


def _client(text: str) -> str:
    """The client of an address with a port, as `sessions` shows it."""
    if text == "unix":
        return text
    return _client_of_ip(text.rpartition(":")[0].strip("[]"))


def _client_of_ip(ip: str) -> str:
    try:
        return client_of_address(ip) or ip or "unix"
    except ValueError:  # the checksum is right, so another version wrote this text
        return ip


_CLIENT_WAITS = frozenset({"waiting"})
_SERVER_WAITS = frozenset({"connecting", "greeting", "reply", "sending", "final"})
_CLASS = {b"2": "2xx", b"4": "4xx", b"5": "5xx"}
