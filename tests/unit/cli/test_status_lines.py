"""The status for people fits into 80 columns and shows what is not zero."""

from __future__ import annotations

import re
import time
from typing import Any

from proxsmtp_tp.cli.status_lines import activity, packets_at_rules

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


def test_outcomes_of_tls_have_a_line_where_there_are_some() -> None:
    counted = {"both terminate encrypt started": 12, "client terminate none certificate_rejected": 1, "x": 0}
    lines = list(activity({"totals": {"tls_total": counted}}))
    assert lines == [
        "TLS: both terminate encrypt started 12,",
        "    client terminate none certificate rejected 1",
    ]
    assert not list(activity({"totals": {"tls_total": {"x": 0}}}))


def test_clients_that_pass_because_they_rejected_our_certificate_have_lines() -> None:
    one = {"client": "192.0.2.10", "server": "198.51.100.25", "port": 25, "name": "mx.example", "seconds": 7200}
    other = {"client": "2001:db8:1:2::", "server": "2001:db8::25", "port": 465, "name": "", "seconds": 61}
    lines = list(activity({"tls_rejected": {"number": 2, "newest": [one, other]}}))
    assert lines == [
        "TLS passes for 2 clients and servers: the client rejected our certificate",
        "    192.0.2.10 to 198.51.100.25 port 25, name mx.example",
        "        for another 2 h",
        "    2001:db8:1:2:: to 2001:db8::25 port 465",
        "        for another 1 min 1 s",
    ]
    assert not list(activity({"tls_rejected": {"number": 0, "newest": []}}))


def test_what_an_answer_does_not_have_has_no_line() -> None:
    assert list(activity({})) == []
    quiet: dict[str, Any] = {"log": {"level": 3, "source": "-d", "left": None, "traced": []}, "last_error": None}
    assert list(activity({**quiet, "filters": {"configured": False}, "sessions": {"command": 0}})) == ["sessions: none"]


def test_packets_at_rules() -> None:
    counts = [
        {"rule": "intercepted, IPv4", "packets": 12, "octets": 720},
        {"rule": "intercepted, IPv6", "packets": 0, "octets": 0},
        {"rule": "refused: not intercepted", "packets": 0, "octets": 0},
        {"rule": "began unfiltered, IPv4", "packets": 2, "octets": 80},
    ]
    lines = list(packets_at_rules({"since": 0, "counts": counts, "unread": ""}))
    assert lines == [
        "packets at the rules: intercepted, IPv4 12; intercepted, IPv6 never;",
        "    began unfiltered, IPv4 2",
    ]
    assert list(packets_at_rules(None)) == []
    unread = {"since": 0, "counts": [], "unread": "only root (CAP_NET_ADMIN) can read them"}
    assert list(packets_at_rules(unread)) == [
        "packets at the rules: unknown, only root (CAP_NET_ADMIN) can read them",
    ]
