"""install-service: which units that run take up another version, configuration or rules, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.cli.service_apply import Action, actions, why_restart
from proxsmtp_tp.config.settings import RuleMode, Settings
from proxsmtp_tp.gateway import check, state
from proxsmtp_tp.gateway.check import Finding
from proxsmtp_tp.gateway.errors import GatewayError
from proxsmtp_tp.service import status
from proxsmtp_tp.service.version import VERSION

if TYPE_CHECKING:
    from pathlib import Path

DAEMON, RULES = "proxsmtp-tp@gateway.service", "proxsmtp-tp-rules@gateway.service"
SAME = {"version": VERSION, "configuration": {"file_state": "same", "needs_restart": []}}


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"version": "2.1.0", "configuration": {"needs_restart": []}}, ""),
        ({"version": "2.1.0", "configuration": {}}, ""),
        ({"version": "2.1.0", "configuration": None}, ""),
        ({"version": "2.0.0"}, "it runs version 2.0.0, and 2.1.0 is installed"),
        ({"version": "2.1.0", "configuration": {"needs_restart": ["User", "PidFile"]}}, "User, PidFile changed"),
    ],
)
def test_why_a_daemon_is_restarted(answer: dict[str, Any], why: str) -> None:
    assert why_restart(answer, "2.1.0") == why


class Host:
    """What runs: the daemon's answer (None: it does not run) and the state of the rules."""

    answer: dict[str, Any] | None = SAME
    finding: Finding | Exception = Finding(absent=False, differences=())

    def look(self, *_: object) -> tuple[Finding, list[str], None]:
        if isinstance(self.finding, Exception):
            raise self.finding
        return self.finding, [], None


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Host:
    made = Host()
    monkeypatch.setattr(status, "find_sockets", lambda: [tmp_path / "other.sock", tmp_path / "one.sock"])
    monkeypatch.setattr(status, "read_status", lambda path: made.answer if path.stem == "one" else {"version": "1"})
    monkeypatch.setattr(check, "look", made.look)
    monkeypatch.setattr(state, "Store", lambda: None)
    return made


def applied(mode: RuleMode = RuleMode.REDIRECT, interfaces: tuple[str, ...] = ("lan",)) -> list[Action]:
    return actions("gateway", Settings(instance="one", rule_interface=interfaces, rule_mode=mode))


def test_nothing_is_done_where_nothing_differs(host: Host) -> None:
    assert applied() == []
    host.answer = None
    assert applied() == []


def test_a_daemon_that_runs_with_another_configuration(host: Host) -> None:
    host.answer = {"version": VERSION, "configuration": {"file_state": "changed"}}
    assert applied() == [Action("reload", DAEMON, "its configuration has changed")]
    host.answer = {"version": VERSION, "configuration": {"file_state": "changed", "needs_restart": ["User"]}}
    assert applied() == [Action("restart", DAEMON, "User changed")]
    host.answer = {"version": VERSION, "configuration": None}
    assert applied() == []


@pytest.mark.parametrize(
    ("finding", "why"),
    [
        (Finding(absent=True, differences=()), "its rules are absent"),
        (Finding(absent=False, differences=("x",)), "its rules are drifted"),
        (Finding(absent=False, differences=("x",), refuses_mail=True), "its rules are refusing mail"),
        (GatewayError("nft is not installed"), "its rules cannot be compared"),
        (OSError(2, "No such file"), "its rules cannot be compared"),
    ],
)
def test_rules_that_differ(host: Host, finding: Finding | Exception, why: str) -> None:
    host.finding = finding
    assert applied() == [Action("reload", RULES, why)]
    assert applied(interfaces=()) == []


@pytest.mark.parametrize("mode", RuleMode)
def test_no_client_meets_rules_without_their_listener(host: Host, mode: RuleMode) -> None:
    host.answer, host.finding = {"version": "1"}, Finding(absent=True, differences=())
    units = [action.unit for action in applied(mode)]
    assert units == ([DAEMON, RULES] if mode is RuleMode.TPROXY else [RULES, DAEMON])
