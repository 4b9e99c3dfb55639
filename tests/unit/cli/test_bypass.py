"""proxsmtp-tp bypass: what is asked of the daemon, and what is shown."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.cli import daemon as asking
from proxsmtp_tp.cli import main as cli
from proxsmtp_tp.cli.status import describe_printable
from proxsmtp_tp.gateway.doctor.daemon_view import look_at_bypass
from proxsmtp_tp.gateway.doctor.examination import STEPS
from proxsmtp_tp.gateway.doctor.fixes import words
from proxsmtp_tp.service import control

if TYPE_CHECKING:
    from pathlib import Path

RUNS = {"left": 1800, "until": 1_795_000_000, "reason": "broken\x1b[2J", "messages": 7}


class Asked:
    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.answer: dict[str, Any] = {"bypass": None}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Asked:
    """One instance runs, and keeps what it is asked."""
    kept = Asked()

    def ask(_path: Path, command: str, **fields: Any) -> dict[str, Any]:
        kept.requests.append({"command": command, **fields})
        return kept.answer

    monkeypatch.setattr(asking, "status_socket", lambda _args: tmp_path / "a.sock")
    monkeypatch.setattr(control, "ask", ask)
    return kept


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        ([], {}),
        (["--for", "30m", "--reason", "broken"], {"seconds": 1800, "reason": "broken"}),
        (["--end"], {"end": True}),
    ],
)
def test_what_is_asked(arguments: list[str], fields: dict[str, Any], asked: Asked) -> None:
    assert cli.main(["bypass", *arguments]) == 0
    assert asked.requests == [{"command": "bypass", **fields}]


@pytest.mark.parametrize(
    "arguments",
    [["--for", "30m"], ["--reason", "x"], ["--end", "--for", "1m", "--reason", "x"], ["--end", "--reason", "x"]],
)
def test_usage(arguments: list[str], asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bypass", *arguments]) == 2
    assert asked.requests == []
    assert "--" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        ({"bypass": None}, "no bypass: the filter judges mail"),
        ({"bypass": None, "passed": 3}, "the bypass is ended: 3 messages passed unjudged"),
        ({"bypass": RUNS, "kept": True}, "BYPASS: mail passes unjudged for another 30 min, until 2026-"),
        ({"bypass": RUNS, "kept": False}, "it cannot be kept over a restart"),
    ],
)
def test_what_is_shown(answer: dict[str, Any], shown: str, asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    asked.answer = answer
    assert cli.main(["bypass"]) == 0
    told = capsys.readouterr().out
    assert shown in told
    assert told.replace("\n", "").isprintable()
    assert cli.main(["bypass", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == answer


def test_status_shows_it() -> None:
    answer: dict[str, Any] = {
        "instance": "north", "version": "2.1.0", "pid": 10, "uptime": 1, "listen": [], "connections": 0,
        "max_connections": 64, "replaced_workers": 0, "counters": {}, "workers": [],
    }  # fmt: skip
    assert "BYPASS" not in describe_printable(answer)
    assert "BYPASS" not in describe_printable(answer | {"bypass": None})
    shown = describe_printable(answer | {"bypass": RUNS})
    assert "  BYPASS: mail passes unjudged for another 30 min" in shown
    assert shown.replace("\n", "").isprintable()


def test_doctor_calls_it_wrong_with_the_fix() -> None:
    setup = SimpleNamespace(
        status=lambda: {"bypass": RUNS}, command=lambda subcommand: words("proxsmtp-tp", subcommand, "-f", "a.conf")
    )
    (found,) = look_at_bypass(setup)  # type: ignore[arg-type]
    assert (found.wrong, found.fix) == (True, "proxsmtp-tp bypass -f a.conf --end")
    assert "mail passes unjudged" in found.text
    for status in (None, {}, {"bypass": None}):
        setup.status = lambda status=status: status
        assert list(look_at_bypass(setup)) == []  # type: ignore[arg-type]
    assert look_at_bypass in [row.look for row in STEPS]
