"""Checks what the daemon's status tells: connections, places of filters, failures of the filter, workers, the log.

If the daemon does not answer, none of this can be checked; the steps of `listeners` find out why.
"""

from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.gateway.doctor.findings import Finding, Setup, unseen
from proxsmtp_tp.gateway.doctor.fixes import NONE, fix

if TYPE_CHECKING:
    from collections.abc import Iterator

RECENT = 600.0
"""Seconds: a failure in the last ten minutes may be the reason why mail waits now, because clients try again later."""
WAITS_LONG = 2.0
"""Seconds that a message may wait for a place. A place that becomes free is taken within milliseconds."""
SILENT = 15
"""Seconds: a worker sends a pulse every five; the master kills one that is silent for a minute."""
_HOUR = 3600
"""Seconds: the table may be full only at the busiest time of the day."""
TABLE_MAX = 1 << 22
"""The largest ClientTableSize."""
_SHARE = 4  # net.admission: how many times the free connections a client may have
_LOG_SOCKETS = {True: Path("/dev/log"), False: Path("/run/systemd/journal/stdout")}  # by whether it logs to syslog(3)
_SHOWN = 3


def look_at_load(setup: Setup) -> Iterator[Finding]:
    """Checks that there are free connections and places for filters, that filters judge, and that workers work."""
    answer = setup.status()
    if answer is None:
        yield unseen("status", "the daemon does not tell its status")
        return
    yield _connections(answer)
    yield from _clients(answer)
    yield from _client_table(answer)
    if setup.settings.filter_command or setup.settings.filter:
        yield from _filter(answer)
    yield from _workers(setup, answer)
    yield from _minting(answer)
    yield from _configuration(setup, answer)
    yield from _log(setup, answer)


def _connections(answer: dict[str, Any]) -> Finding:
    used, limit = answer["connections"], answer["max_connections"]
    text = f"{used} of {limit} (MaxConnections)"
    if used >= limit:
        return Finding("connections", False, f"{text}: more clients are refused; who has them: proxsmtp-tp sessions")
    return Finding("connections", True, text)


def _clients(answer: dict[str, Any]) -> Iterator[Finding]:
    """Whether one client has so many connections that the daemon refuses it more (`net.admission`, SHARE)."""
    free = max(0, answer["max_connections"] - answer["connections"])
    for client, number in sorted((answer.get("clients") or {}).items()):
        if number > 1 and number >= _SHARE * free:
            text = f"{client} alone has {number} of {answer['max_connections']} connections: it gets no more"
            yield Finding(
                "clients", False, f"{text}; ClientConnections limits a client, RuleExceptSource leaves it out"
            )


def _client_table(answer: dict[str, Any]) -> Iterator[Finding]:
    """Whether clients found no space in the table of clients, so that their limits were not checked."""
    table = answer.get("client_table") or {}
    before = table.get("untracked_before")
    if before is None:
        return
    size = table["size"]
    text = f"{table['untracked']} connections had no limits (ClientTableSize {size}), the last one {before} s ago"
    if before >= _HOUR:
        yield Finding("client table", True, text)
    elif size < TABLE_MAX:
        yield Finding("client table", False, f"{text}: set ClientTableSize: {min(2 * size, TABLE_MAX)}, and restart it")
    else:
        yield Finding("client table", False, f"{text}, and that is the largest: lock fewer clients, or in the firewall")


def _filter(answer: dict[str, Any]) -> Iterator[Finding]:
    places, known = answer["filters"], answer["filter"]
    text = f"{places['running']} of {places['limit']} (FilterProcesses)"
    if places["waiting"] and places["oldest_wait"] >= WAITS_LONG:
        more = f"{places['waiting']} messages wait, one for {places['oldest_wait']:.0f} s: the filter is too slow"
        yield Finding("filter processes", False, f"{text}: {more}, or too few may run")
    else:
        yield Finding("filter processes", True, text)
    worked = known.get("worked")
    failures = [item for item in known.get("failed", []) if not item["coded"] and item["seconds"] < RECENT]
    if not failures:
        yield Finding("verdicts", True, "no message met a filter that failed in the last 10 minutes")
        return
    last = failures[0]
    whose = last["peer"] or "this host"
    text = f"the filter failed {last['seconds']:.0f} s ago for a message of {whose}: {last['reason']}"
    recovered = worked is not None and worked < last["seconds"]
    yield Finding("verdicts", recovered, text + ("; it has passed messages since then" if recovered else ""))


