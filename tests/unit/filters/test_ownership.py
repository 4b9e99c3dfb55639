"""Which message files are removed: those of a worker that does not run any more, and nothing else."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from proxsmtp_tp.filters.command import CommandFilter
from proxsmtp_tp.filters.launcher import Command
from proxsmtp_tp.filters.limit import ProcessLimit
from proxsmtp_tp.filters.ownership import Ownership, remove_abandoned
from proxsmtp_tp.filters.spool import MessageFile
from proxsmtp_tp.filters.spool_space import SpoolSpace
from tests.unit.filters.filter_harness import filtering, open_descriptors, start

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxsmtp_tp.filters.command import Kind
    from tests.unit.filters.conftest import Run

NOBODYS = "proxsmtpd.0123456789abcdef.abcdefgh"


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.fixture
def ownership(tmp_path: Path) -> Iterator[Ownership]:
    """A running worker."""
    made = Ownership(str(tmp_path))
    before = open_descriptors()
    yield made
    made.close()
    made.close()
    assert set(open_descriptors()) <= set(before)


def test_files_of_running_daemons_stay_and_others_are_removed(tmp_path: Path, ownership: Ownership) -> None:
    files = [MessageFile(SpoolSpace(str(tmp_path)), ownership) for _ in range(3)]
    for file in files:
        file.complete()
    (tmp_path / NOBODYS).touch()
    assert remove_abandoned(str(tmp_path)) == 1
    assert names(tmp_path) == {Path(file.name).name for file in files}
    ownership.close()
    assert remove_abandoned(str(tmp_path)) == 3
    assert not names(tmp_path)


def test_what_killed_us_does_not_matter_and_a_filter_does_not_keep_our_files(tmp_path: Path) -> None:
    """Ownership ends with the process; a child that lives longer does not have it."""
    ready = tmp_path / "ready"
    worker = os.fork()
    if worker == 0:
        _make_a_file_and_wait(tmp_path, ready)
    while not ready.exists():
        time.sleep(0.005)
    child = int(ready.read_text())
    assert remove_abandoned(str(tmp_path)) == 0
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)
    os.kill(child, 0)
    assert remove_abandoned(str(tmp_path)) == 1
    os.kill(child, signal.SIGKILL)
    assert names(tmp_path) == {"ready"}


def _make_a_file_and_wait(directory: Path, ready: Path) -> NoReturn:
    try:
        MessageFile(SpoolSpace(str(directory)), Ownership(str(directory))).complete()
        child = os.posix_spawn("/bin/sleep", ["sleep", "1000"], {})
        (directory / "new").write_text(str(child))
        (directory / "new").rename(ready)
        time.sleep(1000)
    finally:
        os._exit(1)


def test_other_names_and_other_things_are_not_touched(tmp_path: Path) -> None:
    others = {
        "proxsmtpd.conf",
        "proxsmtpd.a1B2c3",  # 1.10's
        "proxsmtpd.abcdefgh",  # where there are no locks
        f"{NOBODYS}.new",
        f"x{NOBODYS}",
        NOBODYS.upper(),
        f"{NOBODYS}\n",
        "proxsmtpd.0123456789abcde.abcdefgh",
    }
    for name in others:
        (tmp_path / name).touch()
    kinds = [f"proxsmtpd.0123456789abcdef.other{number:03}" for number in range(3)]
    (tmp_path / kinds[0]).mkdir()
    (tmp_path / kinds[1]).symlink_to("proxsmtpd.conf")
    os.mkfifo(tmp_path / kinds[2])
    assert remove_abandoned(str(tmp_path)) == 0
    assert names(tmp_path) == others | set(kinds)


def test_another_user_s_files_are_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / NOBODYS).touch()
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        assert remove_abandoned(str(tmp_path)) == 0
    assert remove_abandoned(str(tmp_path)) == 1


def test_a_directory_made_again_is_locked_again(tmp_path: Path, ownership: Ownership) -> None:
    """The lock is on the directory that an administrator has removed: the new one needs its own."""
    folder = tmp_path / "spool"
    folder.mkdir()
    moved = Ownership(str(folder))
    old = moved.prefix()
    assert moved.prefix() == old
    shutil.rmtree(folder)
    assert moved.prefix() == "proxsmtpd."  # whoever makes the file learns what is wrong
    folder.mkdir()
    file = MessageFile(SpoolSpace(str(folder)), moved)
    file.complete()
    assert Path(file.name).name[:26] not in {old[:26], "proxsmtpd."}
    assert remove_abandoned(str(folder)) == 0
    file.close()
    moved.close()


@pytest.mark.parametrize("supported", ["F_OFD_GETLK", "nothing"])
def test_without_locks_names_have_no_number_and_nothing_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, supported: str
) -> None:
    """As on some network file systems."""
    real = fcntl.fcntl

    def refuse(descriptor: int, command: int, argument: bytes) -> object:
        if command == getattr(fcntl, supported, None):
            return real(descriptor, command, argument)
        raise OSError(37, "No locks available")

    made = Ownership(str(tmp_path))
    before = open_descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "fcntl", refuse)
        assert made.prefix() == "proxsmtpd."
        file = MessageFile(SpoolSpace(str(tmp_path)), made)
        file.complete()
        if supported == "nothing":
            (tmp_path / NOBODYS).touch()
        assert remove_abandoned(str(tmp_path)) == 0
        assert len(names(tmp_path)) == 1 + (supported == "nothing")
    file.close()
    assert open_descriptors() == before


@pytest.mark.parametrize("directory", ["absent", "file"])
def test_a_directory_without_use_has_none(tmp_path: Path, directory: str) -> None:
    (tmp_path / "file").touch()
    assert remove_abandoned(str(tmp_path / directory)) == 0
    assert Ownership(str(tmp_path / directory)).prefix() == "proxsmtpd."


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_the_next_filter_removes_and_says_so(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: Kind
) -> None:
    caplog.set_level("INFO", "proxsmtp_tp.filters")

    async def scenario() -> None:
        async with filtering("true", tmp_path, "file") as living:
            case = start(living)
            case.write(b"Subject: hello\r\n")
            (own,) = names(tmp_path)
            (tmp_path / NOBODYS).touch()
            CommandFilter(Command("cat", 1), kind, SpoolSpace(str(tmp_path)), ProcessLimit(1)).close()
            assert names(tmp_path) == {own}
            case.abort()

    run(scenario())
    assert f"removed from {tmp_path}: 1 message files that a killed worker left behind" in caplog.messages
