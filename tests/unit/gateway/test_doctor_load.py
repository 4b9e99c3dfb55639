"""doctor: what it makes of the daemon's status."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.config.settings import Settings
from proxsmtp_tp.gateway.doctor import load
from proxsmtp_tp.gateway.doctor.findings import Setup, State
from proxsmtp_tp.gateway.plan import Options, make_plan

if TYPE_CHECKING:
    from pathlib import Path

WELL: dict[str, Any] = {
    "connections": 3,
    "max_connections": 64,
    "clients": {"192.0.2.1": 3},
    "filters": {"running": 1, "limit": 4, "waiting": 0, "oldest_wait": 0.0},
    "filter": {"worked": 5.0, "failed": []},
    "workers": [{"pid": os.getpid(), "silent": 0}],
    "configuration": {"file": "/c", "file_state": "in force", "file_problems": [], "needs_restart": []},
    "log": {"syslog": False},
}


def failed(seconds: float, *, coded: bool = False) -> dict[str, Any]:
    return {"seconds": seconds, "peer": "192.0.2.1", "coded": coded, "reason": "killed by: SIGKILL"}


def wrong(answer: dict[str, Any]) -> dict[str, str]:
    """Step and text of what is wrong."""
    setup = Setup(Settings(filter_command="cat"), "/c", make_plan(Options("x")), None, status=lambda: answer)  # type: ignore[arg-type]
    return {finding.step: finding.text for finding in load.look_at_load(setup) if finding.wrong}


@pytest.mark.parametrize(
    ("changes", "step", "text"),
    [
        ({}, None, ""),
        ({"connections": 64, "clients": {}}, "connections", "64 of 64 (MaxConnections): more clients are refused"),
        ({"connections": 60, "clients": {"a": 52, "b": 8}}, "clients", "a alone has 52 of 64 connections"),
        ({"connections": 63, "clients": dict.fromkeys("abcdefg", 1)}, None, ""),
        (
            {"filters": {"running": 4, "limit": 4, "waiting": 2, "oldest_wait": 3.0}}, "filter processes",
            "4 of 4 (FilterProcesses): 2 messages wait, one for 3 s",
        ),
        ({"filters": {"running": 4, "limit": 4, "waiting": 2, "oldest_wait": 0.1}}, None, ""),
        ({"filter": {"worked": None, "failed": [failed(9)]}}, "verdicts", "9 s ago for a message of 192.0.2.1: "),
        ({"filter": {"worked": 30.0, "failed": [failed(9)]}}, "verdicts", "killed by: SIGKILL"),
        ({"filter": {"worked": 3.0, "failed": [failed(9)]}}, None, ""),
        ({"filter": {"worked": None, "failed": [failed(9, coded=True)]}}, None, ""),
        ({"filter": {"worked": None, "failed": [failed(1200)]}}, None, ""),
        ({"client_table": {"size": 64, "untracked": 0, "untracked_before": None}}, None, ""),
        ({"client_table": {"size": 64, "untracked": 9, "untracked_before": 3600}}, None, ""),
        (
            {"client_table": {"size": 64, "untracked": 9, "untracked_before": 3599}}, "client table",
            "9 connections had no limits (ClientTableSize 64), the last one 3599 s ago: set ClientTableSize: 128,",
        ),
        (
            {"client_table": {"size": load.TABLE_MAX - 8, "untracked": 9, "untracked_before": 0}}, "client table",
            f"set ClientTableSize: {load.TABLE_MAX}, and restart it",
        ),
        (
            {"client_table": {"size": load.TABLE_MAX, "untracked": 9, "untracked_before": 0}}, "client table",
            "that is the largest: lock fewer clients",
        ),
        ({"workers": []}, "workers", "none runs"),
        ({"workers": [{"pid": 1, "silent": 20}]}, "workers", "process 1 hangs"),
        (
            {"configuration": WELL["configuration"] | {"file_state": "wrong", "file_problems": ["/c:3: no"]}},
            "configuration", "what was read before is in force: /c:3: no",
        ),
        ({"configuration": WELL["configuration"] | {"file_state": "changed"}}, "configuration", "has changed"),
        ({"configuration": WELL["configuration"] | {"needs_restart": ["User"]}}, "configuration", "User changed"),
    ],
)  # fmt: skip
def test_what_is_wrong(changes: dict[str, Any], step: str | None, text: str) -> None:
    found = wrong(WELL | changes)
    assert list(found) == ([step] if step else [])
    assert text in found.get(step or "", "")


def test_a_daemon_without_an_answer_is_not_seen() -> None:
    setup = Setup(Settings(), "/c", make_plan(Options("x")), None)  # type: ignore[arg-type]
    assert [finding.state for finding in load.look_at_load(setup)] == [State.UNSEEN]


def test_a_worker_that_is_stopped() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            process.send_signal(signal.SIGSTOP)
            while load._state(process.pid) != "T":
                time.sleep(0.01)
            found = wrong(WELL | {"workers": [{"pid": process.pid, "silent": 0}]})
        finally:
            process.kill()
    assert found == {"workers": f"process {process.pid} is stopped by a signal: its clients wait"}


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_the_log_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: socket.SocketKind) -> None:
    """There, gone with its socket left behind, and gone without."""
    path = tmp_path / "log"
    monkeypatch.setattr(load, "_LOG_SOCKETS", {True: path, False: path})
    answer = WELL | {"log": {"syslog": True}}
    with closing(socket.socket(socket.AF_UNIX, kind)) as daemon:
        daemon.bind(str(path))
        if kind is socket.SOCK_STREAM:
            daemon.listen()
        assert wrong(answer) == {}
    assert f"nobody takes log lines at {path} (Connection refused)" in wrong(answer)["log"]
    path.unlink()
    assert f"nobody takes log lines at {path} (No such file" in wrong(answer)["log"]
    assert wrong(WELL) == {}  # it writes to a terminal or file
