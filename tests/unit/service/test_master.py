"""The master with real processes, signals and sockets, and a small proxy in place of the real one."""

from __future__ import annotations

import os
import re
import signal
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.unit.service.conftest import WAIT_SECONDS, eventually, is_alive, is_stopped

if TYPE_CHECKING:
    from tests.unit.service.conftest import Daemon


def test_it_starts_serves_and_stops(daemon: Daemon) -> None:
    pid_file = daemon.folder / "pid"
    daemon.start("--pid-file", str(pid_file))
    eventually(pid_file.exists)
    assert pid_file.read_text() == f"{daemon.master}\n"
    client = daemon.connect()
    assert client.ask("PING") == "250 PING"
    status = daemon.status()
    assert status["pid"] == daemon.master
    assert status["connections"] == 1
    assert status["max_connections"] == 64
    assert status["listen"] == [daemon.socket]
    assert client.worker in daemon.workers()
    assert len(daemon.workers()) == 2
    workers = daemon.workers()
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    assert client.line() == "421 draining"
    assert not any(is_alive(pid) for pid in workers)
    assert not pid_file.exists()
    assert sorted(path.name for path in daemon.folder.iterdir()) == ["d.conf", "log", "state"]
    assert [path.name for path in (daemon.folder / "state").iterdir()] == ["trace-ids"]


def test_a_killed_worker_takes_only_its_own_connections_and_is_replaced(daemon: Daemon) -> None:
    daemon.start()
    clients = [daemon.connect() for _ in range(12)]
    killed = clients[0].worker
    others = [client for client in clients if client.worker != killed]
    before = daemon.workers()
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: killed not in daemon.workers() and len(daemon.workers()) == 2)
    assert clients[0].line() == ""
    assert all(client.ask("PING") == "250 PING" for client in others)
    assert daemon.workers() & before == before - {killed}
    assert daemon.status()["connections"] == len(others)
    assert daemon.status()["replaced_workers"] == 1
    assert f"worker {killed} ended: signal SIGKILL; connections lost: {12 - len(others)}" in daemon.log()
    assert daemon.connect().ask("PING") == "250 PING"


def test_a_worker_that_exits_is_named_with_its_status(daemon: Daemon) -> None:
    daemon.configure(Workers=1)
    daemon.start()
    client = daemon.connect()
    assert client.ask("DIE") == ""
    eventually(lambda: f"worker {client.worker} ended: exit status 7; connections lost: 1" in daemon.log())
    assert eventually(daemon.connect).worker != client.worker


def test_max_connections_holds_over_all_workers(daemon: Daemon) -> None:
    daemon.configure(Workers=3, MaxConnections=5)
    daemon.start()
    clients = [daemon.connect() for _ in range(9)]
    assert sorted(client.greeting[:3] for client in clients) == ["220"] * 5 + ["421"] * 4
    assert daemon.status()["connections"] == 5
    inside = next(client for client in clients if client.greeting.startswith("220"))
    inside.close()
    eventually(lambda: daemon.status()["connections"] == 4)
    assert daemon.connect().greeting.startswith("220")


def test_term_lets_a_running_transaction_finish(daemon: Daemon) -> None:
    daemon.start()
    busy = daemon.connect()
    assert busy.ask("BUSY") == "250 BUSY"
    daemon.signal(signal.SIGTERM)
    eventually(lambda: "stopping" in daemon.log())
    eventually(daemon.refuses)
    assert busy.ask("PING") == "250 PING"
    assert busy.ask("DONE") == "250 DONE"
    assert busy.line() == "421 draining"
    assert daemon.wait() == 0


def test_term_after_a_reload_lets_a_running_transaction_finish(daemon: Daemon) -> None:
    """The old workers have been told to drain already: this TERM does not count as the second one, which ends them at
    once."""
    daemon.start()
    idle, busy = daemon.connect(), daemon.connect()
    assert busy.ask("BUSY") == "250 BUSY"
    daemon.reload()
    daemon.signal(signal.SIGTERM)
    assert idle.line() == "421 draining"
    assert busy.ask("PING") == "250 PING"
    assert busy.ask("DONE") == "250 DONE"
    assert busy.line() == "421 draining"
    assert daemon.wait() == 0


def test_a_second_term_after_a_reload_ends_it_at_once(daemon: Daemon) -> None:
    daemon.configure(DrainTimeOut=100000)
    daemon.start()
    idle, busy = daemon.connect(), daemon.connect()
    assert busy.ask("BUSY") == "250 BUSY"
    daemon.reload()
    daemon.signal(signal.SIGTERM)
    assert idle.line() == "421 draining"
    assert busy.ask("PING") == "250 PING"
    daemon.signal(signal.SIGTERM)
    assert busy.line() == "421 stopped"
    assert daemon.wait() == 0


