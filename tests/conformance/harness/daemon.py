"""One daemon in the foreground, with its own directory, listening address and log.

The directory holds the configuration, the filter script, temporary files and what filters record. Nothing is
shared between two daemons, so many run at once.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.conformance.harness.peer import LIMIT, Peer
from tests.conformance.harness.script import Side, put_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ORIGINAL = Path("/usr/sbin/proxsmtpd")
OURS = Path(sys.executable).with_name("proxsmtpd")
CLIENT = "127.0.0.9"
"""The client's address: another one than the server's and the daemon's, so that a test can tell them apart."""
SERVER = "127.0.0.3"
START_LIMIT = 60.0
"""Seconds for a daemon to be ready: a few hundredths are usual; the rest is for a machine with other work."""
STOP_LIMIT = 20.0
"""Seconds for a daemon to be gone after TERM; then it is killed."""
POLL = 0.02

# What a daemon and its filters find in their environment: the same on every machine.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
}


class DaemonError(Exception):
    """The daemon did not do what a daemon must. The text has its log."""


def program(side: Side) -> Path:
    """The command of that side."""
    path = ORIGINAL if side is Side.ORIGINAL else OURS
    if not path.exists():
        raise DaemonError(f"{path} is missing: apt-get install proxsmtp, or make .venv/installed")
    return path


