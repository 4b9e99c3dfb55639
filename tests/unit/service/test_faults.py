"""Each fault of a status is one line with its fix; what is fine has none."""

from __future__ import annotations

from typing import Any

import pytest

from proxsmtp_tp.service.faults import faults

FILE: dict[str, Any] = {
    "file": "/srv/the north.conf",
    "file_state": "in force",
    "reload": {"state": "done"},
    "needs_restart": [],
}
FINE: dict[str, Any] = {
    "instance": "north",
    "configuration": FILE,
    "connections": 63,
    "max_connections": 64,
    "workers": [{"phase": "running"}, {"phase": "draining"}],
    "filters": {"configured": True, "running": 64, "limit": 64, "waiting": 9, "oldest_wait": 9.9},
    "servers_down": [],
    "rules": {"state": "in place"},
}


def test_what_is_fine() -> None:
    assert faults(FINE) == []
    assert faults({}) == []


@pytest.mark.parametrize(
    ("changes", "what", "fix"),
    [
        ({"connections": 64}, "all 64 connections are taken", "raise MaxConnections"),
        ({"filters": {**FINE["filters"], "oldest_wait": 10.0}}, "9 messages wait", "raise FilterProcesses"),
        ({"workers": [{"phase": "starting"}]}, "no worker accepts", "journalctl -u proxsmtp-tp@north"),
        ({"workers": [], "stopping": True}, "the daemon stops", "journalctl"),
        ({"rules": {"state": "absent"}}, "not in place", "`proxsmtp-tp install-rules -f '/srv/the north.conf'`"),
        ({"rules": {"state": "drifted"}}, "differ", "install-rules -f '/srv/the north.conf'`"),
        ({"rules": {"state": "absent"}, "configuration": None}, "not in place", "install-rules --instance north`"),
        ({"rules": {"state": "refusing mail"}}, "refuse all mail", "check-rules -f '/srv/the north.conf'`"),
        ({"configuration": {**FILE, "file_state": "wrong"}}, "is wrong", "check-config -f '/srv/the north.conf'`"),
        ({"configuration": {**FILE, "file_state": "changed"}}, "has changed", "reload -f '/srv/the north.conf'`"),
        ({"configuration": {**FILE, "reload": {"state": "failed"}}}, "reload failed", "`proxsmtp-tp reload -f "),
        ({"configuration": {**FILE, "needs_restart": ["Workers", "User"]}}, "Workers, User changed", "needs a restart"),
        (
            {"servers_down": [{"server": "192.0.2.1:25", "seconds": 40, "failures": 3}]},
            "192.0.2.1:25 cannot be reached for 40 s (3 connections)",
            "has a route",
        ),
    ],
)
def test_what_is_wrong(changes: dict[str, Any], what: str, fix: str) -> None:
    [line] = faults({**FINE, **changes})
    assert what in line
    assert fix in line
    assert "\n" not in line
