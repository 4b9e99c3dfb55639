"""The restart of a daemon that gives systemd no sockets: systemd gets copies of them, and its workers retire first."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from array import array
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.cli import service_first_upgrade
from proxsmtp_tp.cli.service_first_upgrade import sockets_kept

if TYPE_CHECKING:
    from collections.abc import Iterator

UNIT = "proxsmtp-tp@gateway.service"
# As 2.0.0: a master that does not know USR2, and a worker that writes a line when it retires. With "new" it knows it.
# The master writes its port when all its signals are as they will be.
DAEMON = """
import os, signal, socket, sys, time
tcp = socket.create_server(("127.0.0.1", 0))
paths = []
for path in sys.argv[2:]:
    paths.append(socket.socket(socket.AF_UNIX))
    paths[-1].bind(path)
    paths[-1].listen()
if sys.argv[1] == "new":
    signal.signal(signal.SIGUSR2, lambda *_: None)
# Blocked, it is not lost while the worker begins.
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
if os.fork() == 0:
    signal.sigwait([signal.SIGUSR1])
    os.write(1, b"retired\\n")
    os._exit(0)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
os.write(1, b"%d\\n" % tcp.getsockname()[1])
time.sleep(600)
"""


class Systemd:
    """It keeps sockets that come in the name of the daemon's process."""

    def __init__(self, path: Path, pid: int) -> None:
        self.pid, self.kept, self.senders = pid, dict[str, socket.socket](), list[int]()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(str(path))

    def show(self, unit: str, *_: str) -> dict[str, str]:
        """`systemctl show`."""
        assert unit == UNIT
        self._receive()
        return {"MainPID": str(self.pid), "NFileDescriptorStore": str(len(self.kept))}

    def _receive(self) -> None:
        while select.select([self._socket], [], [], 0)[0]:
            text, ancillary, _, _ = self._socket.recvmsg(4096, 256)
            first, name = text.decode().splitlines()
            assert first == "FDSTORE=1"
            found = {kind: array("i", data[: len(data) // 4 * 4]) for _, kind, data in ancillary}
            self.senders.append(found[socket.SCM_CREDENTIALS][0])
            self.kept[name.removeprefix("FDNAME=")] = socket.socket(fileno=found[socket.SCM_RIGHTS][0])

    def close(self) -> None:
        for sock in (self._socket, *self.kept.values()):
            sock.close()


def start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", DAEMON, *arguments], stdout=subprocess.PIPE, start_new_session=True)


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Instead of /run and /tmp."""
    monkeypatch.setattr(service_first_upgrade, "_NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setattr(service_first_upgrade, "_RUNTIME", f"{tmp_path}/run/")
    monkeypatch.setattr(service_first_upgrade, "_TEMPORARY", (tmp_path / "tmp",))
    (tmp_path / "run").mkdir()
    (tmp_path / f"tmp/systemd-private-1-{UNIT}-2").mkdir(parents=True)
    (tmp_path / "tmp/systemd-private-1-another.service-3").mkdir(parents=True)
    return tmp_path


@pytest.fixture(params=["old"])
def daemon(request: pytest.FixtureRequest, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = start(request.param, str(directory / "listen"), str(directory / "run/status"))
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def systemd(daemon: subprocess.Popen[bytes], directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    found = Systemd(directory / "notify", daemon.pid)
    monkeypatch.setattr(service_first_upgrade, "_show", found.show)
    yield found
    found.close()


def port_of(daemon: subprocess.Popen[bytes]) -> int:
    assert daemon.stdout is not None
    return int(daemon.stdout.readline())


# States of proc_pid_stat(5).
RUNS, STOPPED = {"R", "S"}, {"T"}


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def comes_to(pid: int, states: set[str]) -> bool:
    """Wait until it is in one of these states."""
    end = time.monotonic() + 60
    while state(pid) not in states and time.monotonic() < end:
        time.sleep(0.01)
    return state(pid) in states


def test_systemd_keeps_the_sockets_and_the_workers_retire(
    daemon: subprocess.Popen[bytes], systemd: Systemd, directory: Path
) -> None:
    port = port_of(daemon)
    with sockets_kept(UNIT):
        assert sorted(systemd.kept) == [str(directory / "listen"), f"127.0.0.1%3A{port}"]
        assert set(systemd.senders) == {daemon.pid}
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == b"retired\n"
        assert comes_to(daemon.pid, STOPPED), "it would replace the worker"
        with socket.create_connection(("127.0.0.1", port), 60):
            accepted, _ = systemd.kept[f"127.0.0.1%3A{port}"].accept()
            accepted.close()
        kept = sorted(path.name for path in (directory / "tmp").iterdir())
        assert kept == ["systemd-private-1-another.service-3", f"systemd-private-1-{UNIT}-2-old"]
    assert comes_to(daemon.pid, RUNS)


@pytest.mark.parametrize("daemon", ["new"], indirect=True)
def test_a_daemon_that_knows_usr2_is_left_alone(daemon: subprocess.Popen[bytes], systemd: Systemd) -> None:
    port_of(daemon)
    with sockets_kept(UNIT):
        assert systemd.kept == {}
        assert state(daemon.pid) in RUNS


def test_no_wait_where_systemd_keeps_no_sockets(
    daemon: subprocess.Popen[bytes], systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The restart is as usual: the daemon hears TERM, and not before."""
    port_of(daemon)
    monkeypatch.setattr(service_first_upgrade, "_NOTIFY_SOCKET", "/nonexistent")
    with sockets_kept(UNIT):
        assert systemd.kept == {}
        assert state(daemon.pid) in RUNS


def test_a_daemon_that_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_first_upgrade, "_show", lambda *_: {"MainPID": "0", "NFileDescriptorStore": "0"})
    with sockets_kept(UNIT):
        pass