def _workers(setup: Setup, answer: dict[str, Any]) -> Iterator[Finding]:
    stopped = [str(worker["pid"]) for worker in answer["workers"] if _state(worker["pid"]) in {"T", "t"}]
    silent = [str(worker["pid"]) for worker in answer["workers"] if worker.get("silent", 0) >= SILENT]
    if stopped:
        text = f"process {', '.join(stopped)} is stopped by a signal: its clients wait"
        yield Finding("workers", False, text, fix("worker is stopped", pids=stopped))
    elif silent:
        text = f"process {', '.join(silent)} hangs: the master replaces it within a minute"
        yield Finding("workers", False, text, fix("worker hangs", pids=silent))
    elif not answer["workers"]:
        yield Finding("workers", False, "none runs", fix("no worker", restart=setup.restart))
    else:
        yield Finding("workers", True, f"{len(answer['workers'])} run")


def _minting(answer: dict[str, Any]) -> Iterator[Finding]:
    """Whether the process that makes certificates runs: without it no client has TLS with a new server."""
    if "minting" not in answer:
        return
    pid = answer["minting"]
    if pid is None:
        yield Finding("minting process", False, "it has ended, and is started again: the log says why")
    elif _state(pid) in {"T", "t"}:
        text = f"process {pid} is stopped by a signal: TLS with clients fails"
        yield Finding("minting process", False, text, fix("minting process is stopped", pid=pid))
    else:
        yield Finding("minting process", True, f"process {pid} runs")


def _state(pid: int) -> str:
    """The state of a process, one letter (proc(5), stat)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _configuration(setup: Setup, answer: dict[str, Any]) -> Iterator[Finding]:
    known = answer.get("configuration") or {}
    if known.get("file_state") == "wrong":
        problem = next(iter(known["file_problems"]), known["file"])
        yield Finding("configuration", False, f"the file is wrong, what was read before is in force: {problem}")
    elif known.get("needs_restart"):
        text = f"{', '.join(known['needs_restart'])} changed in the file, which needs a restart"
        yield Finding("configuration", False, text, fix("restart is due", restart=setup.restart))
    elif known.get("file_state") == "changed":
        text = "the file has changed since the daemon read it"
        yield Finding("configuration", False, text, fix("file has changed", reload=setup.reload))
    elif known:
        yield Finding("configuration", True, "what the file says is in force")


def _log(setup: Setup, answer: dict[str, Any]) -> Iterator[Finding]:
    """Whether a log daemon takes the lines. A daemon that logs to a file or terminal needs none."""
    syslog = bool((answer.get("log") or {}).get("syslog"))
    if not syslog and setup.unit is None:
        return
    path = _LOG_SOCKETS[syslog]
    problems = [_refusal(path, kind) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)]
    if all(problems):
        text = f"nobody takes log lines at {path} ({problems[0]}): they are kept for a while, then lost"
        name = "systemd-journald" if not syslog else "rsyslog"
        command = fix("nobody takes log lines", service=name) if setup.unit is not None else NONE
        yield Finding("log", False, text, command)
    else:
        yield Finding("log", True, f"lines are taken at {path}")


def _refusal(path: Path, kind: socket.SocketKind) -> str:
    """Why nothing can be sent to a socket; empty: it can."""
    try:
        with closing(socket.socket(socket.AF_UNIX, kind)) as trial:
            trial.settimeout(1.0)
            trial.connect(str(path))
    except OSError as error:
        return error.strerror or str(error)
    return ""
