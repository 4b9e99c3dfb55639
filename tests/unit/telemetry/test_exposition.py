"""The text for Prometheus: promtool finds nothing to say, and dashboard and alerts name only what exists."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from proxsmtp_tp.telemetry import metrics
from proxsmtp_tp.telemetry.counters import Counter
from proxsmtp_tp.telemetry.exposition import Plain, exposition, gauges_of, names
from proxsmtp_tp.telemetry.metrics import BOUNDS, Metrics
from proxsmtp_tp.telemetry.sessions import SessionPhase

MONITORING = Path(__file__).parents[3] / "monitoring"
REPORT: dict[str, Any] = {
    "version": '2.1"\\\n',
    "uptime": 5,
    "connections": 3,
    "max_connections": 64,
    "replaced_workers": 2,
    "sessions": {phase.name.lower(): 1 for phase in SessionPhase},
    "filters": {"running": 1, "limit": 4, "waiting": 2, "oldest_wait": 1.5},
    "servers_down": [{}],
    "workers": [{"phase": "running"}, {"phase": "draining"}, {"phase": "running"}],
    "loop_lag": 0.25,
    "client_table": {"size": 64, "entries": 9, "evictions": 3},
    "locks": {"active": {"rejects": 2, "administrator": 0}, "total": {"rejects": 7, "administrator": 1}},
    "configuration": {"reload": {"state": "failed"}},
}


def text() -> str:
    table = Metrics(1)
    table.begin(0)
    row = table.of(0)
    row.count(metrics.MESSAGES["filtered"], 7)
    for seconds in (0.001, 0.3, 1000.0):
        row.observe(metrics.FILTER, seconds)
    return exposition(table.totals(), dict.fromkeys(Counter, 5), gauges_of(REPORT))


def test_promtool_finds_nothing_to_say() -> None:
    done = subprocess.run(["promtool", "check", "metrics"], input=text(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_histogram_is_cumulative() -> None:
    lines = dict(line.rsplit(" ", 1) for line in text().splitlines() if line.startswith("proxsmtp_filter_seconds"))
    buckets = [int(lines[f'proxsmtp_filter_seconds_bucket{{le="{bound:g}"}}']) for bound in BOUNDS]
    assert buckets == [1, 1, 1, *[2] * 9]
    assert lines['proxsmtp_filter_seconds_bucket{le="+Inf"}'] == lines["proxsmtp_filter_seconds_count"] == "3"
    assert float(lines["proxsmtp_filter_seconds_sum"]) == pytest.approx(1000.301)


@pytest.mark.parametrize(
    "line",
    [
        'proxsmtp_messages_total{status="filtered"} 7',
        'proxsmtp_build_info{version="2.1\\"\\\\\\n"} 1',
        'proxsmtp_replies_total{side="client",class="2xx"} 0',
        "proxsmtp_duplicate_risk_total 5",
        'proxsmtp_limit_hits_total{limit="messages",action="defer"} 5',
        'proxsmtp_limit_hits_total{limit="connection_rate",action="close"} 5',
        'proxsmtp_limit_hits_total{limit="locked",action="lock"} 5',
        'proxsmtp_shadow_hits_total{limit="messages"} 5',
        "proxsmtp_loop_lag_seconds_max 0.25",
        "proxsmtp_client_table_entries 9",
        "proxsmtp_client_table_evictions_total 3",
        "proxsmtp_client_table_untracked_total 5",
        'proxsmtp_locks_active{reason="rejects"} 2',
        'proxsmtp_locks_total{reason="administrator"} 1',
        'proxsmtp_server_refusals_total{why="recipient"} 0',
        'proxsmtp_connections_total{result="locked"} 0',
        "proxsmtp_log_lines_suppressed_total 5",
        "proxsmtp_workers 2",
        "proxsmtp_worker_restarts_total 2",
        "proxsmtp_filter_oldest_wait_seconds 1.5",
        "proxsmtp_reload_failed 1",
        'proxsmtp_sessions{phase="waiting"} 1',
    ],
)
def test_lines(line: str) -> None:
    assert line in text().splitlines()


def test_every_series_is_listed_and_each_metric_has_a_type_and_a_help() -> None:
    series = {re.match(r"\w+", line)[0] for line in text().splitlines() if not line.startswith("#")}  # type: ignore[index]
    assert series == names(gauges_of(REPORT))
    assert text().count("# HELP ") == text().count("# TYPE ") == len(set(re.findall(r"# TYPE (\w+)", text())))


def test_the_alerts_are_valid_and_name_only_what_exists() -> None:
    path = MONITORING / "alerts.yml"
    done = subprocess.run(["promtool", "check", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(re.findall(r"proxsmtp_\w+", path.read_text())) <= names(gauges_of(REPORT))


def test_the_dashboard_names_only_what_exists() -> None:
    dashboard = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    named = set(re.findall(r"proxsmtp_\w+", " ".join(expressions)))
    assert named <= names(gauges_of(REPORT))
    assert {f"proxsmtp_{family.name}" for family in metrics.FAMILIES if family.histogram} <= {
        name.removesuffix("_bucket") for name in named
    }


def test_a_value_that_is_no_whole_number() -> None:
    shown = exposition(Metrics(1).totals(), {}, [Plain("x", "gauge", "X.", [({"a": "b"}, 0.25)])])
    assert 'proxsmtp_x{a="b"} 0.25' in shown


def test_every_name_that_was_planned_is_there() -> None:
    """The list of the design, without overload_state and refused_copies_bytes, which have nothing to measure yet."""
    wanted = """
        connections_total connections_open connections_limit messages_total replies_total recipients_total
        message_bytes_total filter_verdicts_total filter_running filter_waiting limit_hits_total shadow_hits_total
        locks_active locks_total client_table_entries client_table_evictions_total client_table_untracked_total
        server_refusals_total duplicate_risk_total events_lost_total log_lines_suppressed_total worker_restarts_total
        loop_lag_seconds_max build_info filter_wait_seconds_bucket filter_seconds_bucket server_connect_seconds_bucket
        server_final_seconds_bucket dot_to_reply_seconds_bucket
    """
    assert {f"proxsmtp_{name}" for name in wanted.split()} <= names(gauges_of(REPORT))
