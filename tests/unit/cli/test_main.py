"""proxsmtp-tp: its subcommands, check-config, status and serve."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import shutil
import subprocess
import sys
import time
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import pytest

from proxsmtp_tp import cli as package
from proxsmtp_tp.cli import main as cli
from proxsmtp_tp.cli import status as status_command
from proxsmtp_tp.cli.check_config import show
from proxsmtp_tp.cli.status import describe, describe_printable, duration
from proxsmtp_tp.config.directives.table import DIRECTIVES
from proxsmtp_tp.config.reader import parse_config
from proxsmtp_tp.service import launch as launching
from proxsmtp_tp.service import status as sockets
from proxsmtp_tp.service.status import StatusSocket
from proxsmtp_tp.service.version import BUILD, VERSION

ROOT = Path(__file__).parents[3]

ANSWER: dict[str, Any] = {
    "instance": "north",
    "version": "2.0.0",
    "pid": 10,
    "uptime": 90061,
    "listen": ["0.0.0.0:10025", "[::]:10025"],
    "connections": 3,
    "max_connections": 64,
    "replaced_workers": 1,
    "counters": {"possible_duplicates": 2},
    "workers": [{"pid": 11, "phase": "running", "uptime": 61, "connections": 3}],
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "north.conf"
    path.write_text("OutAddress: 127.0.0.1:25\nListen: 127.0.0.1:10025\n")
    return path


def test_only_the_module_of_the_subcommand_is_imported(config: Path) -> None:
    code = (
        "import sys; from proxsmtp_tp.cli.main import main\n"
        f"code = main(['check-config', '--changed', '-f', {str(config)!r}])\n"
        "heavy = {'asyncio', 'uvloop', 'pyroute2', 'aiosmtpd', 'ctypes', 'socket'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"Listen: 127.0.0.1:10025\nOutAddress: 127.0.0.1:25\n")
    assert done.stderr == b""


@pytest.mark.parametrize("subcommand", cli.SUBCOMMANDS)
def test_every_subcommand_has_a_module_that_registers_it(subcommand: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([subcommand, "--help"])
    assert end.value.code == 0
    assert f"usage: proxsmtp-tp {subcommand}" in capsys.readouterr().out


def test_every_module_with_subcommands_is_in_the_table() -> None:
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    found = {name for name in names if hasattr(importlib.import_module(f"{package.__name__}.{name}"), "register")}
    assert found == {module for module, _ in cli.SUBCOMMANDS.values()}


def test_help_lists_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--help"])
    assert end.value.code == 0
    listed = capsys.readouterr().out
    assert all(f"\n    {subcommand}" in listed for subcommand in cli.SUBCOMMANDS)


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["check-config", "--nonsense"], ["serve", "-d", "5"]])
def test_usage_is_exit_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert "usage: proxsmtp-tp" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"proxsmtp-tp {VERSION} ({BUILD})\n"


def test_a_compiled_build_can_run_its_sources(tmp_path: Path) -> None:
    """PROXSMTP_TP_PURE: an extension module beside a module is not found. This one could not be loaded at all."""
    shutil.copytree(ROOT / "proxsmtp_tp", tmp_path / "proxsmtp_tp")
    (tmp_path / "proxsmtp_tp/smtp" / f"buffers{EXTENSION_SUFFIXES[0]}").touch()
    command = [sys.executable, "-c", "from proxsmtp_tp.cli.main import main; main()", "--version"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)}
    extension = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "ImportError" in extension.stderr
    pure = subprocess.run(command, cwd=tmp_path, env={**environment, "PROXSMTP_TP_PURE": "1"}, capture_output=True,
        text=True, check=True)  # fmt: skip
    assert pure.stdout.endswith(" (pure)\n")


def test_an_interrupt_ends_without_a_traceback(monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    def interrupt(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("proxsmtp_tp.cli.check_config"), "run", interrupt)
    assert cli.main(["check-config", "-f", str(config)]) == 130


# check-config.


def test_a_file_that_is_fine(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check-config", "-f", str(config)]) == 0
    said, complaint = capsys.readouterr()
    assert complaint == ""
    assert said.splitlines() == [
        f"{config}: ok",
        "  instance north, user as started",
        "  listens on 127.0.0.1:10025 for everybody, at most 64 connections",
        "  mail goes to 127.0.0.1:25",
        "  filter: none, all mail passes",
        "  TLS: STARTTLS is removed, mail is in clear: there is no Tls line",
        "  rules: none (RuleInterface)",
    ]


FULL = """\
TransparentProxy: full
RuleInterface: a, b
RulePort: 25, 587
RuleLocal: on
RuleFail: open
User: me
FilterCommand: x y
Clients: 192.0.2.0/24
"""


@pytest.mark.parametrize(
    ("directives", "lines"),
    [
        (
            FULL,
            [
                "instance north, user me",
                "listens on port 10025, all addresses for 192.0.2.0/24, at most 64 connections",
                "mail goes to the server that the client connected to, from the client's own address",
                "rules: nftables, redirect port 25, 587 from interface a, interface b, this host to 10025; while the",
                "daemon is down, mail passes unfiltered (RuleFail open)",
            ],
        ),
        ("TransparentProxy: on", ["mail goes to the server that the client connected to, from this host's address"]),
        ("OutAddress: 26", ["mail goes to port 26 of the client's own address"]),
        ("OutAddress: mx.example\nFilterType: reject", ["filter: all messages are refused: 530 Email Rejected"]),
        ("OutAddress: /run/x\nFilterCommand: cat", ["mail goes to /run/x"]),
        (
            "OutAddress: 26\nFilterCommand: cat",
            ["filter: cat (pipe, within 30 s, at most 64 at once, run directly, without a shell)"],
        ),
        (
            "OutAddress: 26\nFilterType: file\nFilterCommand: clean; true",
            ["filter: clean; true (file, within 30 s, at most 64 at once, run by /bin/sh, because of the character ;)"],
        ),
        ("OutAddress: 26\nFilterType: smtp\nFilterCommand: 26", ["filter: 26 (smtp, within 30 s, at most 64 at once)"]),
        (
            "OutAddress: 26\nFilter: a pipe cat\nFilter: b worker w memory=64M",
            [
                (
                    "filter: a pipe cat (run directly, without a shell); then"
                    " b worker w memory=67108864 (run by /bin/sh, because memory= is set by its ulimit)"
                )
            ],
        ),
        (
            "OutAddress: 26\nFilter: c worker w -x\nFilter: d file echo\nFilter: e milter /run/m",
            [
                (
                    "filter: c worker w -x (run directly, without a shell); then"
                    " d file echo (run by /bin/sh, because echo is a command of the shell itself); then e milter /run/m"
                )
            ],
        ),
        ("OutAddress: 26\nRuleInterface: a", ["mail is refused (RuleFail closed)"]),
    ],
)
def test_what_is_in_force(config: Path, capsys: pytest.CaptureFixture[str], directives: str, lines: list[str]) -> None:
    config.write_text(f"{directives}\n")
    assert cli.main(["check-config", "-f", str(config)]) == 0
    said = capsys.readouterr().out
    assert all(line in said for line in lines), said


def test_what_is_changed(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def changed(text: str) -> list[str]:
        config.write_text(text)
        assert cli.main(["check-config", "-f", str(config), "--changed"]) == 0
        return capsys.readouterr().out.splitlines()

    assert changed("OutAddress: 26\nMaxConnections: 64\nTimeOut: 5\nInstance: north\n") == [
        "OutAddress: 26",
        "TimeOut: 5",
    ]
    assert changed("OutAddress: 26\nInstance: other\n") == ["OutAddress: 26", "Instance: other"]
    with pytest.raises(SystemExit):
        cli.main(["check-config", "--show", "--changed"])


@pytest.mark.parametrize(
    ("directives", "warned"),
    [
        ("OutAddress: 127.0.0.1:25", "warning: Listen: everybody who reaches this host can send mail to 127.0.0.1:25"),
        ("OutAddress: mx.example\nListen: [::]:25", "warning: Listen: everybody"),
        ("OutAddress: mx.example\nListen: 127.0.0.1:1, 0.0.0.0:2", "warning: Listen: everybody"),
        ("OutAddress: mx.example\nClients: 192.0.2.0/24", ""),
        ("OutAddress: mx.example\nListen: 192.0.2.1:25, /run/x", ""),
        ("OutAddress: 26\nClients: 192.0.2.0/24", ""),
        ("TransparentProxy: client", "warning: Filter: there is no filter, and no FilterCommand"),
        ("TransparentProxy: full\nFilterType: reject", ""),
        ("TransparentProxy: full\nFilterCommand: cat", ""),
    ],
)
def test_what_is_probably_not_meant(
    config: Path, capsys: pytest.CaptureFixture[str], directives: str, warned: str
) -> None:
    config.write_text(f"{directives}\n")
    assert cli.main(["check-config", "-f", str(config)]) == 0
    said = capsys.readouterr().err
    assert warned in said
    assert len(said.splitlines()) == bool(warned)


def test_every_problem_with_its_line(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text("OutAddress: 127.0.0.1:25\nFoo: 1\n\nListen: 0\n")
    assert cli.main(["check-config", "-f", str(config)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines] == [f"{config}:2:", f"{config}:4:"]


def test_a_file_that_is_not_there_is_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check-config", "-f", str(tmp_path / "none")]) == 2
    assert cli.main(["check-config", "-f", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_warnings_are_no_errors(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text("OutAddress: 127.0.0.1:25\nTimeOut: 5\nTimeOut: 6\n")
    assert cli.main(["check-config", "-f", str(config)]) == 0
    assert capsys.readouterr().err.startswith(f"{config}:3: warning: TimeOut")


def test_what_is_shown_can_be_read_again(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(
        "OutAddress: 127.0.0.1:25\nFilterCommand: cat\nRuleInterface: a, b\nXClient: yes\nSkip: authenticated\n"
    )
    assert cli.main(["check-config", "-f", str(config), "--show"]) == 0
    shown = capsys.readouterr().out
    settings = parse_config(config.read_bytes(), str(config)).settings
    assert parse_config(shown.encode(), "other.conf").settings == settings
    assert len(shown.splitlines()) == len(DIRECTIVES)
    assert "RuleInterface: a, b" in show(settings)


# status.


def test_status_for_people() -> None:
    assert describe(ANSWER).splitlines() == [
        "north: pid 10, version 2.0.0, up 1 d 1 h",
        "  listening on 0.0.0.0:10025, [::]:10025",
        "  connections 3 of 64, workers replaced 1",
        "  possible duplicates 2",
        "  worker 11 running, up 1 min 1 s, connections 3",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59, "59 s"), (60, "1 min 0 s"), (3600, "1 h 0 min"), (172800, "2 d 0 h")]
)
def test_durations(seconds: int, text: str) -> None:
    assert duration(seconds) == text


def test_status_without_a_daemon(
    tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    status = StatusSocket("north")
    status.open()
    status.close()  # a daemon that was killed leaves this
    assert cli.main(["status", "-f", str(config)]) == 1
    assert capsys.readouterr().err == "no instance north answers: start it with `proxsmtp-tp serve`\n"
    config.write_text("nonsense\nInstance: north\n")  # since its daemon started: the name still finds it
    assert cli.main(["status", "-f", str(config)]) == 1
    assert capsys.readouterr().err.startswith("no instance north answers")
    assert cli.main(["status", "-f", str(config), "--instance", "south"]) == 2


def test_status_of_an_instance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    code = (
        "import json, sys; from proxsmtp_tp.service.status import StatusSocket\n"
        "status = StatusSocket('north'); status.open(); print('up', flush=True)\n"
        "status._socket.setblocking(True)\n"
        "for _ in range(2): status.answer_one = status.answer(lambda: json.loads(sys.argv[1]))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, json.dumps(ANSWER)], stdout=subprocess.PIPE) as daemon:
        try:
            assert daemon.stdout is not None
            assert daemon.stdout.readline() == b"up\n"
            assert cli.main(["status", "--instance", "north"]) == 0
            assert capsys.readouterr().out == describe(ANSWER) + "\n"
            assert cli.main(["status", "--json", "--instance", "north"]) == 0
            assert json.loads(capsys.readouterr().out) == [{**ANSWER, "faults": [], "rules": None, "packets": None}]
            assert cli.main(["status", "--instance", "south"]) == 1
        finally:
            daemon.kill()


_TAKEN: dict[str, Any] = {
    "file": "/etc/proxsmtp-tp/north.conf",
    "since": 0,
    "file_state": "in force",
    "file_problems": [],
    "needs_restart": [],
    "reload": {"number": 0, "state": "none", "at": 0, "problems": []},
}


@pytest.mark.parametrize(
    ("changes", "rules", "code", "said"),
    [
        ({}, "in place", 0, "rules: in place"),
        ({}, "", 0, "connections 3 of 64"),
        ({}, "absent", 1, "rules: absent"),
        ({}, "drifted", 1, "rules: drifted"),
        ({}, "refusing mail", 1, "rules: refusing mail"),
        ({"connections": 64}, "", 1, "WRONG: all 64 connections are taken"),
        ({"servers_down": [{"server": "192.0.2.1:25", "seconds": 4, "failures": 3}]}, "", 1, "cannot be reached"),
        ({"configuration": {**_TAKEN, "file_state": "changed"}}, "", 1, "the file has changed"),
        ({"configuration": {**_TAKEN, "file_state": "wrong", "file_problems": ["x"]}}, "", 1, "the file is wrong"),
        ({"configuration": {**_TAKEN, "needs_restart": ["Workers"]}}, "", 1, "used after a restart only: Workers"),
        ({"configuration": {**_TAKEN, "reload": {**_TAKEN["reload"], "state": "failed"}}}, "", 1, "the reload at"),
    ],
)
def test_status_exits_with_1_where_something_is_wrong(
    changes: dict[str, Any],
    rules: str,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen = {"state": rules, "differences": [], "at": time.time(), "restored": 0.0} if rules else None
    monkeypatch.setattr(sockets, "find_sockets", lambda: [Path("north.sock")])
    monkeypatch.setattr(sockets, "read_status", lambda _: {**ANSWER, "configuration": _TAKEN, **changes})
    monkeypatch.setattr(status_command, "_rules", lambda _: seen)
    for arguments in (["status"], ["status", "--json"]):
        assert cli.main(arguments) == code
    printed = capsys.readouterr().out
    assert said in printed
    assert ("  WRONG: " in printed) is bool(code), "the man page promises a line with the fix"


def hostile(text: str) -> dict[str, Any]:
    """An answer whose every text is this one."""
    worker = {**ANSWER["workers"][0], "phase": text, "pid": text}
    return {**ANSWER, "instance": text, "version": text, "listen": [text, text], "workers": [worker]}


@pytest.mark.parametrize("text", ["\x1b]0;title\x07\x1b[2J", "a\nb: pid 1, version 2", "\u202e\u2028\x9b31m", "\udcff"])
def test_what_a_socket_says_cannot_command_the_terminal(text: str) -> None:
    lines = describe_printable(hostile(text)).split("\n")
    assert all(line.isprintable() for line in lines)
    printed = "\n".join(lines)
    assert "\x1b" not in printed
    assert describe_printable(ANSWER) == describe(ANSWER)


@pytest.mark.parametrize("field", [*ANSWER, "pid of a worker"])
@pytest.mark.parametrize("value", [None, "x\x1b[2J", [1], {"a": 1}, -1, 10**400, float("nan")])
def test_an_answer_that_is_no_status_is_no_traceback(field: str, value: object) -> None:
    answer = {**ANSWER, field: value} if field in ANSWER else {**ANSWER, "workers": [{"pid": value}]}
    assert all(line.isprintable() for line in describe_printable(answer).split("\n"))
    assert describe_printable({}).startswith("an answer that is no status")


# serve.


def test_serve_runs_in_the_foreground(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[launching.Launch] = []

    def launch(wanted: launching.Launch) -> int:
        told.append(wanted)
        return 0

    monkeypatch.setattr(launching, "launch", launch)
    assert cli.main(["serve", "-f", str(config), "-d", "4", "-p", "/run/x"]) == 0
    [wanted] = told
    assert (wanted.detach, wanted.level, wanted.pid_file, wanted.name) == (False, 4, "/run/x", "proxsmtp-tp")


def test_serve_with_a_bad_file(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text("Foo: 1\n")
    assert cli.main(["serve", "-f", str(config)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
