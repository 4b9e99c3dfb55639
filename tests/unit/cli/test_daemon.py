"""Commands that ask a running daemon: which instance is asked, and what is said where none answers."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.cli import instances
from proxsmtp_tp.cli.daemon import NoAnswerError, NoDaemonError, ask_daemon, complain, status_socket
from proxsmtp_tp.service import control, status

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """The status sockets that are found; no configuration is in /etc/proxsmtp-tp."""
    found: list[Path] = []
    monkeypatch.setattr(status, "find_sockets", lambda: found)
    monkeypatch.setattr(instances, "DIRECTORY", tmp_path)
    return found


def options(instance: str | None = None, file: str | None = None) -> argparse.Namespace:
    return argparse.Namespace(file=file, instance=instance)


def test_the_only_one_that_runs(running: list[Path], tmp_path: Path) -> None:
    running.append(tmp_path / "north.sock")
    assert status_socket(options()) == status_socket(options("north")) == tmp_path / "north.sock"
    with pytest.raises(NoDaemonError, match="no instance south runs: `systemctl start proxsmtp-tp@south`"):
        status_socket(options("south"))


def test_none_runs(running: list[Path]) -> None:
    assert not running
    with pytest.raises(NoDaemonError, match="no instance runs: `systemctl start proxsmtp-tp@NAME`"):
        status_socket(options())


def test_of_several_one_is_named(running: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    running += [tmp_path / "south.sock", tmp_path / "north" / "socket"]
    with pytest.raises(NoAnswerError) as error:
        status_socket(options())
    assert complain(error.value) == 2
    assert capsys.readouterr().err == "several instances run: add --instance NAME, one of north, south\n"
    assert status_socket(options("north")) == running[1]
    (tmp_path / "south.conf").write_text("OutAddress: 127.0.0.1:25\n")
    assert status_socket(options()) == status_socket(options(file=str(tmp_path / "south.conf"))) == running[0]
    (tmp_path / "north.conf").write_text("OutAddress: 127.0.0.1:25\n")
    with pytest.raises(NoAnswerError, match="choose one with --instance NAME: north, south") as error:
        status_socket(options())
    assert error.value.code == 2


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (control.ControlError("no such client"), NoAnswerError, "^no such client$"),
        (PermissionError(13, "denied"), NoAnswerError, "try again with sudo"),
        (FileNotFoundError(2, "gone"), NoDaemonError, "no daemon listens at .*it was killed, or is older"),
        (ConnectionRefusedError(111, "refused"), NoDaemonError, "no daemon listens at"),
        (TimeoutError("timed out"), NoAnswerError, "the daemon does not answer at .*timed out"),
    ],
)
def test_a_daemon_that_does_not_answer(
    running: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    error: Exception, kind: type[NoAnswerError], said: str,
) -> None:  # fmt: skip
    def ask(_path: Path, _command: str, **_fields: Any) -> dict[str, Any]:
        raise error

    running.append(tmp_path / "north.sock")
    monkeypatch.setattr(control, "ask", ask)
    with pytest.raises(NoAnswerError, match=said) as raised:
        ask_daemon(options(), "sessions")
    assert (type(raised.value), raised.value.code) == (kind, 1)
