"""What `bench.filters` and `bench.flat_memory` measure: the daemon with one chain or another, and the scanners.

Everything runs in one directory, on 127.0.0.1 and unix sockets, until the end of the block.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from bench.throughput import BIN, free_port, running
from tests.filters.daemons import daemon
from tests.real.postfix import Postfix

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxsmtp_tp.lab.network import Host

BENCH = Path(__file__).parent
_TICKS = os.sysconf("SC_CLK_TCK")
START = 60.0
"""Seconds for a daemon to take its first connection."""

CLAMD = """\
Foreground yes
LocalSocket {0}/clamd
LocalSocketMode 666
DatabaseDirectory {0}/db
TemporaryDirectory {0}
"""
RULES = """\
rspamd_config:register_symbol({name = "TRIVIAL", type = "normal", score = 0.1, callback = function(task)
  return task:get_header("Subject") ~= nil
end})
"""
RSPAMD = """\
lua = "{0}/rules.lua";
options {{
  filters = ""; dns {{ nameserver = ["127.0.0.1:1"]; }} tempdir = "{0}"; control_socket = "{0}/control mode=0600";
  hs_cache_dir = "{0}"; cache_file = "{0}/cache"; url_tld = "{0}/tld"; history_file = "{0}/history"; local_addrs = [];
  disable_hyperscan = true;
}}
lang_detection {{ languages = "{0}/languages"; languages_enable = ["en"]; }}
logging {{ type = "console"; level = "error"; }}
actions {{ reject = 15; }}
worker "normal" {{ bind_socket = "{0}/rspamd-http mode=0666"; count = 1; }}
worker "rspamd_proxy" {{
  bind_socket = "{0}/rspamd-milter mode=0666"; count = 1; milter = yes;
  upstream "local" {{ self_scan = yes; default = yes; }}
}}
"""


@dataclass(frozen=True, slots=True)
class Subject:
    """A daemon that takes mail at `port`. Its processes are `pid` and all that it starts; those of its scanners are
    `scanner` and theirs (0: there is none).
    """

    name: str
    port: int
    pid: int
    scanner: int = 0
    queue: Path | None = None
    """Where messages wait that were accepted and are not yet at the sink."""

    def seconds(self) -> tuple[float, float]:
        """CPU time until now: of the daemon, and of what judges: its scanners, and the commands that it starts."""
        everything = cpu_seconds(self.pid)
        scanner = cpu_seconds(self.scanner) if self.scanner else 0.0
        if self.queue is not None:
            return everything, scanner
        own = sum(sum(_ticks(pid)[:2]) for pid in (self.pid, *children(self.pid))) / _TICKS
        return own, everything - own + scanner


def children(pid: int) -> list[int]:
    """What a process has started, in any thread."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return []


def tree(pid: int) -> list[int]:
    """The process and all that descend from it."""
    return [pid, *(each for child in children(pid) for each in tree(child))]


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, those that descend from it, and those of them that have ended (proc(5): stat)."""
    return sum(sum(_ticks(each)) for each in tree(pid)) / _TICKS


def _ticks(pid: int) -> list[int]:
    """User and system time of a process, and of the children that it has waited for."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return list(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))
    return []


@contextlib.contextmanager
def sink() -> Iterator[int]:
    """smtp-sink; the context is its port."""
    port = free_port()
    with running(["smtp-sink", "-u", "nobody", "-m", "10000", f"127.0.0.1:{port}", "4096"], port):
        yield port