def test_who_does_not_finish_in_time_is_reported(daemon: Daemon) -> None:
    daemon.configure(DrainTimeOut=1)
    daemon.start()
    busy = daemon.connect()
    assert busy.ask("BUSY") == "250 BUSY"
    daemon.signal(signal.SIGTERM)
    assert busy.line() == "421 stopped"
    assert daemon.wait() == 0


def test_a_second_term_ends_it_at_once(daemon: Daemon) -> None:
    daemon.configure(DrainTimeOut=100000)
    daemon.start()
    busy = daemon.connect()
    assert busy.ask("BUSY") == "250 BUSY"
    daemon.signal(signal.SIGTERM)
    eventually(lambda: "stopping" in daemon.log())
    assert busy.ask("PING") == "250 PING"
    daemon.signal(signal.SIGTERM)
    assert busy.line() == "421 stopped"
    assert daemon.wait() == 0


def test_a_second_term_is_not_lost_while_a_first_one_waits(daemon: Daemon) -> None:
    """Two TERM that wait for a process are one to it (signal(7))."""
    daemon.configure(DrainTimeOut=100000)
    daemon.start()
    busy = daemon.connect()
    assert busy.ask("BUSY") == "250 BUSY"
    os.kill(busy.worker, signal.SIGSTOP)
    eventually(lambda: is_stopped(busy.worker))
    daemon.signal(signal.SIGTERM)
    eventually(lambda: signal.SIGTERM in waiting(busy.worker))
    daemon.signal(signal.SIGTERM)
    eventually(lambda: len(waiting(busy.worker)) == 2, "the worker does not get the second one")
    os.kill(busy.worker, signal.SIGCONT)
    assert busy.line() == "421 stopped"
    assert daemon.wait() == 0


def waiting(pid: int) -> set[int]:
    """The signals that a process has not heard yet (proc(5))."""
    bits = re.search(r"ShdPnd:\t([0-9a-f]+)", Path(f"/proc/{pid}/status").read_text())
    assert bits is not None
    return {number for number in range(1, 32) if int(bits[1], 16) >> number - 1 & 1}


def test_without_its_master_no_worker_continues(daemon: Daemon) -> None:
    daemon.start()
    idle = daemon.connect()
    workers = daemon.workers()
    daemon.signal(signal.SIGKILL)
    daemon.wait()
    assert idle.line() == "421 draining"
    eventually(lambda: not any(is_alive(pid) for pid in workers), "a worker lives on")


@pytest.mark.parametrize("inet", [False, True], ids=["unix", "inet"])
def test_a_new_master_starts_while_workers_of_a_killed_one_drain(daemon: Daemon, inet: bool) -> None:
    where = "127.0.0.1:0"
    if inet:
        with socket.create_server(("127.0.0.1", 0)) as free:
            where = f"127.0.0.1:{free.getsockname()[1]}"
    daemon.configure(**({"Listen": where} if inet else {}))
    address: object = ("127.0.0.1", int(where.partition(":")[2])) if inet else daemon.socket

    def connect() -> socket.socket:
        client = socket.socket(socket.AF_INET if inet else socket.AF_UNIX)
        client.settimeout(WAIT_SECONDS)
        clients.append(client)
        client.connect(address)  # type: ignore[arg-type]
        return client

    clients: list[socket.socket] = []
    daemon.start()
    busy = connect()
    worker = int(busy.recv(99).split()[1])
    busy.send(b"BUSY\n")
    assert busy.recv(99) == b"250 BUSY\n"
    others = daemon.workers() - {worker}
    os.kill(worker, signal.SIGSTOP)
    for other in others:
        os.kill(other, signal.SIGSTOP)
    queued = connect()  # nobody takes it
    assert daemon.process is not None
    daemon.process.kill()
    daemon.process.wait()
    for pid in (worker, *others):
        os.kill(pid, signal.SIGCONT)
    with suppress(ConnectionResetError):
        while queued.recv(99):  # served by one that had not heard of it yet, or the end at once
            pass
    (daemon.folder / "log").unlink()
    daemon.start()
    assert connect().recv(99).startswith(b"220 ")
    busy.send(b"DONE\n")
    assert busy.recv(99).startswith(b"250 DONE\n")
    for client in clients:
        client.close()
    eventually(lambda: not is_alive(worker))


