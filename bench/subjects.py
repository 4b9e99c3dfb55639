"""What the bench measures: this project in one form or another, its peers, and the sink that all of them relay to.

Everything runs in one directory, on 127.0.0.1 and unix sockets, until the end of its block.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from bench.processes import Cpu, cpu_time, free_port, own_cpu_time, running, wait_for
from tests.real.postfix import Postfix

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bench.scanners import Scanner
    from proxsmtp_tp.lab.network import Host

BENCH = Path(__file__).parent
TREE = BENCH.parent
BIN = Path(sys.executable).parent
LONG_WAIT = "wait=60 timeout=60"
"""For a filter: on a busy machine many messages wait, and none is to be refused."""
ORIGINAL = Path("/usr/sbin/proxsmtpd")


@dataclass(frozen=True, slots=True)
class Subject:
    """A program that takes mail at `port`.

    Its processes are `pid` and all that it starts (0: nothing to measure); those of its scanners are `scanner` and all
    that it starts (0: there is none).
    """

    name: str
    port: int
    pid: int
    scanner: int = 0
    queue: Path | None = None
    """The folder of messages that were accepted and are not yet at the sink."""

    def spent(self) -> tuple[Cpu, Cpu]:
        """CPU time until now: of the program, and of what judges: its scanners, and the commands that it executes."""
        everything = cpu_time(self.pid) if self.pid else Cpu()
        scanner = cpu_time(self.scanner) if self.scanner else Cpu()
        if self.queue is not None or not self.pid:
            return everything, scanner
        own = own_cpu_time(self.pid)
        return own, everything - own + scanner

    def waiting(self) -> bool:
        """Whether messages are in its queue."""
        folders = ("incoming", "active") if self.queue is not None else ()
        return any(entry.is_file() for name in folders for entry in cast("Path", self.queue).joinpath(name).iterdir())


@dataclass(frozen=True, slots=True)
class Build:
    """A form of this project: the folder that holds its package, as PYTHONPATH has it."""

    name: str
    folder: Path
    compiled: bool = False

    @property
    def environment(self) -> dict[str, str]:
        """The environment that makes Python import this one."""
        return {"PYTHONPATH": str(self.folder)}

    def check(self) -> None:
        """Raises RuntimeError if another package than that of `folder` would run, or another form of it."""
        command = [sys.executable, "-P", "-c", "import proxsmtp_tp.session.session as it; print(it.__file__)"]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        found = Path(done.stdout.strip() or "/")
        if not found.is_relative_to(self.folder.resolve()):
            raise RuntimeError(f"{self.name}: not the package of {self.folder} runs: {done.stdout}{done.stderr}")
        if (found.suffix == ".so") is not self.compiled:
            raise RuntimeError(f"{self.name}: {found} runs, which is{'' if self.compiled else ' not'} plain Python")


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a subject runs: its files, and the port that it relays to."""

    folder: Path
    to: int


@dataclass(frozen=True, slots=True)
class Form:
    """How this project is configured: a name, lines of configuration, the process of the scanner that they name."""

    name: str
    lines: str = ""
    scanner: int = 0
    workers: int = 2


@contextlib.contextmanager
def sink(folder: Path) -> Iterator[Subject]:
    """smtp-sink: with nothing between, it is itself the subject, without CPU time."""
    port = free_port()
    command = ["smtp-sink", "-u", "nobody", "-m", "10000", f"127.0.0.1:{port}", "4096"]
    with running(command, port, folder / f"sink-{port}.log"):
        yield Subject("nothing between", port, 0)


@contextlib.contextmanager
def ours(at: Setting, build: Build, form: Form) -> Iterator[Subject]:
    """This project, with one log line a message."""
    port = free_port()
    key = f"port-{port}"
    config = at.folder / f"{key}.conf"
    config.write_text(
        f"Instance: {key}\nListen: 127.0.0.1:{port}\nOutAddress: 127.0.0.1:{at.to}\nMaxConnections: 4000\n"
        f"Workers: {form.workers}\nTempDirectory: {at.folder}\n{form.lines}"
    )
    command: list[str | Path] = [BIN / "proxsmtp-tp", "serve", "-f", config]
    environment = {**build.environment, "RUNTIME_DIRECTORY": str(at.folder), "STATE_DIRECTORY": str(at.folder)}
    with running(command, port, at.folder / f"{key}.log", environment=environment) as process:
        yield Subject(form.name, port, process.pid, form.scanner)


