"""The smaller parts of the service: pid file, status socket, readiness, generations, descriptors."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.config.settings import Settings
from proxsmtp_tp.net.admission import WORKERS_MAX, Admission
from proxsmtp_tp.net.listening import Endpoint
from proxsmtp_tp.service import generation as generations
from proxsmtp_tp.service.generation import Generation, Phase, Rows, Worker, backoff, ending
from proxsmtp_tp.service.launch import _check_temp_directory, _pid_path, _raise_descriptor_limit
from proxsmtp_tp.service.master import _close_everywhere, with_workers
from proxsmtp_tp.service.pidfile import PidFile, PidFileError
from proxsmtp_tp.service.readiness import Notifier
from proxsmtp_tp.service.status import StatusSocket, find_sockets, read_status
from proxsmtp_tp.service.worker import make_proxy

if TYPE_CHECKING:
    from pathlib import Path

# Pid file.


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
    precious = tmp_path / "precious"
    precious.write_text("mail")
    (tmp_path / "soft").symlink_to(precious)
    (tmp_path / "hard").hardlink_to(precious)
    for name in ("soft", "hard"):
        pid_file = PidFile(str(tmp_path / name))
        pid_file.write()
        pid_file.remove()
    assert precious.read_text() == "mail"
    assert caplog.text.count("couldn't open pid file") == 2


def test_the_pid_file_of_a_live_daemon_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    code = "import sys; from proxsmtp_tp.service.pidfile import PidFile\np = PidFile(sys.argv[1]); p.write(); input()"
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE) as other:
        try:
            wait_for(lambda: path.exists() and path.read_text() == f"{other.pid}\n")
            with pytest.raises(PidFileError, match=f"the daemon {other.pid} runs"):
                PidFile(str(path))
        finally:
            other.kill()
    assert path.read_text() == f"{other.pid}\n"
    PidFile(str(path)).remove()  # a killed daemon holds nothing


def test_a_pid_file_that_became_anothers_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    pid_file = PidFile(str(path))
    path.unlink()
    path.write_text("another's\n")
    pid_file.remove()
    assert path.read_text() == "another's\n"


def wait_for(what: Any) -> None:
    end = time.monotonic() + 30
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


# Status.


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
    return tmp_path / "run"


def ask(status: StatusSocket, path: Path) -> object:
    """Connect first, then let the daemon answer, then read."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        status.answer(lambda: {"pid": 1})
        return client.recv(4096)


def test_status_answers_and_hangs_up(folder: Path) -> None:
    status = StatusSocket("a")
    assert ask(status, folder / "a.sock") == b'{"pid": 1}\n'
    assert (folder / "a.sock").stat().st_mode & 0o777 == 0o600
    assert next(iter(find_sockets())) == folder / "a.sock"
    status.close(remove=True)
    assert not (folder / "a.sock").exists()
    assert status.fileno() is None


def test_a_dead_status_socket_is_taken_over(folder: Path) -> None:
    StatusSocket("a").close()
    assert read_status(folder / "a.sock") is None
    status = StatusSocket("a")
    assert ask(status, folder / "a.sock")
    status.close()


def test_status_waits_for_nobody(folder: Path) -> None:
    """Clients that never read, and more of them than are answered at a time."""
    status = StatusSocket("a")
    clients = [socket.socket(socket.AF_UNIX) for _ in range(10)]
    for client in clients:
        client.connect(str(folder / "a.sock"))
    status.answer(lambda: {"much": "x" * 1_000_000})
    for client in clients:
        client.close()
    status.answer(dict)
    status.close()