class Daemon:
    """A running daemon. `places` are what {dir}, {port}, {server} stand for in case files."""

    def __init__(self, side: Side, config: Sequence[str], *, level: int = 3) -> None:
        self.side = side
        self.directory = Path(tempfile.mkdtemp(prefix="conformance-"))
        self.level = level
        self.config = config
        self.listener = self._listen()
        self.peers: list[Peer] = []
        self.places: dict[str, str] = {}
        self.ready_file = self.pid_file
        """What tells that it accepts connections: another file where the configuration names one."""
        self.process: subprocess.Popen[bytes] | None = None

    def _listen(self) -> socket.socket:
        """The scripted server: at the client's own address in loopback mode, in the directory where that is said."""
        out = next((line for line in self.config if line.startswith("OutAddress:")), "")
        if "{dir}/" in out:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(self.directory / "out"))
            listener.listen()
            return listener
        address = (
            CLIENT
            if out.endswith((" {server-port}", " 0.0.0.0:{server-port}"))
            else "127.0.0.1"
            if "localhost" in out
            else SERVER
        )
        return socket.create_server((address, 0))

    def client(self) -> Peer:
        """A client's connection, from the address CLIENT. Closed at the latest when the daemon is stopped."""
        if any(line.startswith("Listen: {dir}/") for line in self.config):
            connection = socket.socket(socket.AF_UNIX)
            self.peers.append(Peer(connection))
            connection.settimeout(LIMIT)
            connection.connect(str(self.directory / "in"))
        else:
            connection = socket.create_connection(("127.0.0.1", self.port), LIMIT, (CLIENT, 0))
            self.peers.append(Peer(connection))
        return self.peers[-1]

    def server(self, limit: float = LIMIT) -> Peer:
        """The server's side of the next connection that the daemon makes. TimeoutError where it makes none."""
        self.listener.settimeout(limit)
        self.peers.append(Peer(self.listener.accept()[0]))
        return self.peers[-1]

    def start(self) -> None:
        """Start it, and return when it accepts connections. Another process may take the port first: try again."""
        for _ in range(5):
            self.port = free_port()
            host, port = self._server()
            self.places = {
                "dir": str(self.directory),
                "port": str(self.port),
                "client-ip": CLIENT,
                "server-ip": host,
                "server-port": str(port),
                "server": f"{host}:{port}",
                "record": f"/bin/sh {self.directory}/record",
            }
            self._write()
            arguments = ["-d", str(self.level), "-f", str(self.directory / "conf"), "-p", str(self.pid_file)]
            with self.log_file.open("wb") as log:
                self.process = subprocess.Popen(
                    [program(self.side), *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.directory,
                    env=ENVIRONMENT,
                )
            if self._ready():
                return
            if "bind" not in self.log() and "in use" not in self.log():
                break
        raise DaemonError(f"{self.side.value} did not start:\n{self.log()}")

    def _server(self) -> tuple[str, int]:
        name = self.listener.getsockname()
        return (name, 0) if isinstance(name, str) else (name[0], name[1])

    @property
    def pid_file(self) -> Path:
        """Where it writes its process id, when it is ready."""
        return self.directory / "pid"

    @property
    def log_file(self) -> Path:
        """Its standard output and standard error."""
        return self.directory / "log"

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None

    def log(self, since: int = 0) -> str:
        """What it logged, from that byte on."""
        return self.log_file.read_bytes()[since:].decode("utf-8", "backslashreplace")

    def stop(self) -> int | None:
        """End it, remove its directory, and return its exit status; None where it had to be killed."""
        status: int | None = None
        for peer in self.peers:
            peer.close()
        if self.process is not None:
            self.process.terminate()
            try:
                status = self.process.wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.listener.close()
        shutil.rmtree(self.directory, ignore_errors=True)
        return status

    def _write(self) -> None:
        lines = list(self.config)
        names = {line.partition(":")[0].strip(" -").lower() for line in lines}
        for name, value in (
            ("Listen", "127.0.0.1:{port}"),
            ("OutAddress", "{server}"),
            ("TempDirectory", "{dir}"),
        ):
            if name.lower() not in names and not (name == "OutAddress" and "transparentproxy" in names):
                lines.append(f"{name}: {value}")
        if self.side is Side.OURS and "workers" not in names:
            lines.append("Workers: 1")
        text = "".join(put_in(line, self.places) + "\n" for line in lines if not line.startswith("-"))
        (self.directory / "conf").write_text(text, "utf-8", "surrogateescape")
        (self.directory / "record").write_text(_RECORD.replace("DIR", str(self.directory)), "ascii")

    def _ready(self) -> bool:
        deadline = time.monotonic() + START_LIMIT
        while time.monotonic() < deadline and self.alive:
            with contextlib.suppress(OSError):
                if self.ready_file.read_text("ascii").strip():
                    return True
            time.sleep(POLL)
        return False


# What a filter records of its environment: each part in a file of its own, renamed when it is complete.
_RECORD = """\
pwd >DIR/seen.cwd
umask >DIR/seen.umask
tr '\\0' ' ' </proc/$PPID/cmdline >DIR/seen.parent
env -0 >DIR/seen.env.part
mv DIR/seen.env.part DIR/seen.env
[ -z "$EMAIL" ] || { ls -ln "$EMAIL" | cut -c 1-10 >DIR/seen.mode; cp "$EMAIL" DIR/seen.file; exit; }
cat >DIR/seen.stdin
cat DIR/seen.stdin
"""


_PORTS = iter(random.sample(range(10_000, 32_768), 20_000))
"""Below the kernel's choice for outgoing connections (ip(7), ip_local_port_range), which could take one meanwhile."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses now, and that this process has not named before."""
    for port in _PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            # A process that another thread starts has this socket until its exec. The daemon may bind all the same.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("every port has been in use")


@contextlib.contextmanager
def running(side: Side, config: Sequence[str], *, level: int = 3) -> Iterator[Daemon]:
    """A daemon for the length of a with block."""
    daemon = Daemon(side, config, level=level)
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.stop()


def wait_for(what: str, done: Callable[[], object], *, limit: float = LIMIT) -> None:
    """Call `done` until it is true. AssertionError with `what` when it is not in time."""
    deadline = time.monotonic() + limit
    while not done():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {limit} s for {what}")
        time.sleep(POLL)


def exists(pid: int) -> bool:
    """Whether a process of that id exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