@contextlib.contextmanager
def original(at: Setting, name: str, lines: str = "") -> Iterator[Subject]:
    """proxsmtpd 1.10."""
    port = free_port()
    config = at.folder / f"original-{port}.conf"
    config.write_text(f"Listen: 127.0.0.1:{port}\nOutAddress: 127.0.0.1:{at.to}\nMaxConnections: 4000\n{lines}")
    with running([ORIGINAL, "-d", "1", "-f", config], port, config.with_suffix(".log")) as process:
        yield Subject(name, port, process.pid)


@contextlib.contextmanager
def haproxy(at: Setting, name: str, *, tls: tuple[Path, str] | None = None) -> Iterator[Subject]:
    """A relay of bytes, with one thread.

    `tls`: a file with certificate and key for the clients, and options towards the server. Sessions are not resumed, as
    with us.
    """
    port = free_port()
    config = at.folder / f"haproxy-{port}.cfg"
    bind, options = (f" ssl crt {tls[0]}", f" {tls[1]}") if tls is not None else ("", "")
    once = " ssl-default-bind-options no-tls-tickets\n tune.ssl.cachesize 0\n" if tls is not None else ""
    config.write_text(
        f"global\n nbthread 1\n maxconn 8000\n{once}"
        "defaults\n mode tcp\n timeout client 60s\n timeout server 60s\n timeout connect 5s\n"
        f"listen smtp\n bind 127.0.0.1:{port}{bind}\n server sink 127.0.0.1:{at.to}{options}\n"
    )
    with running(["haproxy", "-db", "-f", config], port, config.with_suffix(".log"), greets=tls is None) as process:
        yield Subject(name, port, process.pid)


@contextlib.contextmanager
def bare_relay(at: Setting, name: str) -> Iterator[Subject]:
    """Two uvloop Protocols that write what they read, in two processes."""
    port = free_port()
    command: list[str | Path] = [sys.executable, BENCH / "bare_relay.py", str(port), str(at.to)]
    with running(command, port, at.folder / f"relay-{port}.log") as process:
        yield Subject(name, port, process.pid)


class _Here:
    """The host of `Postfix.start`: this machine."""

    name = "bench"

    def start(self, *command: str | Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*map(str, command)], start_new_session=True, stderr=subprocess.DEVNULL)

    def connect(self, address: str, port: int, timeout: float) -> socket.socket:
        return socket.create_connection((address, port), timeout)


@contextlib.contextmanager
def postfix(folder: Path, to: int, milters: Mapping[str, Scanner | None]) -> Iterator[list[Subject]]:
    """One Postfix that relays to the sink, with a port of its own for each milter (the last socket of the scanner)."""
    folder.mkdir(mode=0o755)
    settings = {"relayhost": f"[127.0.0.1]:{to}", "milter_default_action": "tempfail", "inet_protocols": "ipv4"}
    started = Postfix.start(cast("Host", _Here()), folder, "gw.example", (), {}, settings)
    try:
        started.wait_ready()
        ports = {name: free_port() for name in milters}
        with (folder / "conf/master.cf").open("a") as file:
            for name, scanner in milters.items():
                option = f" -o smtpd_milters=unix:{scanner.sockets[-1]}" if scanner is not None else ""
                file.write(f"127.0.0.1:{ports[name]} inet n - n - 200 smtpd{option}\n")
        subprocess.run(["postfix", "-c", folder / "conf", "reload"], check=True, stderr=subprocess.DEVNULL)
        for port in ports.values():
            wait_for(port, started.process, folder / "mail.log")
        pid = started.process.pid
        yield [
            Subject(name, ports[name], pid, scanner.pid if scanner is not None else 0, folder / "queue")
            for name, scanner in milters.items()
        ]
    finally:
        subprocess.run(["postfix", "-c", folder / "conf", "abort"], check=False, capture_output=True)
        started.process.wait(30)


def worker_line() -> str:
    """`cat` as a worker."""
    return f"Filter: cat worker exec {sys.executable} -I {BENCH / 'cat_worker.py'} min=4 {LONG_WAIT}\n"
