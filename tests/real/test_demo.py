"""The demo, as root and as an ordinary user; and what it says when something is not as it must be."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.lab import demo, demo_tls
from proxsmtp_tp.lab.gateway import Instance, program
from proxsmtp_tp.lab.scenario import MAILS, SETUPS, WAYS
from tests.real.ordinary_user import as_ordinary_user

if TYPE_CHECKING:
    from collections.abc import Callable

ENVIRONMENT = {**os.environ, "TERM": "xterm", "NO_COLOR": ""}


def as_it_is(command: list[str], workspace: Path) -> list[str]:
    """The command, for the user that runs the tests."""
    return command


@pytest.mark.parametrize("user", [as_it_is, as_ordinary_user])
def test_it_runs_and_leaves_nothing(
    user: Callable[[list[str], Path], list[str]], tmp_path: Path, directory: Path
) -> None:
    temporary = directory / user.__name__
    temporary.mkdir()
    temporary.chmod(0o777)
    before = _outside()
    # Called from a directory with a module of a known name, which is none of the demo's business.
    (tmp_path / "socket.py").write_text("raise SystemExit('this is not the socket you are looking for')")
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    done = subprocess.run(
        user([str(program()), "demo"], workspace),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
        env={**ENVIRONMENT, "TMPDIR": str(temporary)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert "\033" not in done.stdout, "colour where nobody sees it"
    for setup in SETUPS:
        for way in WAYS:
            assert re.search(rf"{setup.mode} +{way.name} +250 +550 +250 .*{re.escape(setup.seen(way))}\n", done.stdout)
            assert (
                f"     mx       {setup.seen(way)}, the {setup.whose}, calls: EHLO MAIL RCPT DATA QUIT\n" in done.stdout
            )
    assert done.stdout.count("X-Filter: passed") == len(SETUPS) * len(WAYS) + 1
    judged = "log: status=FILTERED, client_tls=TLSv1.3, server_tls=TLSv1.3/verified\n"
    passed = f"log: TLS passed on, not judged (Tls: pass server={WAYS[1].server}): from_client="
    assert done.stdout.count("by STARTTLS\n") == done.stdout.count(judged) + done.stdout.count(passed) == 2
    assert done.stdout.count("calls: EHLO TLSv1.3: EHLO MAIL RCPT DATA QUIT\n") == 2
    assert "signed by: the CA of the demo's MX\n" in done.stdout
    assert done.stdout.count(f"     sender   {MAILS[1].reply}") == len(SETUPS) * len(WAYS)
    assert len(re.findall(r"^     (?:nft|ip|sysctl) .* as before ", done.stdout, re.MULTILINE)) == 6
    assert _outside() == before
    assert not list(temporary.iterdir())


def _outside() -> list[str]:
    """What the demo might have left where it was started."""
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout.splitlines()
    rules = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=False).stdout.splitlines()
    names = [file.name for place in (Path("/run/netns"), Path("/run")) if place.exists() for file in place.iterdir()]
    return sorted([*(line.split(":")[1] for line in links), *rules, *names])


def test_colour_on_a_terminal() -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.execve(program(), ["proxsmtp-tp", "demo"], ENVIRONMENT)
    text = b""
    try:
        while True:
            text += os.read(terminal, 65536)
            if b"RCPT DATA QUIT" in text:
                os.write(terminal, b"\x03")  # enough was seen; an interrupt ends it in order
                break
        while chunk := _read(terminal):
            text += chunk
    finally:
        os.close(terminal)
        _, status = os.waitpid(child, 0)
    assert b"\033[36msender" in text
    assert b"The demo was interrupted. Nothing of it is left." in text
    assert b"Traceback" not in text
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGINT


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # nobody holds the terminal's other side any more
        return b""


def test_a_kill_leaves_nothing(directory: Path) -> None:
    """Not even the files: processes, namespaces and the directory go with the one that was killed."""
    temporary = directory / "killed"
    temporary.mkdir()
    before = _outside()
    process = subprocess.Popen(
        [program(), "demo"], stdout=subprocess.PIPE, env={**ENVIRONMENT, "TMPDIR": str(temporary)}
    )
    assert process.stdout is not None
    for line in process.stdout:
        if b"RCPT DATA QUIT" in line:
            break
    process.kill()
    process.wait()
    while process.stdout.read(65536):  # ends when the last process that could write has gone
        pass
    process.stdout.close()
    assert _outside() == before
    assert not list(temporary.iterdir())


@pytest.mark.parametrize(
    ("breakage", "reason"),
    [
        ("exit 1", "the verdict was reject instead of pass"),
        ("cat >/dev/null; echo X: changed", "the message arrived changed"),
        ("sleep 600", "timed out"),
    ],
)
def test_a_failure_is_reported(
    breakage: str, reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A filter that does not do what the page says: status 1, the reason, and the daemon's log."""

    def broken(source: Path, directory: Path) -> None:
        (directory / source.name).write_text(f"{breakage}\n")

    monkeypatch.setattr("shutil.copy", broken)
    monkeypatch.setattr("proxsmtp_tp.lab.client.SECONDS", 2.0)
    assert demo.main() == 1
    told = capsys.readouterr()
    assert "The demo failed: " in told.err
    assert reason in told.err
    assert "The daemon's log:" in told.err
    assert "each as it must be" not in told.out


def test_rules_that_stay_are_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Rules that were not removed make the demo fail."""
    true = Instance.command

    def without_removal(self: Instance, subcommand: str, *options: str) -> str:
        return "" if subcommand == "remove-rules" else true(self, subcommand, *options)

    monkeypatch.setattr(Instance, "command", without_removal)
    monkeypatch.setattr(demo, "SETUPS", SETUPS[:1])
    monkeypatch.setattr(demo, "MAILS", MAILS[:1])
    assert demo.main() == 1
    told = capsys.readouterr()
    assert "the gateway is not as it was:\nnft list ruleset: + table" in told.err


def test_no_daemon_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("proxsmtp_tp.lab.gateway.program", lambda: Path("false"))
    assert demo.main() == 1
    assert "The demo failed: proxsmtp-tp serve ended with 1" in capsys.readouterr().err


def test_without_the_library_for_certificates(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo_tls, "make_certificate", lambda _: None)
    monkeypatch.setattr(demo, "SETUPS", SETUPS[:1])
    monkeypatch.setattr(demo, "MAILS", MAILS[:1])
    assert demo.main() == 0
    assert "2 of 2: TLS: not shown, it needs python3-cryptography\n" in capsys.readouterr().out
