"""The status for people fits into 80 columns and shows what is not zero."""

from __future__ import annotations

import re
import time
from typing import Any

from proxsmtp_tp.cli.status_lines import activity

ANSWER: dict[str, Any] = {
    "sessions": {"connecting": 0, "command": 3, "waiting": 2, "filter": 64},
    "filters": {"configured": True, "running": 64, "limit": 64, "waiting": 2, "oldest_wait": 75.0},
    "totals": {
        "connections_total": {"accepted": 100, "no_server": 2, "full": 0},
        "messages_total": {f"status {number}": 1_000_000 + number for number in range(12)},
        "closed_total": {"server_lost": 0},
    },
    "log": {"level": 4, "source": "log-level", "left": 300, "default": 3, "traced": [{"network": "192.0.2.1/32"}]},
}


def test_what_is_shown() -> None:
    lines = list(activity({**ANSWER, "last_error": {"time": time.time() - 61, "text": "x" * 500}}))
    assert lines[0] == "sessions: command 3, waiting 2, filter 64"
    assert lines[1] == "filters 64 of 64, 2 waiting, the oldest for 1 min 15 s"
    assert lines[2] == "connections since start: accepted 100, no server 2"
    assert lines[-3] == "closed with 421: none"
    assert lines[-2] == "log level 4 for another 5 min, tracing 192.0.2.1/32"
    assert re.match(r"last error, 1 min \d+ s ago: xxx", lines[-1])
    counts = lines[3:-3]
    assert all(len(line) <= 78 for line in counts)
    assert " ".join(line.strip() for line in counts).count("status") == 12


def test_what_an_answer_does_not_have_has_no_line() -> None:
    assert list(activity({})) == []
    quiet: dict[str, Any] = {"log": {"level": 3, "source": "-d", "left": None, "traced": []}, "last_error": None}
    assert list(activity({**quiet, "filters": {"configured": False}, "sessions": {"command": 0}})) == ["sessions: none"]
