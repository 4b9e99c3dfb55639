"""A restart by a service manager that keeps the listening sockets: no client is refused, and the old sessions continue.

The manager is this test: it receives the sockets as systemd does (sd_pid_notify_with_fds(3)) and gives them to the next
daemon (sd_listen_fds(3)).
"""

from __future__ import annotations

import os
import select
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

from tests.unit.service.conftest import WAIT_SECONDS, eventually, is_alive, is_stopped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.service.conftest import Daemon


class Manager:
    """Keeps copies of sockets as systemd does: each socket once, until it is removed by its name or listens no more."""

    def __init__(self, path: Path) -> None:
        self.keeps = True
        """False: as a unit without FileDescriptorStoreMax."""
        self._store: dict[int, str] = {}
        self._end = threading.Event()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def kept(self) -> list[str]:
        """The names of the sockets."""
        return sorted(self._store.copy().values())

    @property
    def descriptors(self) -> list[int]:
        """The copies."""
        return list(self._store.copy())

    def close(self) -> None:
        self._end.set()
        self._thread.join()
        self._socket.close()
        for descriptor in self._store:
            os.close(descriptor)

    def _run(self) -> None:
        while not self._end.is_set():
            poll = select.poll()
            poll.register(self._socket, select.POLLIN)
            for descriptor in self._store:
                poll.register(descriptor, 0)  # POLLHUP and POLLERR are reported in any case
            for descriptor, _ in poll.poll(20):
                if descriptor == self._socket.fileno():
                    self._hear()
                elif descriptor in self._store:
                    self._forget(descriptor)

    def _hear(self) -> None:
        data, extra, _, _ = self._socket.recvmsg(4096, socket.CMSG_LEN(4))
        fields = dict(line.split("=", 1) for line in data.decode().split("\n"))
        if "FDSTORE" in fields:
            (descriptor,) = array("i", extra[0][2])
            has_it = any(os.path.sameopenfile(descriptor, other) for other in self._store)
            if has_it or not self.keeps:
                os.close(descriptor)
            else:
                self._store[descriptor] = fields["FDNAME"]
        elif "FDSTOREREMOVE" in fields:
            for descriptor in [number for number, name in self._store.items() if name == fields["FDNAME"]]:
                self._forget(descriptor)

    def _forget(self, descriptor: int) -> None:
        del self._store[descriptor]
        os.close(descriptor)


@pytest.fixture
def manager(daemon: Daemon) -> Iterator[Manager]:
    path = daemon.folder / "notify"
    made = Manager(path)
    daemon.environment["NOTIFY_SOCKET"] = str(path)
    yield made
    made.close()


def launch_next(daemon: Daemon, manager: Manager) -> None:
    """Start with the descriptors from 3 on, as systemd does, and do not wait."""
    numbers = manager.descriptors
    moves = " ".join(f"{3 + index}<&{number}" for index, number in enumerate(numbers))
    program = Path(__file__).with_name("fake_daemon.py")
    script = f'LISTEN_PID=$$ LISTEN_FDS={len(numbers)} exec "{sys.executable}" "{program}" "{daemon.file}" {moves}'
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


def start_next(daemon: Daemon, manager: Manager) -> None:
    """Start, and wait until it is ready."""
    before = daemon.log().count("accepting connections")
    launch_next(daemon, manager)
    assert daemon.process is not None
    process = daemon.process
    eventually(lambda: process.poll() is not None or daemon.log().count("accepting connections") > before)
    assert process.poll() is None, daemon.log()


