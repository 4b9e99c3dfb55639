"""Which instance `-f`, `--instance` or neither means: the same for every command."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.cli import instances
from proxsmtp_tp.cli import main as cli
from proxsmtp_tp.cli.instances import Instance, InstanceError, choose

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = "OutAddress: 127.0.0.1:25\n"
# All that read a configuration file; status, install-service and remove-service can mean several instances.
READERS = ["serve", "check-config", "install-rules", "remove-rules", "check-rules", "doctor"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In place of /etc/proxsmtp-tp."""
    found = tmp_path / "etc"
    found.mkdir()
    monkeypatch.setattr(instances, "DIRECTORY", found)
    return found


def write(folder: Path, name: str, text: str = CONFIG) -> str:
    path = folder / f"{name}.conf"
    path.write_text(text)
    return str(path)


def refusal(file: str | None = None, name: str | None = None, *, file_needed: bool = True) -> str:
    with pytest.raises(InstanceError) as error:
        choose(file, name, file_needed=file_needed)
    assert error.value.exit_code == 2
    [line] = error.value.lines()
    return line


def test_without_options_it_is_the_only_one(folder: Path) -> None:
    path = write(folder, "gate")
    for other in (".gate.conf", "gate.conf.dpkg-old", "gate.conf~", "README"):
        (folder / other).touch()
    (folder / "filters.conf").mkdir()
    assert choose(None, None) == Instance("gate", path)


@pytest.mark.parametrize("file_needed", [True, False])
def test_several_are_listed(folder: Path, file_needed: bool) -> None:
    for name in ("south", "north", "proxsmtp-tp"):
        write(folder, name)
    said = refusal(file_needed=file_needed)
    assert said.endswith("choose one with --instance NAME: north, proxsmtp-tp, south")


@pytest.mark.parametrize("exists", [True, False])
def test_none_says_how_to_make_one(folder: Path, exists: bool) -> None:
    if not exists:
        folder.rmdir()
    assert f"no instance is configured: write {folder}/NAME.conf" in refusal()


def test_a_name_reads_its_file(folder: Path) -> None:
    paths = {name: write(folder, name) for name in ("north", "south")}
    assert choose(None, "south") == Instance("south", paths["south"])
    assert refusal(None, "east").endswith("there is no " + str(folder / "east.conf") + "; configured: north, south")
    assert choose(None, "east", file_needed=False) == Instance("east", str(folder / "east.conf"))


def test_the_instance_directive_names_it(folder: Path) -> None:
    path = write(folder, "north", CONFIG + "INSTANCE :  one\n")
    assert choose(None, None) == choose(None, "north") == choose(None, "one") == Instance("one", path)
    # The file of that name comes first, as in the names of units.
    other = write(folder, "one", CONFIG + "Instance: two\n")
    assert choose(None, "one") == Instance("two", other)


def test_a_file_that_is_wrong_or_gone_has_a_name(tmp_path: Path) -> None:
    path = write(tmp_path, "north", "nonsense\nInstance: -bad-\nInstance: one\nFoo: 1\n")
    assert choose(path, None) == Instance("one", path)
    gone = str(tmp_path / "gone.conf")
    assert choose(gone, None) == Instance("gone", gone)
    assert choose(gone, "one") == Instance("one", gone)
    assert choose("", None) == Instance(choose("", None).name, "")
    assert choose(str(tmp_path / "a\0b"), None).path.endswith("a\0b")


def test_both_must_agree(folder: Path, tmp_path: Path) -> None:
    path = write(tmp_path, "north", CONFIG + "Instance: one\n")
    assert choose(path, "north") == choose(path, "one") == Instance("one", path)
    said = refusal(path, "two")
    assert said == f"{path} is the configuration of instance one, not two: use only one of -f, --instance"


@pytest.mark.parametrize("name", ["x; reboot", "../north", "", "-f", "a" * 17, "\x1b[2J"])
def test_a_name_that_is_none(folder: Path, name: str) -> None:
    write(folder, "north")
    for file_needed in (True, False):
        said = refusal(None, name, file_needed=file_needed)
        assert "is no name" in said
        assert said.isprintable()


def test_a_file_name_that_is_no_instance_name_can_be_chosen(folder: Path) -> None:
    path = write(folder, "my.gateway")
    chosen = choose(None, "my.gateway")
    assert chosen.path == path
    assert choose(None, chosen.name) == chosen


# These mean several instances, or none; install-service and remove-service name theirs as arguments or with --instance.
WITHOUT_A_FILE = {"rules", "demo", "install-service", "remove-service"}


@pytest.mark.parametrize("command", sorted(set(cli.SUBCOMMANDS) - WITHOUT_A_FILE))
def test_every_command_has_both_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`instances.add_options` adds them."""
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    said = capsys.readouterr().out
    assert "-f FILE, --file FILE" in said or "-f, --file FILE" in said
    assert "--instance NAME" in said


@pytest.mark.parametrize("command", READERS)
def test_every_command_lists_several(folder: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("north", "south"):
        write(folder, name)
    state = ["--state-dir", str(folder / "state")] if "rules" in command or command == "doctor" else []
    assert cli.main([command, *state]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "choose one with --instance NAME: north, south" in line
    assert cli.main([command, "-f", str(folder / "north.conf"), "--instance", "south", *state]) == 2
    assert "is the configuration of instance north, not south" in capsys.readouterr().err


@pytest.mark.parametrize("command", READERS)
def test_every_command_says_how_to_make_one(folder: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    state = ["--state-dir", str(folder / "state")] if "rules" in command or command == "doctor" else []
    assert cli.main([command, *state]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"write {folder}/NAME.conf" in line


@pytest.mark.parametrize("command", ["check-config", "serve"])
def test_a_name_and_long_option_for_the_file(folder: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, "north", "Foo: 1\n")
    write(folder, "south")
    for arguments in (["--instance", "north"], ["--file", str(folder / "north.conf")]):
        assert cli.main([command, *arguments]) == 2
        assert f"{folder}/north.conf:1: Foo" in capsys.readouterr().err


def test_a_folder_that_cannot_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scandir(path: Path) -> None:
        raise PermissionError(13, os.strerror(13), str(path))

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InstanceError, match="cannot be read: Permission denied: run this as root") as error:
        choose(None, None)
    assert error.value.exit_code == 1
