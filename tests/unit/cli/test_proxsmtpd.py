"""The command line of proxsmtpd 1.10: texts and exit codes as measured on the original."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.cli import proxsmtpd
from proxsmtp_tp.config.addresses import InetAddress
from proxsmtp_tp.service import launch as launching

if TYPE_CHECKING:
    from pathlib import Path

USAGE = "usage: proxsmtpd [-d debuglevel] [-f configfile] [-p pidfile]\n       proxsmtpd -v\n"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["extra"], 2, USAGE),
        (["-z"], 2, "proxsmtpd: invalid option -- 'z'\n" + USAGE),
        (["-d"], 2, "proxsmtpd: option requires an argument -- 'd'\n" + USAGE),
        (["--help"], 2, "proxsmtpd: invalid option -- '-'\n" + USAGE),
        (["-d", "x"], 1, "proxsmtpd: invalid debug log level\n"),
        (["-d", "4x"], 1, "proxsmtpd: invalid debug log level\n"),
        (["-d", "5"], 2, "proxsmtpd: invalid debug log level (must be between 1 and 4)\n"),
        (["-d", "-1"], 2, "proxsmtpd: invalid debug log level (must be between 1 and 4)\n"),
    ],
)
def test_usage(arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert proxsmtpd.main(arguments) == code
    assert capsys.readouterr().err == said


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert proxsmtpd.main(["-v"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("proxsmtpd (version ")
    assert lines[1:] == ["          (config: /etc/proxsmtpd.conf)"]


def test_every_problem_of_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "p.conf"
    path.write_text("Foo: 1\nTimeOut: x\nOutAddress: 25\n")
    assert proxsmtpd.main(["-f", str(path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"proxsmtpd: {path}:") for line in lines)


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert proxsmtpd.main(["-f", str(tmp_path / "none")]) == 2
    assert "configuration file not found" in capsys.readouterr().err
    assert proxsmtpd.main(["-f", str(tmp_path)]) == 1


@pytest.mark.parametrize(
    ("arguments", "level", "detach", "pid_file"),
    [
        ([], None, True, None),
        (["-d", "4"], 4, False, None),
        (["-d0"], 0, False, None),
        (["-d", " +2"], 2, False, None),
        (["-d", ""], 0, False, None),
        (["-p", "/run/x", "-d", "1"], 1, False, "/run/x"),
    ],
)
def test_what_the_daemon_gets(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    level: int | None,
    detach: bool,
    pid_file: str | None,
) -> None:
    path = tmp_path / "p.conf"
    path.write_text("OutAddress: 25\n")
    told: list[launching.Launch] = []

    def launch(wanted: launching.Launch) -> int:
        told.append(wanted)
        return 7

    monkeypatch.setattr(launching, "launch", launch)
    assert proxsmtpd.main([*arguments, "-f", str(path)]) == 7
    [wanted] = told
    assert wanted.configuration.settings.out_address == InetAddress("", 25)
    assert (wanted.path, wanted.name) == (str(path), "proxsmtpd")
    assert (wanted.level, wanted.detach, wanted.pid_file) == (level, detach, pid_file)