def free_port() -> int:
    """On 127.0.0.1."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


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
    inode = Path(f"/proc/self/fd/{manager.descriptors[0]}").readlink()
    assert inode not in links  # it does not look as if it accepted
    waiting = daemon.connect_to_queue()  # nobody serves, and nobody refuses
    start_next(daemon, manager)
    assert waiting.recv(99).startswith(b"220 ")
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
    waiting = daemon.connect_to_queue()
    start_next(daemon, manager)
    assert waiting.recv(99).startswith(b"220 ")
    assert busy.ask("DONE") == "250 DONE"


def test_a_changed_address_is_let_go(daemon: Daemon, manager: Manager) -> None:
    """In a reload, and over a restart: also one on all addresses that is in the way of a single one."""
    port = free_port()
    daemon.configure(Listen=f"0.0.0.0:{port}")
    daemon.start()
    eventually(lambda: manager.kept == [f"0.0.0.0%3A{port}"])
    daemon.signal(signal.SIGUSR2)
    assert daemon.wait() == 0
    daemon.configure(Listen=f"127.0.0.1:{port}")
    start_next(daemon, manager)
    eventually(lambda: manager.kept == [f"127.0.0.1%3A{port}"])
    with socket.create_connection(("127.0.0.1", port), WAIT_SECONDS) as client:
        assert client.recv(99).startswith(b"220 ")
    daemon.configure()
    daemon.reload()
    eventually(lambda: len(manager.kept) == 1 and f"127.0.0.1%3A{port}" not in manager.kept)
    assert daemon.connect().ask("PING") == "250 PING"


def test_a_socket_whose_file_is_gone_is_let_go(daemon: Daemon, manager: Manager) -> None:
    """Nobody reaches it any more, but clients may be in its queue."""
    daemon.start()
    eventually(lambda: manager.kept)
    gone = os.fstat(manager.descriptors[0]).st_ino
    daemon.signal(signal.SIGUSR2)
    assert daemon.wait() == 0
    waiting = daemon.connect_to_queue()
    Path(daemon.socket).unlink()
    start_next(daemon, manager)
    assert waiting.recv(99) == b""
    eventually(lambda: gone not in [os.fstat(number).st_ino for number in manager.descriptors])
    daemon.signal(signal.SIGUSR2)
    assert daemon.wait() == 0
    start_next(daemon, manager)
    assert daemon.connect().ask("PING") == "250 PING"


@pytest.mark.parametrize(
    "cause", [{"Listen": "127.0.0.1:1, no-such-host.invalid:25"}, {"Listen": "PORT"}, {"Header": "X-Fail: /"}]
)
def test_where_the_next_daemon_cannot_start_clients_do_not_wait(
    daemon: Daemon, manager: Manager, cause: dict[str, str]
) -> None:
    """systemd tries again and again: clients are refused as without a daemon. The one that starts serves."""
    daemon.start()
    eventually(lambda: manager.kept)
    daemon.signal(signal.SIGUSR2)
    assert daemon.wait() == 0
    waiting = daemon.connect_to_queue()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = f"{daemon.socket}, 127.0.0.1:{other.getsockname()[1]}"
        daemon.configure(**{name: value.replace("PORT", port) for name, value in cause.items()})
        launch_next(daemon, manager)
        assert daemon.wait() == 1
    assert waiting.recv(99) == b""
    eventually(lambda: not manager.kept)
    assert daemon.refuses()
    daemon.configure()
    start_next(daemon, manager)
    assert daemon.connect().ask("PING") == "250 PING"


def test_two_restarts_while_the_first_daemon_finishes(daemon: Daemon, manager: Manager) -> None:
    daemon.start()
    busy = []
    for _ in range(2):
        eventually(lambda: manager.kept)
        busy.append(daemon.connect())
        assert busy[-1].ask("BUSY") == "250 BUSY"
        daemon.signal(signal.SIGUSR2)
        assert daemon.wait() == 0
        start_next(daemon, manager)
    assert len(manager.kept) == 1
    for client in busy:
        assert client.ask("DONE") == "250 DONE"
    assert daemon.connect().ask("PING") == "250 PING"


def test_a_restart_before_the_start_is_complete(daemon: Daemon, manager: Manager) -> None:
    """Then systemd sends TERM only, and not USR2 before."""
    daemon.start()
    eventually(lambda: manager.kept)
    daemon.signal(signal.SIGUSR2)
    assert daemon.wait() == 0
    waiting = daemon.connect_to_queue()
    started = daemon.log().count(" started\n")
    daemon.configure(Header="X-Wait: /")
    launch_next(daemon, manager)
    eventually(lambda: daemon.log().count(" started\n") == started + 2)
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    assert len(manager.kept) == 1
    daemon.configure()
    start_next(daemon, manager)
    assert waiting.recv(99).startswith(b"220 ")


def test_a_restart_during_a_reload(daemon: Daemon, manager: Manager) -> None:
    """The next daemon can bind the new address, although the manager has no copy of it."""
    daemon.start()
    eventually(lambda: manager.kept)
    port = free_port()
    daemon.configure(Listen=f"127.0.0.1:{port}", Header="X-Wait: /")
    daemon.signal(signal.SIGHUP)
    new = eventually(lambda: [worker["pid"] for worker in daemon.status()["workers"] if worker["phase"] == "starting"])
    for pid in new:
        os.kill(pid, signal.SIGSTOP)  # as one that the processor has no time for
    eventually(lambda: all(is_stopped(pid) for pid in new))
    daemon.signal(signal.SIGUSR2)
    assert daemon.wait() == 0
    daemon.configure(Listen=f"127.0.0.1:{port}")
    try:
        start_next(daemon, manager)
    finally:
        for pid in new:
            with suppress(ProcessLookupError):  # the old daemon has ended it
                os.kill(pid, signal.SIGKILL)
    with socket.create_connection(("127.0.0.1", port), WAIT_SECONDS) as client:
        assert client.recv(99).startswith(b"220 ")


def test_a_stop_and_a_start(daemon: Daemon, manager: Manager) -> None:
    """The stop waits for transactions; meanwhile nobody waits in a queue."""
    daemon.start()
    eventually(lambda: manager.kept)
    busy = daemon.connect()
    assert busy.ask("BUSY") == "250 BUSY"
    daemon.signal(signal.SIGTERM)
    eventually(lambda: not manager.kept)
    assert daemon.refuses()
    assert busy.ask("DONE") == "250 DONE"
    assert daemon.wait() == 0
    start_next(daemon, manager)
    assert daemon.connect().ask("PING") == "250 PING"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGUSR2])
def test_a_manager_that_keeps_nothing(daemon: Daemon, manager: Manager, number: signal.Signals) -> None:
    """The unit of 2.0 has no FileDescriptorStoreMax: the next daemon can bind while the old one finishes."""
    manager.keeps = False
    port = free_port()
    daemon.configure(Listen=f"127.0.0.1:{port}")
    daemon.start()
    with socket.create_connection(("127.0.0.1", port), WAIT_SECONDS) as busy:
        worker = int(busy.recv(99).split()[1])
        busy.sendall(b"BUSY\n")
        assert busy.recv(99) == b"250 BUSY\n"
        daemon.signal(number)
        daemon.wait()
        start_next(daemon, manager)
        assert is_alive(worker)
        with socket.create_connection(("127.0.0.1", port), WAIT_SECONDS) as client:
            assert client.recv(99).startswith(b"220 ")


def test_without_a_manager_nothing_is_handed_over(daemon: Daemon) -> None:
    daemon.start()
    daemon.signal(signal.SIGUSR2)
    eventually(lambda: "USR2 is for a service manager" in daemon.log())
    assert daemon.connect().ask("PING") == "250 PING"
