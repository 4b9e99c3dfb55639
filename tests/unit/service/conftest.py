"""A daemon of its own for each test: configuration, runtime folder and sockets under one short path."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.service.status import read_status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WAIT_SECONDS = 60.0
"""Seconds that anything may take on a loaded machine. Nothing waits that long unless it fails."""


def eventually(what: Callable[[], Any], why: str = "") -> Any:
    """The first true value of `what()`, within WAIT_SECONDS."""
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        if value := what():
            return value
        time.sleep(0.01)
    raise AssertionError(why or "it did not happen")


def is_stopped(pid: int) -> bool:
    """Whether SIGSTOP has taken effect: until then a process may handle other signals (proc(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that ended and was not reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return False


class Client:
    """A connection to the fake proxy, line by line."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(WAIT_SECONDS)
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise
        self._file = self._socket.makefile("rb")
        self.greeting = self.line()

    @property
    def worker(self) -> int:
        """The process that serves this connection."""
        return int(self.greeting.split()[1])

    def line(self) -> str:
        """The next line; empty at the end."""
        with suppress(ConnectionResetError):
            return self._file.readline().decode().strip()
        return ""

    def ask(self, word: str) -> str:
        """Send a line, get a line."""
        self._socket.sendall(word.encode() + b"\n")
        return self.line()

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._socket.close()


class Daemon:
    """The fake daemon, run as a program."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "d.conf"
        self.socket = str(folder / "listen")
        self.process: subprocess.Popen[bytes] | None = None
        self.clients: list[Client | socket.socket] = []
        self.environment = {**os.environ, "RUNTIME_DIRECTORY": str(folder), "STATE_DIRECTORY": str(folder / "state")}
        self.master = 0

    def configure(self, **directives: object) -> None:
        """Write the configuration file; what is not said is small and quick."""
        values = {"Listen": self.socket, "OutAddress": "25", "Workers": 2, "DrainTimeOut": 60, **directives}
        self.file.write_text("".join(f"{name}: {value}\n" for name, value in values.items()))

    def start(self, *arguments: str) -> None:
        """Start in the foreground and wait until it is ready."""
        self.launch(*arguments)
        assert self.process is not None
        self.master = self.process.pid
        eventually(lambda: self.process.poll() is not None or "accepting connections" in self.log())  # type: ignore[union-attr]
        assert self.process.poll() is None, self.log()

    def launch(self, *arguments: str) -> None:
        """Start, and do not wait."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("fake_daemon.py")), str(self.file), *arguments],
                stderr=log,
                stdout=log,
                env=self.environment,
                cwd=Path(__file__).parents[3],
            )

    def wait(self) -> int:
        """Its exit code."""
        assert self.process is not None
        return self.process.wait(WAIT_SECONDS)

    def log(self) -> str:
        """All that it said."""
        return (self.folder / "log").read_text()

    def signal(self, number: signal.Signals) -> None:
        """To the master."""
        os.kill(self.master, number)

    def reload(self, mark: str = "is in force\n") -> None:
        """HUP, and wait until the log says how it ended."""
        before = self.log().count(mark)
        self.signal(signal.SIGHUP)
        eventually(lambda: self.log().count(mark) > before, self.log())

    def status(self) -> dict[str, Any]:
        """What the status socket says."""
        own_folder = self.folder / "d" / "socket"  # with User
        answer = read_status(own_folder if own_folder.exists() else self.folder / "d.sock")
        assert answer is not None
        return answer

    def workers(self) -> set[int]:
        """The processes."""
        return {worker["pid"] for worker in self.status()["workers"]}

    def connect(self, path: str | None = None) -> Client:
        """A new connection, greeted."""
        client = Client(path or self.socket)
        self.clients.append(client)
        return client

    def connect_to_queue(self) -> socket.socket:
        """A new connection to the listening socket, which nobody may have accepted yet."""
        client = socket.socket(socket.AF_UNIX)
        self.clients.append(client)
        client.settimeout(WAIT_SECONDS)
        client.connect(self.socket)
        return client

    def connect_to_another(self, than: set[int]) -> Client:
        """A connection to a worker that is none of these: they may accept until they have heard that they drain."""

        def connect() -> Client | None:
            client = self.connect()
            if client.worker not in than:
                return client
            client.close()
            return None

        found: Client = eventually(connect)
        return found

    def refuses(self, path: str | None = None) -> bool:
        """Whether nobody listens there."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(WAIT_SECONDS)
            return client.connect_ex(path or self.socket) in {errno.ECONNREFUSED, errno.ENOENT}

    def end(self) -> None:
        """Nothing of it stays, whatever the test did."""
        for client in self.clients:
            client.close()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.master:
            with suppress(ProcessLookupError):
                os.kill(self.master, signal.SIGKILL)


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """Configured with defaults; not started."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="px"))  # short: the path of a unix socket has 107 bytes
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)
        running = Daemon(folder)
        running.configure()
        stack.callback(running.end)
        yield running


@pytest.fixture
def root_logger() -> Iterator[None]:
    """As it was before, after the test."""
    root = logging.getLogger()
    handlers, level, raising = list(root.handlers), root.level, logging.raiseExceptions
    for handler in handlers:  # those of the test runner must not be closed by set_up
        root.removeHandler(handler)
    yield
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    logging.raiseExceptions = raising
