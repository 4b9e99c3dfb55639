"""A restart by a service manager that keeps the listening sockets: nobody is refused, and the old work goes on.

The manager is this test: it receives the sockets as systemd does (sd_pid_notify_with_fds(3)) and gives them to the next
daemon (sd_listen_fds(3)).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from array import array
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.unit.service.conftest import PATIENCE, eventually, is_alive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.service.conftest import Daemon


class Manager:
    """Keeps what it is given, by name, until it is told to remove it."""

    def __init__(self, path: Path) -> None:
        self.kept: dict[str, int] = {}
        self.said: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                data, extra, _, _ = self._socket.recvmsg(4096, socket.CMSG_LEN(4))
                fields = dict(line.split("=", 1) for line in data.decode().split("\n"))
                if "FDSTORE" in fields:
                    (descriptor,) = array("i", extra[0][2])
                    if fields["FDNAME"] in self.kept:
                        os.close(descriptor)
                    else:
                        self.kept[fields["FDNAME"]] = descriptor
                elif "FDSTOREREMOVE" in fields and fields["FDNAME"] in self.kept:
                    os.close(self.kept.pop(fields["FDNAME"]))
                self.said.append(data.decode())

    def close(self) -> None:
        self._socket.close()
        for descriptor in self.kept.values():
            os.close(descriptor)


@pytest.fixture
def manager(daemon: Daemon) -> Iterator[Manager]:
    path = daemon.folder / "notify"
    made = Manager(path)
    daemon.environment["NOTIFY_SOCKET"] = str(path)
    yield made
    made.close()


def start_next(daemon: Daemon, manager: Manager) -> None:
    """Start with the descriptors from 3 on, as systemd does."""
    numbers = list(manager.kept.values())
    moves = " ".join(f"{3 + index}<&{number}" for index, number in enumerate(numbers))
    program = Path(__file__).with_name("fake_daemon.py")
    script = f'LISTEN_PID=$$ LISTEN_FDS={len(numbers)} exec "{sys.executable}" "{program}" "{daemon.file}" {moves}'
    before = daemon.log().count("accepting connections")
    with (daemon.folder / "log").open("ab") as log:
        daemon.process = subprocess.Popen(
            ["bash", "-c", script],
            stdout=log,
            stderr=log,
            env=daemon.environment,
            cwd=Path(__file__).parents[3],
            pass_fds=numbers,
        )
    daemon.master = daemon.process.pid
    eventually(lambda: daemon.log().count("accepting connections") > before, daemon.log())


def test_the_next_daemon_serves_while_the_old_one_finishes(daemon: Daemon, manager: Manager) -> None:
    daemon.start()
    eventually(lambda: manager.kept)
    busy, idle = daemon.connect(), daemon.connect()
    assert busy.ask("BUSY") == "250 BUSY"
    assert idle.ask("DONE") == "250 DONE"
    # systemd sends TERM when the command of ExecStop has ended: both may wait while the master is busy.
    daemon.signal(signal.SIGSTOP)
    for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGCONT):
        daemon.signal(number)
    assert daemon.wait() == 0
    assert is_alive(busy.worker)
    assert idle.line() == "421 draining"
    links = [path.readlink() for path in Path(f"/proc/{busy.worker}/fd").iterdir()]
    inode = Path(f"/proc/self/fd/{next(iter(manager.kept.values()))}").readlink()
    assert inode not in links  # it does not look as if it accepted
    waiting = socket.socket(socket.AF_UNIX)
    waiting.settimeout(PATIENCE)
    waiting.connect(daemon.socket)  # nobody serves, and nobody refuses
    start_next(daemon, manager)
    assert waiting.recv(99).startswith(b"220 ")
    waiting.close()
    assert daemon.status()["pid"] == daemon.master
    assert busy.ask("DONE") == "250 DONE"
    assert busy.line() == "421 draining"
    eventually(lambda: not is_alive(busy.worker))
    assert daemon.connect().ask("PING") == "250 PING"
    # A stop is a stop: nothing is kept, and clients are refused.
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    eventually(lambda: not manager.kept)
    assert daemon.refuses()


def test_after_a_crash_clients_wait_for_the_next_daemon(daemon: Daemon, manager: Manager) -> None:
    daemon.start()
    eventually(lambda: manager.kept)
    busy = daemon.connect()
    assert busy.ask("BUSY") == "250 BUSY"
    daemon.signal(signal.SIGKILL)
    daemon.wait()
    waiting = socket.socket(socket.AF_UNIX)
    waiting.settimeout(PATIENCE)
    eventually(lambda: len(daemon.log()) > 0)
    waiting.connect(daemon.socket)
    start_next(daemon, manager)
    assert waiting.recv(99).startswith(b"220 ")
    waiting.close()
    assert busy.ask("DONE") == "250 DONE"


def test_a_changed_address_is_let_go(daemon: Daemon, manager: Manager) -> None:
    """In a reload, and over a restart: also one on all addresses that is in the way of a single one."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    daemon.configure(Listen=f"0.0.0.0:{port}")
    daemon.start()
    eventually(lambda: list(manager.kept) == [f"0.0.0.0%3A{port}"])
    daemon.signal(signal.SIGUSR2)
    assert daemon.wait() == 0
    daemon.configure(Listen=f"127.0.0.1:{port}")
    start_next(daemon, manager)
    eventually(lambda: f"127.0.0.1%3A{port}" in manager.kept)
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        assert client.recv(99).startswith(b"220 ")
    daemon.configure()
    daemon.reload()
    eventually(lambda: f"127.0.0.1%3A{port}" not in manager.kept)
    assert daemon.connect().ask("PING") == "250 PING"


def test_without_a_manager_nothing_is_handed_over(daemon: Daemon) -> None:
    daemon.start()
    daemon.signal(signal.SIGUSR2)
    eventually(lambda: "USR2 is for a service manager" in daemon.log())
    assert daemon.connect().ask("PING") == "250 PING"