@contextlib.contextmanager
def ours(folder: Path, name: str, to: int, lines: str, *, scanner: int = 0) -> Iterator[Subject]:
    """The daemon with these lines of configuration, two workers, one log line a message."""
    port = free_port()
    key = f"port-{port}"
    config, log = folder / f"{key}.conf", folder / f"{key}.log"
    config.write_text(
        f"Instance: {key}\nListen: 127.0.0.1:{port}\nOutAddress: 127.0.0.1:{to}\nMaxConnections: 4000\nWorkers: 2\n"
        f"TempDirectory: {folder}\n{lines}"
    )
    with log.open("wb") as output:
        command = [str(BIN / "proxsmtp-tp"), "serve", "-f", str(config)]
        process = subprocess.Popen(command, stderr=output, start_new_session=True)
    try:
        wait_for_greeting(port, process, log)
        yield Subject(name, port, process.pid, scanner)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def wait_for_greeting(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until a server greets. Raises RuntimeError with its log if it does not."""
    end = time.monotonic() + START
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as connected:
            connected.settimeout(5)
            if connected.recv(100).startswith(b"220"):
                connected.sendall(b"QUIT\r\n")
                return
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"{log}: no mail is taken: {log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.1)


@dataclass(frozen=True, slots=True)
class Scanner:
    """A daemon that judges: its process, and the addresses of its sockets."""

    pid: int
    sockets: tuple[Path, ...]


@contextlib.contextmanager
def accepting_milter(folder: Path, language: Literal["C", "Python"]) -> Iterator[Scanner]:
    """The real libmilter: it accepts."""
    path = folder / f"milter-{language}"
    command: list[str | Path] = ["/usr/bin/python3", BENCH / "accepting_milter.py"]
    if language == "C":
        command = [folder / "accepting_milter"]
        source = BENCH / "accepting_milter.c"
        subprocess.run(["cc", "-O2", "-pthread", "-o", command[0], source, "-lmilter"], check=True)
    with daemon([*command, path], path) as process:
        path.chmod(0o777)
        yield Scanner(process.pid, (path,))


@contextlib.contextmanager
def clamd(folder: Path) -> Iterator[Scanner]:
    """It knows one virus."""
    (folder / "db").mkdir()
    (folder / "db/test.ndb").write_text(f"Test-Signature:0:*:{b'no message has this text'.hex()}\n")
    (folder / "clamd.conf").write_text(CLAMD.format(folder))
    with daemon(["clamd", "--config-file", folder / "clamd.conf"], folder / "clamd") as process:
        yield Scanner(process.pid, (folder / "clamd",))


@contextlib.contextmanager
def rspamd(folder: Path) -> Iterator[Scanner]:
    """One rule, no module. Its sockets: HTTP, milter."""
    (folder / "rules.lua").write_text(RULES)
    (folder / "tld").write_text("org\nexample\n")
    (folder / "languages").mkdir()
    for name in ("en.json", "stop_words"):
        (folder / "languages" / name).symlink_to(f"/usr/share/rspamd/languages/{name}")
    (folder / "rspamd.conf").write_text(RSPAMD.format(folder))
    sockets = (folder / "rspamd-http", folder / "rspamd-milter")
    with daemon(["rspamd", "-f", "-i", "-c", folder / "rspamd.conf"], *sockets) as process:
        yield Scanner(process.pid, sockets)


class _Here:
    """The host of `Postfix.start`: this machine."""

    name = "bench"

    def start(self, *command: str | Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*map(str, command)], start_new_session=True)

    def connect(self, address: str, port: int, timeout: float) -> socket.socket:
        return socket.create_connection((address, port), timeout)


@contextlib.contextmanager
def postfix(folder: Path, to: int, milters: dict[str, Scanner | None]) -> Iterator[list[Subject]]:
    """One Postfix that relays to the sink, with a port of its own for each milter (the second socket of rspamd)."""
    folder.mkdir(mode=0o755)
    settings = {"relayhost": f"[127.0.0.1]:{to}", "milter_default_action": "tempfail", "inet_protocols": "ipv4"}
    running_ = Postfix.start(cast("Host", _Here()), folder, "gw.example", (), {}, settings)
    try:
        running_.wait_ready()
        ports = {name: free_port() for name in milters}
        with (folder / "conf/master.cf").open("a") as file:
            for name, scanner in milters.items():
                option = f" -o smtpd_milters=unix:{scanner.sockets[-1]}" if scanner is not None else ""
                file.write(f"127.0.0.1:{ports[name]} inet n - n - 200 smtpd{option}\n")
        subprocess.run(["postfix", "-c", folder / "conf", "reload"], check=True, stderr=subprocess.DEVNULL)
        for port in ports.values():
            wait_for_greeting(port, running_.process, folder / "mail.log")
        pid = running_.process.pid
        yield [
            Subject(name, ports[name], pid, scanner.pid if scanner is not None else 0, folder / "queue")
            for name, scanner in milters.items()
        ]
    finally:
        subprocess.run(["postfix", "-c", folder / "conf", "abort"], check=False, stderr=subprocess.DEVNULL)
        running_.process.wait(30)


def worker_line() -> str:
    """`cat` as a worker."""
    return f"Filter: cat worker exec {sys.executable} -I {BENCH / 'cat_worker.py'} min=4\n"