def test_a_file_in_its_place_is_not_removed(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.sock").write_text("precious")
    status = StatusSocket("a")
    assert status.fileno() is None
    status.answer(dict)
    status.close(remove=True)
    assert (folder / "a.sock").read_text() == "precious"


@pytest.mark.parametrize("said", [b"", b"[1]", b"no json", b"\xff" * 99])
def test_what_is_no_status_is_none(tmp_path: Path, said: bytes) -> None:
    path = tmp_path / "s"
    code = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()\n"
        "c = s.accept()[0]; c.sendall(bytes.fromhex(sys.argv[2])); c.close()"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path), said.hex()]) as other:
        wait_for(lambda: path.exists() and is_listening(path))
        assert read_status(path) is None
        assert other.wait(30) == 0


def is_listening(path: Path) -> bool:
    from pathlib import Path as RealPath

    table = [line.split() for line in RealPath("/proc/net/unix").read_text().splitlines()]
    return any(row[-1] == str(path) and row[3] == "00010000" for row in table)


# Readiness.


def test_without_a_service_manager_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setenv("WATCHDOG_USEC", "1000")
    notifier = Notifier()
    notifier.ready("x")
    notifier.alive()
    assert notifier.watchdog is None


def test_an_abstract_socket_and_a_clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(10)
        manager.bind(f"\0proxsmtp-tp-test-{os.getpid()}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@proxsmtp-tp-test-{os.getpid()}")
        monkeypatch.setenv("WATCHDOG_USEC", "2000000")
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
        notifier = Notifier()
        assert notifier.watchdog == 2.0
        assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & set(os.environ)
        notifier.alive()
        assert manager.recv(99) == b"WATCHDOG=1"
    notifier.ready("the manager is gone: no error")
    notifier.close()


