"""A daemon that was started as root and is not root any more: its workers, what they run, its reloads."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.unit.service.conftest import eventually

if TYPE_CHECKING:
    from tests.unit.service.conftest import Daemon


def may_become_nobody() -> bool:
    """Root, where nobody is a user (not so in a user namespace that maps only root)."""
    ranges = [[int(word) for word in line.split()] for line in Path("/proc/self/uid_map").read_text().splitlines()]
    return os.geteuid() == 0 and any(first <= 65534 < first + count for first, _, count in ranges)


def capabilities(text: str) -> dict[str, int]:
    pairs = (word.partition(":") for word in text.split())
    return {name: int(value, 16) for name, _, value in pairs if name != "CapBnd"}


@pytest.mark.parametrize(("directives", "kept"), [({"OutAddress": 25}, 0), ({"TransparentProxy": "full"}, 1 << 13)])
def test_workers_are_the_user_and_what_they_run_has_no_capability(
    daemon: Daemon, directives: dict[str, object], kept: int
) -> None:
    daemon.configure(User="nobody", **directives)
    if not may_become_nobody():
        daemon.launch()
        if os.geteuid() == 0:
            assert daemon.wait() == 1
            assert "unable to switch to user: nobody" in daemon.log()
        return
    daemon.start()
    client = daemon.connect()
    assert client.ask("USER") == "(65534, 65534, 65534) (65534, 65534, 65534) [65534]"
    for pid in (daemon.master, client.worker):
        lines = Path(f"/proc/{pid}/status").read_text().replace("\t", "").splitlines()
        own = capabilities(" ".join(line for line in lines if line.startswith("Cap")))
        assert own == {"CapInh": 0, "CapPrm": kept, "CapEff": kept, "CapAmb": 0}
    assert capabilities(client.ask("CAPS")) == {"CapInh": 0, "CapPrm": 0, "CapEff": 0, "CapAmb": 0}
    client.close()
    before = daemon.workers()
    daemon.reload()  # without root, and with the files of the interpreter perhaps out of reach
    eventually(lambda: not daemon.workers() & before)
    assert daemon.connect().ask("PING") == "250 PING"


def test_full_mode_cannot_be_had_by_a_reload_once_the_right_is_gone(daemon: Daemon) -> None:
    if may_become_nobody():
        daemon.configure(User="nobody")
        daemon.start()
        daemon.configure(User="nobody", TransparentProxy="full")
        daemon.reload("stays in force\n")
        assert "CAP_NET_RAW, which was given up" in daemon.log()


def test_nothing_of_it_stays_in_folders_of_roots(daemon: Daemon) -> None:
    """A status socket of an older one that was killed is removed, too; the pid file is whole from its first moment."""
    if not may_become_nobody():
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    daemon.configure(User="nobody", Listen=f"127.0.0.1:{port}")
    old = daemon.folder / "d.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(old))
    pid_file = daemon.folder / "pid"
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
        (daemon.folder / "log").unlink(missing_ok=True)
        daemon.start("--pid-file", str(pid_file))
        assert not old.exists()
        assert pid_file.read_text() == f"{daemon.master}\n"
        assert pid_file.stat().st_uid == os.geteuid()
        own = daemon.folder / "d"
        assert (own.stat().st_mode & 0o777, own.stat().st_uid) == (0o711, 65534)
        assert ((own / "socket").stat().st_mode & 0o777, (own / "socket").stat().st_uid) == (0o600, 65534)
        assert daemon.status()["pid"] == daemon.master
        daemon.signal(number)
        daemon.wait()
        assert (own / "socket").exists() == (number == signal.SIGKILL)
    assert sorted(path.name for path in daemon.folder.iterdir()) == ["d", "d.conf", "log", "pid", "state"]
    assert list((daemon.folder / "d").iterdir()) == []
    assert pid_file.read_text() == ""  # the folder is root's, so it cannot be removed
