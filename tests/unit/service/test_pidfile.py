"""The pid file belongs to a running daemon, and to no other process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.service.pidfile import PidFile, PidFileError
from tests.unit.service.conftest import WAIT_SECONDS, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
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
                PidFile(str(path), told_to_stop=0.2)
        finally:
            other.kill()
    assert path.read_text() == f"{other.pid}\n"
    PidFile(str(path)).remove()  # a killed daemon holds nothing


def test_a_pid_file_that_became_anothers_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    pid_file = PidFile(str(path))
    pid_file.write()
    path.unlink()
    path.write_text("another's\n")
    pid_file.remove()
    assert path.read_text() == "another's\n"


HOLDER = """
import sys
from proxsmtp_tp.service.pidfile import PidFile
held = PidFile(sys.argv[1])
held.write()
for line in sys.stdin:
    getattr(held, line.strip())()
    print("done", flush=True)
"""


class Holder:
    """Another daemon with the file, which does as it is told."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        eventually(lambda: path.exists() and path.read_text() == f"{self.process.pid}\n")

    def tell(self, what: str) -> None:
        """Call a method there."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def end(self) -> None:
        """Kill it. Two threads may do so."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Kill it, and close the pipes."""
        self.end()
        self.process.communicate()


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Holder]:
    found = Holder(tmp_path / "pid")
    yield found
    found.close()


def test_a_holder_that_stops_is_waited_for(holder: Holder, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    threading.Timer(0.3, lambda: holder.tell("stopping")).start()  # `kill` does not wait until the signal is heard
    first, second = PidFile(str(path), told_to_stop=WAIT_SECONDS), PidFile(str(path), told_to_stop=WAIT_SECONDS)
    assert first.holder == second.holder == str(holder.process.pid)
    second.close()
    with pytest.raises(PidFileError, match=f"the daemon {holder.process.pid} was told to stop and still runs"):
        PidFile(str(path)).wait(0.2)
    assert path.read_text() == f"{holder.process.pid}\n"
    threading.Timer(0.3, lambda: holder.tell("remove")).start()
    first.wait(WAIT_SECONDS)
    assert first.holder == ""
    first.write()
    assert path.read_text() == f"{os.getpid()}\n"
    first.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_holder_that_stops_and_is_killed_is_followed_at_once(holder: Holder, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    holder.tell("stopping")
    follower = PidFile(str(path))
    threading.Timer(0.3, holder.end).start()
    follower.wait(WAIT_SECONDS)
    follower.write()
    assert path.read_text() == f"{os.getpid()}\n"
    follower.remove()


def test_one_that_came_into_its_place_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    pid_file = PidFile(str(path))
    other = Holder(path)
    try:
        with pytest.raises(PidFileError, match=f"the daemon {other.process.pid} has taken it in the meantime"):
            pid_file.write()
        assert path.read_text() == f"{other.process.pid}\n"
    finally:
        other.close()
    pid_file = PidFile(str(path))
    path.unlink()
    path.write_text("of a dead one\n")
    pid_file.write()
    assert path.read_text() == f"{os.getpid()}\n"
    pid_file.remove()


@pytest.mark.parametrize("before", [None, "", "99999999\nof a daemon that was killed\n"])
def test_it_is_never_read_half_written(tmp_path: Path, before: str | None) -> None:
    path = tmp_path / "pid"
    whole = {None, before, f"{os.getpid()}\n"}
    seen: set[str | None] = set()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            try:
                seen.add(path.read_text())
            except FileNotFoundError:
                seen.add(None)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(300):
            if before is not None:
                (tmp_path / "new").write_text(before)
                (tmp_path / "new").rename(path)
            pid_file = PidFile(str(path))
            pid_file.write()
            pid_file.remove()
    finally:
        over.set()
        thread.join()
    assert seen <= whole


def test_mode_and_owner_of_a_file_that_is_taken_over_stay(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text("")
    path.chmod(0o600)
    status = path.stat()
    pid_file = PidFile(str(path))
    pid_file.write()
    after = path.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (status.st_mode, status.st_uid, status.st_gid)
    pid_file.remove()


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "may"),
    [(0o755, 0, 0, True), (0o755, 1, 0, False), (0o775, 1, 0, True), (0o777, 1, 1, True), (0o772, 1, 1, False)],
)
def test_owner_and_mode_decide_who_may_write(tmp_path: Path, mode: int, uid: int, gid: int, may: bool) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    folder.chmod(mode)
    status = folder.stat()
    pid_file = PidFile(str(folder / "pid"))
    assert pid_file.user_may_write(status.st_uid + uid, status.st_gid + gid) is may
    assert PidFile(None).user_may_write(1, 1)
