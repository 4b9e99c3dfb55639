"""proxsmtp-tp log-level, with a daemon that is a control socket in a thread."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.cli import daemon as asking
from proxsmtp_tp.cli import main as cli
from proxsmtp_tp.cli.durations import duration, shown
from proxsmtp_tp.service import control

if TYPE_CHECKING:
    from pathlib import Path

ANSWER = {
    "level": 4,
    "source": "log-level",
    "left": 65,
    "default": 3,
    "traced": [{"network": "192.0.2.1/32", "left": 600}],
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """One instance runs, and keeps what it is asked."""
    requests: list[dict[str, Any]] = []

    def ask(_path: Path, command: str, **fields: Any) -> dict[str, Any]:
        requests.append({"command": command, **fields})
        return ANSWER

    monkeypatch.setattr(asking, "status_socket", lambda _args: tmp_path / "a.sock")
    monkeypatch.setattr(control, "ask", ask)
    return requests


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        ([], {}),
        (["4"], {"level": 4}),
        (["default"], {"level": "default"}),
        (["2", "--for", "2h"], {"level": 2, "seconds": 7200}),
        (["--trace", "192.0.2.1", "--for", "90"], {"trace": "192.0.2.1", "seconds": 90}),
        (["--no-trace", "all"], {"end_trace": "all"}),
    ],
)
def test_what_is_asked(arguments: list[str], fields: dict[str, Any], asked: list[dict[str, Any]]) -> None:
    assert cli.main(["log-level", *arguments]) == 0
    assert asked == [{"command": "log-level", **fields}]


def test_what_is_shown(asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["log-level"]) == 0
    assert capsys.readouterr().out == (
        "log level 4, everything (from log-level), for another 1 min 5 s; then 3\n"
        "tracing 192.0.2.1/32, for another 10 min\n"
    )
    assert cli.main(["log-level", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == ANSWER
    assert asked


@pytest.mark.parametrize("arguments", [["5"], ["loud"], ["4", "--for", "0"], ["4", "--for", "soon"]])
def test_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["log-level", *arguments])
    assert end.value.code == 2


@pytest.mark.parametrize(("text", "seconds"), [("30", 30), ("30s", 30), ("10m", 600), ("2H", 7200), ("1d", 86400)])
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "m", "-1", "1.5", "1 m", "10min"])
def test_no_durations(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="10m"):
        duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.6, "1 min"), (61, "1 min 1 s"), (3600, "1 h"), (90061, "1 d 1 h"), (7260, "2 h 1 min")],
)
def test_durations_shown(seconds: float, text: str) -> None:
    assert shown(seconds) == text
