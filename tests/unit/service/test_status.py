"""The status socket answers all clients, and waits for none."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from proxsmtp_tp.service.status import StatusSocket, find_sockets, instance_of, read_status
from tests.unit.service.conftest import eventually


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
    return tmp_path / "run"


def opened(instance: str) -> StatusSocket:
    """Of a daemon that becomes no other user."""
    status = StatusSocket(instance)
    status.open()
    return status


def ask(status: StatusSocket, path: Path) -> object:
    """Connect first, then let the daemon answer, then read."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        status.answer(lambda: {"pid": 1})
        return client.recv(4096)


def test_status_answers_and_closes(folder: Path) -> None:
    status = opened("a")
    assert ask(status, folder / "a.sock") == b'{"pid": 1}\n'
    assert (folder / "a.sock").stat().st_mode & 0o777 == 0o600
    assert next(iter(find_sockets())) == folder / "a.sock"
    status.close(remove=True)
    assert not (folder / "a.sock").exists()
    assert status.fileno() is None


def test_a_dead_status_socket_is_taken_over(folder: Path) -> None:
    opened("a").close()
    assert read_status(folder / "a.sock") is None
    status = opened("a")
    assert ask(status, folder / "a.sock")
    status.close()


def test_status_does_not_wait_for_a_worker(folder: Path) -> None:
    """Clients that never read, and more of them than are answered at a time."""
    status = opened("a")
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
    status = opened("a")
    assert status.fileno() is None
    status.answer(dict)
    status.close(remove=True)
    assert (folder / "a.sock").read_text() == "precious"


@pytest.mark.parametrize("said", [b"", b"[1]", b"no json", b"\xff" * 99, b"[" * 60000])
def test_what_is_no_status_is_none(tmp_path: Path, said: bytes) -> None:
    path = tmp_path / "s"
    code = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()\n"
        "c = s.accept()[0]; c.sendall(bytes.fromhex(sys.argv[2])); c.close()"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path), said.hex()]) as other:
        eventually(lambda: path.exists() and is_listening(path))
        assert read_status(path) is None
        assert other.wait(30) == 0


def is_listening(path: Path) -> bool:
    table = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    return any(row[-1] == str(path) and row[3] == "00010000" for row in table)


def test_a_folder_of_its_own_follows_no_link(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    folder.mkdir()
    (tmp_path / "precious").mkdir(mode=0o700)
    (folder / "a").symlink_to(tmp_path / "precious")
    StatusSocket("a", pwd.getpwuid(os.getuid()))
    assert (tmp_path / "precious").stat().st_mode & 0o777 == 0o700
    assert "no status at" in caplog.text


def test_a_socket_in_a_folder_of_its_own_is_found_by_its_instance(folder: Path) -> None:
    own = StatusSocket("a", pwd.getpwuid(os.getuid()))
    own.open()
    flat = opened("b")
    assert [(path, instance_of(path)) for path in find_sockets()][:2] == [
        (folder / "a" / "socket", "a"),
        (folder / "b.sock", "b"),
    ]
    assert own.file("heartbeat") == folder / "a" / "heartbeat"
    assert flat.file("heartbeat") == folder / "b.heartbeat"
    assert ask(own, own.path)
    for status in (own, flat):
        status.close(remove=True)
        assert status.file("heartbeat") is None