def test_a_worker_that_is_told_to_end_closes_nothing_of_the_others(daemon: Daemon) -> None:
    """TERM to one worker, or a reload, with the master there."""
    daemon.configure(Workers=1)
    daemon.start()
    (worker,) = daemon.workers()
    os.kill(worker, signal.SIGTERM)
    assert daemon.connect_to_another({worker}).ask("PING") == "250 PING"
    daemon.reload()
    assert daemon.connect().ask("PING") == "250 PING"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_that_the_caller_blocked_or_ignored_are_handled(daemon: Daemon, number: signal.Signals) -> None:
    heard = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1, signal.SIGALRM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, heard)
    old = {ignored: signal.signal(ignored, signal.SIG_IGN) for ignored in heard}
    try:
        daemon.start()  # the mask and what is ignored go through exec (execve(2))
    finally:
        for ignored, handler in old.items():
            signal.signal(ignored, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    for pid in (daemon.master, *daemon.workers()):
        blocked = re.search(r"SigBlk:\t([0-9a-f]+)", Path(f"/proc/{pid}/status").read_text())
        assert blocked is not None
        assert int(blocked[1], 16) == 0
    if number == signal.SIGHUP:
        daemon.reload()
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0


def test_without_its_master_a_busy_worker_ends_in_time(daemon: Daemon) -> None:
    daemon.configure(DrainTimeOut=1)
    daemon.start()
    busy = daemon.connect()
    assert busy.ask("BUSY") == "250 BUSY"
    daemon.signal(signal.SIGKILL)
    assert busy.line() == "421 stopped"
    eventually(lambda: not is_alive(busy.worker), "the worker lives on")


def test_a_worker_that_hangs_ends_in_time_all_the_same(daemon: Daemon) -> None:
    daemon.configure(DrainTimeOut=1, Workers=1)
    daemon.start()
    hanging = daemon.connect()
    assert hanging.ask("HANG") == "250 HANG"
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    assert f"worker {hanging.worker} ended: signal SIGALRM" in daemon.log()


def test_without_its_master_a_worker_that_hangs_ends_in_time(daemon: Daemon) -> None:
    daemon.configure(DrainTimeOut=1, Workers=1)
    daemon.start()
    hanging = daemon.connect()
    assert hanging.ask("HANG") == "250 HANG"
    daemon.signal(signal.SIGKILL)
    eventually(lambda: not is_alive(hanging.worker), "the worker lives on")


def test_a_worker_that_drains_is_not_waited_for_by_the_others(daemon: Daemon) -> None:
    daemon.configure(Workers=1)
    daemon.start()
    old = daemon.connect()
    assert old.ask("BUSY") == "250 BUSY"
    daemon.reload()
    new = daemon.connect_to_another({old.worker})
    assert daemon.connect_to_another({old.worker}).worker == new.worker
    eventually(lambda: new.ask("BUSIER") == "False")
    assert len(daemon.workers()) == 2


def test_a_worker_that_cannot_start_ends_the_start(daemon: Daemon) -> None:
    daemon.configure(Header="X-Fail: /")
    daemon.launch()
    assert daemon.wait() == 1
    assert "RuntimeError: asked to fail" in daemon.log()
    assert "fake: a worker ended before it was ready" in daemon.log()


def test_a_replacement_that_cannot_start_leaves_the_others_to_serve(daemon: Daemon) -> None:
    """The reason (memory, descriptors, a disk) may be temporary: it is tried again, less and less often."""
    cause = daemon.folder / "cause"
    daemon.configure(Header=f"X-Fail: {cause}")
    daemon.start()
    cause.touch()
    os.kill(min(daemon.workers()), signal.SIGKILL)
    eventually(lambda: daemon.log().count("RuntimeError: asked to fail") >= 2)
    assert daemon.connect().ask("PING") == "250 PING"
    cause.unlink()
    eventually(lambda: len(daemon.workers()) == 2)
    assert daemon.connect().ask("PING") == "250 PING"
    assert "no worker" not in daemon.log()


def test_a_worker_has_nothing_of_the_masters(daemon: Daemon) -> None:
    pid_file = daemon.folder / "pid"
    daemon.start("--pid-file", str(pid_file))
    links = daemon.connect().ask("FILES").split()
    table = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    inode = {row[-1]: f"socket:[{row[6]}]" for row in table if row[3] == "00010000"}  # those that listen
    assert inode[daemon.socket] in links
    assert inode[str(daemon.folder / "d.sock")] not in links
    assert str(pid_file) not in links


def test_the_service_manager_is_informed(daemon: Daemon) -> None:
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.settimeout(WAIT_SECONDS)
    manager.bind(str(daemon.folder / "notify"))
    daemon.environment |= {"NOTIFY_SOCKET": str(daemon.folder / "notify"), "WATCHDOG_USEC": "100000"}
    daemon.start()
    said: list[str] = []

    def hear(what: str) -> None:
        while not said or not said[-1].startswith(what):
            said.append(manager.recv(4096).decode())

    with manager:
        hear("READY=1")
        assert f"MAINPID={daemon.master}" in said[-1]
        hear("WATCHDOG=1")
        daemon.signal(signal.SIGHUP)
        hear("RELOADING=1")
        assert "MONOTONIC_USEC=" in said[-1]
        hear("READY=1")
        daemon.file.write_text("nonsense")
        daemon.signal(signal.SIGHUP)
        hear("RELOADING=1")
        hear("READY=1")
        daemon.signal(signal.SIGTERM)
        hear("STOPPING=1")
    assert daemon.wait() == 0


def test_a_daemon_leaves_its_caller_when_it_is_ready(daemon: Daemon) -> None:
    pid_file = daemon.folder / "pid"
    daemon.launch("--detach", "--pid-file", str(pid_file))
    assert daemon.wait() == 0
    daemon.master = int(pid_file.read_text())
    assert daemon.status()["pid"] == daemon.master
    assert daemon.connect().ask("PING") == "250 PING"
    assert os.getsid(daemon.master) == daemon.master
    process = Path(f"/proc/{daemon.master}")
    assert (process / "cwd").readlink() == Path("/")
    assert {(process / "fd" / str(number)).readlink() for number in range(3)} == {Path("/dev/null")}
    daemon.signal(signal.SIGTERM)
    eventually(lambda: not is_alive(daemon.master))
    assert not pid_file.exists()


def test_a_daemon_that_cannot_start_says_why(daemon: Daemon) -> None:
    daemon.configure(Listen="/nowhere/x")
    daemon.launch("--detach")
    assert daemon.wait() == 1
    assert daemon.log().endswith("fake: Listen /nowhere/x: No such file or directory\n")


def test_two_daemons_do_not_share_a_pid_file(daemon: Daemon) -> None:
    pid_file = daemon.folder / "pid"
    daemon.start("--pid-file", str(pid_file))
    first, daemon.process = daemon.process, None
    daemon.configure(Listen=daemon.folder / "other")
    daemon.launch("--pid-file", str(pid_file))
    assert daemon.wait() == 1
    assert f"the daemon {daemon.master} runs with it" in daemon.log()
    assert pid_file.read_text() == f"{daemon.master}\n"
    daemon.process = first
    assert daemon.connect().ask("PING") == "250 PING"


def test_the_next_daemon_waits_for_one_that_was_told_to_stop(daemon: Daemon) -> None:
    """`kill $(cat PIDFILE); proxsmtpd ...`, while a client of the first one is not done."""
    pid_file = daemon.folder / "pid"
    daemon.start("--pid-file", str(pid_file))
    busy = daemon.connect()
    assert busy.ask("BUSY") == "250 BUSY"
    first, before = daemon.process, daemon.log()
    assert first is not None
    try:
        first.terminate()
        daemon.launch("--pid-file", str(pid_file))
        eventually(lambda: f"until daemon {first.pid} has finished its transactions" in daemon.log())
        assert pid_file.read_text() == f"{first.pid}\n"
        assert busy.ask("DONE") == "250 DONE"
        assert first.wait(WAIT_SECONDS) == 0
    finally:
        first.kill()
    eventually(lambda: "accepting connections" in daemon.log()[len(before) :], daemon.log())
    assert daemon.process is not None
    daemon.master = daemon.process.pid
    assert pid_file.read_text() == f"{daemon.master}\n"
    assert daemon.status()["pid"] == daemon.master
    assert daemon.connect().ask("PING") == "250 PING"


def test_an_instance_with_the_same_name_runs_without_a_status(daemon: Daemon) -> None:
    daemon.start()
    first, daemon.process = daemon.process, None
    master = daemon.master
    daemon.configure(Listen=daemon.folder / "other")
    daemon.launch()
    try:
        eventually(lambda: "the instance d runs already" in daemon.log())
        assert eventually((daemon.folder / "other").exists)
        assert daemon.connect(str(daemon.folder / "other")).ask("PING") == "250 PING"
        assert daemon.status()["pid"] == master
    finally:
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGTERM)
        daemon.wait()
        daemon.process = first
    assert daemon.status()["pid"] == master