def test_the_watchdog_of_another_process_is_not_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "n"))
    monkeypatch.setenv("WATCHDOG_USEC", "2000000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    notifier = Notifier()
    assert notifier.watchdog is None
    notifier.close()


# Generations.


def test_starts_come_slower_and_slower_and_never_stop() -> None:
    waits = [backoff(failures) for failures in range(100)]
    assert waits[:4] == [0.0, 0.1, 0.2, 0.4]
    assert waits == sorted(waits)
    assert waits[-1] == generations.BACKOFF_MAX


@pytest.mark.parametrize(
    ("code", "said"),
    [("raise SystemExit(3)", "exit status 3"), ("import os; os.kill(os.getpid(), 9)", "signal SIGKILL")],
)
def test_every_ending_has_a_name(code: str, said: str) -> None:
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", code], os.environ)
    assert ending(os.waitpid(pid, 0)[1]) == said


def test_rows_are_given_lowest_first() -> None:
    rows = Rows()
    assert [rows.take() for _ in range(3)] == [0, 1, 2]
    rows.give_back(1)
    assert rows.take() == 1
    assert len(rows) == WORKERS_MAX - 3


class Case:
    """A generation with a child that is no real worker, but a process that sleeps."""

    def __init__(self) -> None:
        self.table = Admission(9, 0)
        rows = Rows()
        shared = (self.table, rows)
        self.generation = Generation(Settings(workers=1), {}, shared, make_proxy, lambda: None)
        self.pid = os.posix_spawn("/bin/sleep", ["sleep", "600"], os.environ)
        self.out, self.into = os.pipe()
        os.set_blocking(self.out, False)
        row = rows.take()
        self.table.begin(row)
        self.worker = Worker(self.pid, row, self.out, time.monotonic())
        self.generation.workers[self.pid] = self.worker

    def end(self) -> int:
        """Reap it; how it ended."""
        os.close(self.into)
        _, status = os.waitpid(self.pid, 0)
        assert self.generation.reaped(self.pid, status)
        return status


def test_a_silent_worker_is_killed_and_one_that_speaks_is_not(caplog: pytest.LogCaptureFixture) -> None:
    case = Case()
    for _ in range(3 * generations.SILENT_PULSES):
        os.write(case.into, b".")
        case.generation.pulsed(case.worker)
        case.generation.pulse_passed()
    assert case.generation.phase is Phase.RUNNING
    assert "hangs" not in caplog.text
    for _ in range(generations.SILENT_PULSES):
        case.generation.pulse_passed()
    assert "hangs" in caplog.text
    assert ending(case.end()) == "signal SIGKILL"


def test_a_worker_that_died_young_is_replaced_later_and_an_old_one_at_once() -> None:
    young = Case()
    os.kill(young.pid, signal.SIGKILL)
    before = time.monotonic()
    young.end()
    assert before + generations.BACKOFF_MIN <= young.generation.due() <= time.monotonic() + generations.BACKOFF_MIN
    assert young.generation.early_deaths == 1
    old = Case()
    old.worker.born -= generations.STABLE
    old.worker.ready = True
    os.kill(old.pid, signal.SIGKILL)
    old.end()
    assert old.generation.due() <= time.monotonic()
    assert old.generation.early_deaths == 0


def test_a_dead_worker_leaves_no_connection_behind(caplog: pytest.LogCaptureFixture) -> None:
    case = Case()
    case.table.try_enter(0)
    case.table.try_enter(0)
    os.kill(case.pid, signal.SIGKILL)
    case.end()
    assert case.table.counts() == [0]
    assert "connections lost: 2" in caplog.text
    assert not case.generation.reaped(case.pid, 0)


def test_who_does_not_hear_term_is_killed_in_the_end() -> None:
    case = Case()
    os.kill(case.pid, signal.SIGSTOP)  # it will not hear TERM
    case.generation.drain()
    case.generation.tick()
    assert case.generation.due() > time.monotonic() + 30
    case.generation._kill_at = 0.0
    case.generation.tick()
    assert ending(case.end()) == "signal SIGKILL"
    assert case.generation.due() == float("inf")  # and nobody takes its place


def test_nobody_is_replaced_while_draining() -> None:
    case = Case()
    case.generation.drain()
    assert ending(case.end()) == "signal SIGTERM"
    case.generation._kill_at = float("inf")
    assert case.generation.due() == float("inf")


# Small things of master and launch.


def test_a_listener_stops_in_every_process_that_has_it() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    in_a_worker = listener.dup()
    _close_everywhere({Endpoint(socket.AF_INET, address): listener})
    with in_a_worker, socket.socket() as client, pytest.raises(ConnectionRefusedError):
        client.connect(address)


def test_workers_are_counted_once_and_for_all() -> None:
    assert with_workers(Settings()).workers == len(os.sched_getaffinity(0))
    assert with_workers(Settings(workers=3)).workers == 3


def test_descriptors_are_raised_and_what_is_missing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
    try:
        _raise_descriptor_limit(Settings())
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard
        assert caplog.text == "" or hard < 500
        _raise_descriptor_limit(Settings(max_connections=1 << 40))
        assert "LimitNOFILE=" in caplog.text
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_folder_that_cannot_be_written_to_is_said_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    _check_temp_directory(Settings(filter_command="cat"))
    _check_temp_directory(Settings(temp_directory="/nowhere"))
    assert caplog.text == ""
    _check_temp_directory(Settings(filter_command="cat", temp_directory="/nowhere"))
    assert "TempDirectory /nowhere" in caplog.text


def test_the_fields_that_a_reload_cannot_change_exist() -> None:
    from proxsmtp_tp.service.master import _FIXED

    assert set(_FIXED) <= {field.name for field in fields(Settings)}


def test_the_pid_file_of_the_configuration_goes_first(caplog: pytest.LogCaptureFixture) -> None:
    from proxsmtp_tp.config.reader import Configuration
    from proxsmtp_tp.service.launch import Launch

    wanted = Launch(Configuration(Settings()), "x", "p", pid_file="/a")
    assert _pid_path(Settings(), wanted) == "/a"
    assert caplog.text == ""
    assert _pid_path(Settings(pid_file="/b"), wanted) == "/b"
    assert "ignoring pid file specified on the command line" in caplog.text
