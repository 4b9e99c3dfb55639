"""proxsmtp-tp doctor: what it learns of the daemon, and a configuration with errors."""

from __future__ import annotations

import json
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.cli import doctor_actions, doctor_daemon, doctor_tls
from proxsmtp_tp.cli import main as cli
from proxsmtp_tp.gateway.doctor import examination
from proxsmtp_tp.gateway.doctor.findings import Finding
from proxsmtp_tp.service.control import ControlError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def test_the_status_has_the_connections_of_each_client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clients = ["192.0.2.1:1024", "192.0.2.1:1025", "[2001:db8::1]:1024", ""]
    answers: list[Any] = [{"sessions": [{"client": client} for client in clients]}, ControlError("no")]

    def ask(path: Path, command: str, *, most: int) -> dict[str, Any]:
        assert (path, command) == (tmp_path / "north.control", "sessions")
        assert most >= len(clients)
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    monkeypatch.setattr(doctor_daemon, "find_sockets", lambda: [tmp_path / "south.sock", tmp_path / "north.sock"])
    monkeypatch.setattr(doctor_daemon, "read_status", lambda path: {"pid": 10} if path.stem == "north" else None)
    monkeypatch.setattr(doctor_daemon, "ask", ask)
    found = doctor_daemon.status_of("north")
    assert found == {"pid": 10, "clients": {"192.0.2.1": 2, "2001:db8::1": 1, "": 1}}
    assert doctor_daemon.status_of("north") == {"pid": 10, "clients": {}}
    assert doctor_daemon.status_of("south") is None
    assert doctor_daemon.status_of("east") is None


@pytest.mark.parametrize("runs", [True, False])
def test_a_configuration_with_errors_is_a_finding(
    runs: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor_actions, "status_of", lambda instance: {"instance": instance} if runs else None)
    path = tmp_path / "north.conf"
    path.write_text("OutAddress: 127.0.0.1:25\nNonsense: 1\n")
    assert cli.main(["doctor", "--json", "-f", str(path)]) == 1
    found = json.loads(capsys.readouterr().out)["findings"]
    assert [(each["step"], each["ok"]) for each in found] == [("configuration", False), ("daemon", runs)]
    assert "Nonsense" in found[0]["text"]


def test_a_configuration_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "-f", str(tmp_path / "gone.conf")]) == 2
    assert "gone.conf" in capsys.readouterr().err


def without_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the gateway is looked at, and a step may take half a second."""
    monkeypatch.setattr(examination, "setup_of", lambda *_: SimpleNamespace(step_seconds=0.5))
    monkeypatch.setattr(doctor_actions, "replace", lambda setup, **_: setup)
    monkeypatch.setattr(examination, "examine", lambda *_: [])


def test_tls_has_the_limit_of_the_other_steps(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Resolvers that are silent, each of which is asked twice, or a disk that hangs."""
    end = threading.Event()

    def hang(*_: object) -> Iterator[Finding]:
        yield Finding("certificate a.pem", ok=True, text="valid until 2027-01-01")
        end.wait()

    without_steps(monkeypatch)
    monkeypatch.setattr(doctor_tls, "examine", hang)
    path = tmp_path / "north.conf"
    path.write_text("OutAddress: 127.0.0.1:25\n")
    assert cli.main(["doctor", "--json", "-f", str(path), "--state-dir", str(tmp_path)]) == 1
    end.set()
    found = json.loads(capsys.readouterr().out)["findings"]
    assert [(each["step"], each["state"]) for each in found] == [("certificate a.pem", "ok"), ("TLS", "unseen")]


def test_the_probe_is_left_out_of_the_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The daemon is told before its sessions, and again when they are over."""
    told: list[Any] = []

    def send_probe(*_: object) -> list[Finding]:
        told.append("probe")
        return []

    monkeypatch.setattr(doctor_actions, "ask_daemon", lambda _args, *command, **fields: told.append((command, fields)))
    without_steps(monkeypatch)
    monkeypatch.setattr(examination, "send_probe", send_probe)
    path = tmp_path / "north.conf"
    path.write_text("OutAddress: 127.0.0.1:25\n")
    assert cli.main(["doctor", "--probe", "-f", str(path), "--state-dir", str(tmp_path)]) == 0
    before, probe, after = told
    assert (before[0], probe, after) == (("probe",), "probe", (("probe",), {"seconds": 1.0}))
    assert before[1]["seconds"] > examination.PROBE_SECONDS
