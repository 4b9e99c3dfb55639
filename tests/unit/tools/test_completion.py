"""The completion for bash and zsh: every subcommand, option and choice, asked for in the shells themselves."""

from __future__ import annotations

import argparse
import subprocess
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.cli import main as cli
from tools import completion

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = completion.program().everything()
SHELL_TIMEOUT = 60


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both, in a folder."""
    folder = tmp_path_factory.mktemp("completion")
    (folder / "bash").write_text(completion.bash())
    (folder / "_proxsmtp-tp").write_text(completion.zsh())
    return folder


def bash(files: Path, *words: str) -> list[str]:
    """What bash offers for the last of these words."""
    script = (
        'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); compopt() { :; }\n'
        '_proxsmtp_tp; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script, "bash", str(files / "bash"), "proxsmtp-tp", *words],
        capture_output=True, text=True, timeout=SHELL_TIMEOUT, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return [word for word in done.stdout.splitlines() if word]


def zsh(files: Path, command: completion.Command) -> list[str]:
    """What the function of a command tells _arguments(1) of zsh."""
    name = "_".join(["_proxsmtp_tp", *(word.replace("-", "_") for word in command.path)])
    script = '_arguments() { print -rl -- "$@" }; _describe() { : }; words=(x); source $1 >/dev/null; $2'
    done = subprocess.run(
        ["zsh", "-f", "-c", script, "zsh", str(files / "_proxsmtp-tp"), name],
        capture_output=True, text=True, timeout=SHELL_TIMEOUT, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_every_subcommand_is_there(files: Path) -> None:
    offered = bash(files, "")
    assert set(cli.SUBCOMMANDS) <= set(offered)
    assert {command.path[0] for command in COMMANDS if command.path} == set(cli.SUBCOMMANDS)
    assert all(f"'{name}:" in completion.zsh() for name in cli.SUBCOMMANDS)
    assert bash(files, "check-c") == ["check-config"]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command.path) or "none")
def test_every_option_in_bash_and_zsh(files: Path, command: completion.Command) -> None:
    wanted = {name for option in command.options for name in option.names}
    assert wanted
    assert wanted <= set(bash(files, *command.path, ""))
    told = zsh(files, command)
    for name in wanted:
        assert any(spec.lstrip("*").startswith(f"{name}[") for spec in told), name


def test_values(files: Path, tmp_path: Path) -> None:
    assert bash(files, "install-rules", "--method", "") == ["nftables", "iptables"]
    assert bash(files, "serve", "-d", "") == ["0", "1", "2", "3", "4"]
    assert "lo" in bash(files, "install-rules", "--interface", "l")
    (tmp_path / "one.conf").touch()
    assert bash(files, "serve", "-f", f"{tmp_path}/o") == [f"{tmp_path}/one.conf"]


def test_names_of_instances_are_offered_only_where_one_is_asked_for() -> None:
    kinds = {(*command.path, *option.names): option.kind for command in COMMANDS for option in command.options}
    assert kinds["try-filter", "--instance"] == "instance"
    assert kinds["try-filter", "--helo"] == ""
    (service,) = (command for command in COMMANDS if command.path == ("install-service",))
    assert [option.kind for option in service.positionals] == ["instance"]


def test_subcommands_of_a_subcommand(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = argparse.ArgumentParser("x", add_help=False)
    below = parser.add_subparsers().add_parser("keys", help="the 'keys': [all]").add_subparsers()
    below.add_parser("list", help="show them").add_argument("--long", action="store_true", help="more")
    monkeypatch.setattr(cli, "_parser", lambda _: parser)
    monkeypatch.setattr(cli, "SUBCOMMANDS", {"keys": ("keys", "the 'keys': [all]")})
    (files / "bash").write_text(completion.bash())
    (files / "_proxsmtp-tp").write_text(completion.zsh())
    assert bash(files, "keys", "") == ["list", "-h", "--help"]
    assert "--long" in bash(files, "keys", "list", "--l")
    subprocess.run(["zsh", "-n", str(files / "_proxsmtp-tp")], timeout=SHELL_TIMEOUT, check=True)
