"""The commands of an installation, the modules that it starts, and what it says when the demo's package is missing."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from proxsmtp_tp.cli import demo
from proxsmtp_tp.cli.main import main
from proxsmtp_tp.gateway.python import module_command
from proxsmtp_tp.service import installed

TREE = Path(__file__).parents[3]


def test_a_module_is_found_where_the_interpreter_does_not_look(tmp_path: Path) -> None:
    """As in /usr/lib/proxsmtp-tp/site: no environment, no entry in the interpreter's own path."""
    shutil.copytree(TREE / "proxsmtp_tp", tmp_path / "proxsmtp_tp", ignore=shutil.ignore_patterns("__pycache__"))
    script = (
        f"import subprocess, sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from proxsmtp_tp.gateway.python import module_command\n"
        "command = module_command('proxsmtp_tp.lab.isolate', '--help')\n"
        "assert command[1] == '-I', command\n"
        "sys.exit(subprocess.run(command).returncode)"
    )
    python = Path(sys.base_prefix, "bin/python3")
    done = subprocess.run([python, "-I", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.split(" -m")[0]) == (2, "usage: python"), done.stderr


def test_the_programs_of_the_package_write_no_compiled_modules() -> None:
    """Where one is made during a removal, dpkg leaves it and its folder."""
    scripts = [path for path in (TREE / "debian").iterdir() if path.is_file() and "python3" in path.read_text()[:20]]
    assert len(scripts) == 2
    assert {path.read_text().splitlines()[0] for path in scripts} == {"#!/usr/bin/python3 -IB"}
    for python, wanted in (("-IB", "-IB"), ("-P", "-P")):
        script = (
            f"import sys; sys.path.insert(0, {str(TREE)!r})\nfrom proxsmtp_tp.gateway.python import module_command\n"
        )
        done = subprocess.run(
            [sys.executable, python, "-c", f"{script}print(module_command('x')[1])"],
            capture_output=True, text=True, timeout=60, check=True, env={},
        )  # fmt: skip
        assert done.stdout == f"{wanted}\n"


def test_a_module_of_the_current_directory_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "argparse.py").write_text("raise SystemExit('imported from the current directory')")
    command = module_command("proxsmtp_tp.gateway.confirm", "--help")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_commands_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not installed.packaged()
    assert installed.command("proxsmtpd").is_file()
    monkeypatch.setattr(installed, "_HERE", installed.SITE)
    assert installed.packaged()
    assert str(installed.command()) == "/usr/bin/proxsmtp-tp"
    assert str(installed.command("proxsmtpd")) == "/usr/lib/proxsmtp-tp/proxsmtpd"


@pytest.mark.parametrize(
    ("packaged", "how"), [(True, "apt-get install python3-aiosmtpd"), (False, "proxsmtp-tp[demo]")]
)
def test_the_demo_says_how_to_get_its_mail_server(
    packaged: bool,
    how: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda _: None)
    monkeypatch.setattr(demo, "packaged", lambda: packaged)
    assert main(["demo"]) == 1
    assert how in capsys.readouterr().err


def test_the_wheel_carries_every_man_page() -> None:
    project = tomllib.loads((TREE / "pyproject.toml").read_text())
    shared = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    pages = sorted((TREE / "docs/man").iterdir())
    assert shared == {f"docs/man/{page.name}": f"share/man/man{page.suffix[1:]}/{page.name}" for page in pages}


def test_the_program_does_not_need_what_the_demo_needs() -> None:
    project = tomllib.loads((TREE / "pyproject.toml").read_text())["project"]
    assert not [need for need in project["dependencies"] if need.startswith("aiosmtpd")]
    assert [need for need in project["optional-dependencies"]["demo"] if need.startswith("aiosmtpd")]
