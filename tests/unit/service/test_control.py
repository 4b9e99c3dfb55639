"""The control socket: one request, one answer; no client can make the master wait."""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.service import control, unix_listener
from proxsmtp_tp.service.control import CLIENTS_MAX, REQUEST_MAX, Command, ControlError, ControlSocket, ask
from proxsmtp_tp.service.status import control_path
from tests.unit.service.conftest import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.unit.service.conftest import Daemon


def _refuse(_request: Mapping[str, Any]) -> Mapping[str, Any]:
    raise ControlError("not today")


def _fail(_request: Mapping[str, Any]) -> Mapping[str, Any]:
    raise RuntimeError("a bug")


COMMANDS = {
    "echo": Command(lambda request: {"said": request.get("text")}, lambda _request: False),
    "set": Command(lambda request: {"set": request.get("to")}),
    "much": Command(lambda _request: {"much": "x" * 3_000_000}, lambda _request: False),
    "refuse": Command(_refuse),
    "fail": Command(_fail),
}


@pytest.fixture
def path() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="px"))
    yield folder / "a.control"
    shutil.rmtree(folder)


@contextmanager
def served(path: Path) -> Iterator[ControlSocket]:
    """A socket with a loop as the master has one, in a thread."""
    server = ControlSocket(path)
    server.commands = COMMANDS
    stop = threading.Event()

    def loop() -> None:
        while not stop.is_set():
            poll = select.poll()
            server.register(poll)
            for descriptor, _ in poll.poll(10):
                server.step(descriptor)
            server.step()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield server
    finally:
        stop.set()
        thread.join()
        server.close(remove=True)
        assert not path.exists()


def test_it_answers(path: Path) -> None:
    with served(path):
        assert path.stat().st_mode & 0o777 == 0o600
        assert ask(path, "echo", text="grüße\n") == {"said": "grüße\n"}
        assert ask(path, "much") == {"much": "x" * 3_000_000}


def test_a_change_is_logged_with_who_made_it(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    with served(path):
        ask(path, "echo", text="canary")
        ask(path, "set", to=4)
    assert caplog.messages == [f"control: set to=4: uid {os.getuid()}, pid {os.getpid()}"]


def test_what_fails_is_said(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with served(path):
        with pytest.raises(ControlError, match="not today"):
            ask(path, "refuse")
        with pytest.raises(ControlError, match="internal error"):
            ask(path, "fail")
        with pytest.raises(ControlError, match="there are: echo, fail, much, refuse, set"):
            ask(path, "nonsense")
    assert "a bug" in caplog.text


@pytest.mark.parametrize("line", [b"\n", b"1\n", b"[]\n", b'{"command": []}\n', b"\xff\n", b"[" * 60000 + b"\n"])
def test_what_is_no_request_gets_an_error(path: Path, line: bytes) -> None:
    with served(path), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(path))
        client.sendall(line)
        assert "error" in json.loads(client.recv(4096))


def test_a_request_in_pieces_and_one_that_is_too_long(path: Path) -> None:
    with served(path), socket.socket(socket.AF_UNIX) as slow, socket.socket(socket.AF_UNIX) as long:
        for client in (slow, long):
            client.settimeout(20)
            client.connect(str(path))
        for piece in (b'{"comm', b'and": "echo', b'", "text": 1}', b"\n"):
            slow.sendall(piece)
            time.sleep(0.02)
        assert json.loads(slow.recv(4096)) == {"said": 1}
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            long.sendall(b"x" * REQUEST_MAX * 100)


def test_clients_that_ask_nothing_or_read_nothing_are_dropped(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them than are served at once: the next one gets its turn."""
    monkeypatch.setattr(control, "SECONDS", 1.0)
    with served(path) as server:
        clients = []
        for number in range(CLIENTS_MAX + 4):
            client = socket.socket(socket.AF_UNIX)
            client.connect(str(path))
            if number % 2:
                client.sendall(b'{"command": "much"}\n')
            clients.append(client)
        eventually(lambda: len(server._clients) == CLIENTS_MAX)
        monkeypatch.setattr(unix_listener, "SECONDS", 20.0)
        monkeypatch.setattr(control, "SECONDS", 20.0)
        assert ask(path, "echo", text=1) == {"said": 1}
        for client in clients:
            client.close()
        eventually(lambda: server.due() == float("inf"))


def test_who_is_neither_root_nor_the_daemons_user_may_not_ask(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Even if somebody has opened the socket to all."""
    with served(path):
        path.parent.chmod(0o711)
        path.chmod(0o666)
        child = os.fork()
        if child == 0:
            os.setuid(65534)
            try:
                ask(path, "echo")
            except (OSError, ControlError):
                os._exit(3)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    assert "uid 65534 may not ask" in caplog.text


def test_a_daemon_without_a_folder_has_no_control() -> None:
    server = ControlSocket(None)
    server.step()
    server.register(select.poll())
    assert server.due() == float("inf")
    server.close(remove=True)


@pytest.mark.parametrize(
    ("status", "path"), [("/run/p/a.sock", "/run/p/a.control"), ("/run/p/a/socket", "/run/p/a/control")]
)
def test_it_is_beside_the_status_socket(status: str, path: str) -> None:
    assert control_path(Path(status)) == Path(path)


def test_the_daemon_is_asked_for_its_log_level(daemon: Daemon) -> None:
    """With -d 4, which the fake daemon has: it overrides LogLevel, and the command overrides it."""
    daemon.configure(LogLevel=1)
    daemon.start()
    path = daemon.folder / "d.control"
    assert ask(path, "log-level") == {"level": 4, "source": "-d", "left": None, "default": 4, "traced": []}
    assert ask(path, "log-level", level=2)["level"] == 2
    daemon.configure(LogLevel=0)
    daemon.reload()
    assert daemon.status()["log"]["level"] == 2
    assert ask(path, "log-level", level="default")["level"] == 4
    assert ask(path, "log-level", trace="192.0.2.1", seconds=600)["traced"] == [
        {"network": "192.0.2.1/32", "left": 600}
    ]
    assert "control: log-level level=2: uid" in daemon.log()
    for bad in (
        {"level": 5},
        {"level": "x"},
        {"level": True},
        {"trace": "x"},
        {"end_trace": "::1"},
        {"level": 1, "seconds": 0},
    ):
        with pytest.raises(ControlError):
            ask(path, "log-level", **bad)
    worker = daemon.connect()
    assert "control" not in worker.ask("FILES")
