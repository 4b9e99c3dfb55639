"""proxsmtp-tp sessions, with a daemon whose answers are given."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.cli import daemon as asking
from proxsmtp_tp.cli import main as cli
from proxsmtp_tp.cli.sessions import describe
from proxsmtp_tp.service import control

if TYPE_CHECKING:
    from pathlib import Path

ONE = {
    "id": "01JD8Q3K7C2VA",
    "client": "192.0.2.7:4711",
    "server": "198.51.100.25",
    "phase": "waiting",
    "phase_seconds": 75.2,
    "seconds": 3700.0,
    "helo": "c.example",
    "messages": 2,
    "from": "a@c.example",
    "recipients": 3,
    "to": "b@mx.example",
    "client_tls": "TLSv1.2",
    "server_tls": "TLSv1.3/verified",
}
EARLY = {**ONE, "id": "2", "server": "", "phase": "connecting", "helo": "", "from": None, "recipients": 0, "to": ""}
del EARLY["client_tls"]  # a daemon before 2.1
EARLY["server_tls"] = None


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    requests: list[dict[str, Any]] = []

    def ask(_path: Path, command: str, **fields: Any) -> dict[str, Any]:
        requests.append({"command": command, **fields})
        return {"total": 5, "sessions": [ONE, EARLY]}

    monkeypatch.setattr(asking, "status_socket", lambda _args: tmp_path / "a.sock")
    monkeypatch.setattr(control, "ask", ask)
    return requests


def test_what_is_asked_and_shown(asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sessions"]) == 0
    assert capsys.readouterr().out == (
        "5 sessions, longest in its phase first\n"
        "01JD8Q3K7C2VA  waiting for 1 min 15 s, connected for 1 h 1 min, messages 2\n"
        "    192.0.2.7:4711 (c.example) -> 198.51.100.25\n"
        "    TLS: client TLSv1.2, server TLSv1.3/verified\n"
        "    from a@c.example to b@mx.example and 2 more\n"
        "2  connecting for 1 min 15 s, connected for 1 h 1 min, messages 2\n"
        "    192.0.2.7:4711 (no EHLO yet) -> no server yet\n"
        "and 3 more\n"
    )
    assert cli.main(["sessions", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sessions"][0] == ONE
    assert cli.main(["sessions", "kill", "2"]) == 0
    assert asked == [{"command": "sessions"}] * 2 + [{"command": "kill-session", "id": "2"}]


@pytest.mark.parametrize("arguments", [["kill"], ["list", "x"]])
def test_usage(arguments: list[str], asked: list[dict[str, Any]]) -> None:
    assert cli.main(["sessions", *arguments]) == 2
    assert asked == []


def test_nothing_of_a_peer_controls_the_terminal() -> None:
    shown = describe({"total": 1, "sessions": [{**ONE, "helo": "\x1b[2J", "from": "a\r\nb\x9b", "to": "\u202e"}]})
    assert all(line.isprintable() for line in shown.split("\n"))
    assert len(shown.split("\n")) == 5


def test_a_client_that_has_rejected_our_certificate() -> None:
    passed = {**EARLY, "phase": "passing", "passed_by": "terminate, TlsRejected: pass", "tls_rejected": True}
    assert describe({"total": 1, "sessions": [passed]}).splitlines()[3:] == [
        "    TLS passes, not judged (Tls: terminate, TlsRejected: pass)",
        "    the client has rejected the gateway's certificate: see status (TlsRejected)",
    ]


def test_no_session() -> None:
    assert describe({"total": 0, "sessions": []}) == "no session"
