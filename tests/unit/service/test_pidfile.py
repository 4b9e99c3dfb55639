"""The pid file: of a live daemon, and of nobody else."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.service.pidfile import PidFile, PidFileError
from tests.unit.service.conftest import eventually

if TYPE_CHECKING:
    from pathlib import Path


def test_a_pid_file_is_written_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text("99999999 of a daemon that was killed\n")
    pid_file = PidFile(str(path))
    pid_file.write()
    assert path.read_text() == f"{os.getpid()}\n"
    pid_file.remove()
    assert not path.exists()
    pid_file.remove()


def test_no_pid_file_is_asked_for() -> None:
    pid_file = PidFile(None)
    pid_file.write()
    pid_file.remove()


def test_a_pid_file_that_cannot_be_had_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    pid_file = PidFile("/nowhere/pid")
    pid_file.write()
    assert "couldn't open pid file: /nowhere/pid: No such file or directory" in caplog.text


def test_a_pid_file_follows_no_link(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("soft", "hard"):
        (tmp_path / f"precious-{name}").write_text("mail")
    (tmp_path / "soft").symlink_to(tmp_path / "precious-soft")
    (tmp_path / "hard").hardlink_to(tmp_path / "precious-hard")
    for name in ("soft", "hard"):
        pid_file = PidFile(str(tmp_path / name))
        pid_file.write()
        pid_file.remove()
        assert (tmp_path / f"precious-{name}").read_text() == "mail"
    assert caplog.text.count("couldn't open pid file") == 2


def test_the_pid_file_of_a_live_daemon_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    code = "import sys; from proxsmtp_tp.service.pidfile import PidFile\np = PidFile(sys.argv[1]); p.write(); input()"
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE) as other:
        try:
            eventually(lambda: path.exists() and path.read_text() == f"{other.pid}\n")
            with pytest.raises(PidFileError, match=f"the daemon {other.pid} runs"):
                PidFile(str(path))
        finally:
            other.kill()
    assert path.read_text() == f"{other.pid}\n"
    PidFile(str(path)).remove()  # a killed daemon holds nothing


def test_a_pid_file_that_became_anothers_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    pid_file = PidFile(str(path))
    path.unlink()
    path.write_text("another's\n")
    pid_file.remove()
    assert path.read_text() == "another's\n"
