"""TLS on both legs through this project and haproxy, side by side in one run.

    .venv/bin/python -m bench.tls                the table
    .venv/bin/python -m bench.tls --help         other loads

haproxy knows no STARTTLS: through it clients and the server have TLS from the first octet, through us STARTTLS (one
more EHLO and two more round trips on each leg). Clients and server are processes of this file. The subject has one
worker or thread, so that both are compared by the core.

new        sessions a second: connect, two handshakes, one message, QUIT
reused     messages a second, 200 in each session
CPU        milliseconds of the subject for each (user and system). Clients and server take the rest of the machine, so
           this compares better than the rates
idle       KiB that the subject grows for each session that waits after EHLO
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import uvloop

from bench.throughput import BIN, free_port, running
from proxsmtp_tp.certificates.material import Material
from proxsmtp_tp.net.tls_contexts import ClientContexts
from proxsmtp_tp.net.tls_stream import TlsStream
from proxsmtp_tp.tls.facts import Side

CLIENTS = 4
IDLE_SESSIONS = 300
MESSAGES_REUSED = 200
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE") // 1024
MESSAGE = b"Subject: bench\r\n\r\n" + b"x" * 70 * 14 + b"\r\n.\r\n"


@dataclass(frozen=True)
class Setting:
    """One run: where everything is."""

    folder: Path
    port: int
    server: int

    @property
    def chain(self) -> Path:
        """Certificate of everybody."""
        return self.folder / "chain.pem"

    @property
    def key(self) -> Path:
        """Its key."""
        return self.folder / "key.pem"

    @property
    def both(self) -> Path:
        """Both in one file, for haproxy."""
        return self.folder / "both.pem"


def certificate(folder: Path) -> None:
    """EC P-256, for everybody."""
    chain, key = folder / "chain.pem", folder / "key.pem"
    wanted = ["-x509", "-nodes", "-days", "2", "-subj", "/CN=mx.example"]
    made = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", str(key), "-out", str(chain)]
    subprocess.run(["openssl", "req", *wanted, *made], check=True, capture_output=True)
    (folder / "both.pem").write_text(chain.read_text() + key.read_text())


def haproxy_config(folder: Path, name: str, listen: str, server: str) -> list[str]:
    """One thread; sessions are not resumed, as with us."""
    config = folder / f"{name}.cfg"
    config.write_text(
        "global\n nbthread 1\n maxconn 8000\n ssl-default-bind-options no-tls-tickets\n tune.ssl.cachesize 0\n"
        "defaults\n mode tcp\n timeout client 60s\n timeout server 60s\n timeout connect 5s\n"
        f"listen smtp\n bind {listen}\n server sink {server}\n"
    )
    return ["haproxy", "-db", "-f", str(config)]


def haproxy(at: Setting) -> list[str]:
    """TLS in, TLS out."""
    return haproxy_config(
        at.folder, "subject", f"127.0.0.1:{at.port} ssl crt {at.both}",
        f"127.0.0.1:{at.server} ssl verify none no-ssl-reuse",
    )  # fmt: skip


def ours(at: Setting, more: str) -> list[str]:
    """One worker."""
    config = at.folder / "ours.conf"
    config.write_text(
        f"Listen: 127.0.0.1:{at.port}\nOutAddress: 127.0.0.1:{at.server}\nMaxConnections: 4000\nWorkers: 1\n{more}"
    )
    return [str(BIN / "proxsmtp-tp"), "serve", "-f", str(config)]


def ours_with_tls(at: Setting) -> list[str]:
    """TLS in, TLS out."""
    return ours(at, f"Tls: terminate\nTlsCertificate: {at.chain} {at.key}\nTlsHandshakes: 0\n")


def ours_in_clear(at: Setting) -> list[str]:
    """What TLS is compared with."""
    return ours(at, "")


class How(Enum):
    """When TLS begins."""

    NEVER = "never"
    STARTTLS = "starttls"
    FIRST = "first"


class Session:
    """An SMTP client."""

    def __init__(self, port: int, how: How, context: ssl.SSLContext) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if how is How.FIRST:
            self._begin_tls(context)
        self._reply(b"220")
        self.say(b"EHLO client.example\r\n")
        if how is How.STARTTLS:
            self.say(b"STARTTLS\r\n", b"220")
            self._begin_tls(context)
            self.say(b"EHLO client.example\r\n")

    def _begin_tls(self, context: ssl.SSLContext) -> None:
        self._sock = context.wrap_socket(self._sock, server_hostname="mx.example")

    def say(self, line: bytes, code: bytes = b"250") -> None:
        """A command and its reply."""
        self._sock.sendall(line)
        self._reply(code)

    def message(self) -> None:
        """One message."""
        self.say(b"MAIL FROM:<a@example.org>\r\n")
        self.say(b"RCPT TO:<b@example.org>\r\n")
        self.say(b"DATA\r\n", b"354")
        self.say(MESSAGE)

    def quit(self) -> None:
        """The end."""
        self.say(b"QUIT\r\n", b"221")
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()

    def _reply(self, code: bytes) -> None:
        reply = b""
        while not reply.endswith(b"\n") or reply.splitlines()[-1][3:4] == b"-":
            if not (more := self._sock.recv(4096)):
                raise ConnectionError(f"closed after {reply!r}")
            reply += more
        if not reply.startswith(code):
            raise ConnectionError(f"{reply!r} in place of {code!r}")


def client_context() -> ssl.SSLContext:
    """Nobody verifies: the certificate is self-signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def send(port: int, how: How, sessions: int, messages: int) -> None:
    """So many sessions, one after the other, with so many messages each."""
    context = client_context()
    for _ in range(sessions):
        session = Session(port, how, context)
        for _ in range(messages):
            session.message()
        session.quit()


def load(port: int, how: How, sessions: int, messages: int) -> float:
    """Seconds that all clients take together."""
    share = sessions // CLIENTS
    clients = [multiprocessing.Process(target=send, args=(port, how, share, messages)) for _ in range(CLIENTS)]
    begin = time.monotonic()
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    if any(client.exitcode for client in clients):
        raise RuntimeError("a client failed")
    return time.monotonic() - begin


class Sink(asyncio.Protocol):
    """A mail server that takes everything."""

    contexts = ClientContexts()

    def __init__(self, how: How, certificate: Material) -> None:
        self._how = how
        self._certificate = certificate
        self._stream: TlsStream | None = None
        self._transport: Any = None
        self._text = False
        self._left = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, or begin TLS."""
        self._transport = transport
        if self._how is How.FIRST:
            self._begin_tls()
        else:
            self._say(b"220 mx.example\r\n")

    def _begin_tls(self) -> None:
        self._stream = TlsStream(self.contexts.get(self._certificate, {0x0304}), Side.CLIENT)

    def data_received(self, data: bytes) -> None:
        """Decrypt."""
        if self._stream is None:
            self._plain(data)
            return
        began = self._stream.handshaking
        plain = self._stream.receive(data)
        while self._stream.more:
            plain += self._stream.receive(b"")
        if began and not self._stream.handshaking and self._how is How.FIRST:
            self._say(b"220 mx.example\r\n")
        self._plain(plain)
        self._transport.write(self._stream.to_send())

    def _plain(self, data: bytes) -> None:
        self._left += data
        while self._left:
            end = b"\r\n.\r\n" if self._text else b"\r\n"
            line, found, rest = self._left.partition(end)
            if not found:
                return
            self._left = rest
            if self._text:
                self._text = False
                self._say(b"250 queued\r\n")
            else:
                self._command(line)

    def _command(self, line: bytes) -> None:
        verb = line[:4].upper()
        if verb == b"EHLO":
            starttls = self._how is How.STARTTLS and self._stream is None
            self._say(b"250-mx.example\r\n" + (b"250-STARTTLS\r\n" if starttls else b"") + b"250 PIPELINING\r\n")
        elif verb == b"STAR":
            self._say(b"220 go\r\n")
            self._begin_tls()
        elif verb == b"DATA":
            self._text = True
            self._say(b"354 go\r\n")
        elif verb == b"QUIT":
            self._say(b"221 bye\r\n")
            self._transport.close()
        else:
            self._say(b"250 ok\r\n")

    def _say(self, reply: bytes) -> None:
        if self._stream is not None and not self._stream.handshaking:
            self._stream.write(reply)
            reply = self._stream.to_send()
        self._transport.write(reply)


def serve(port: int, how: How, folder: Path) -> None:
    """The mail server, until it is ended."""
    certificate = Material((folder / "chain.pem").read_bytes(), (folder / "key.pem").read_bytes(), ends=0.0)

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(lambda: Sink(how, certificate), "127.0.0.1", port)
        await server.serve_forever()

    uvloop.run(main())


def family(pid: int) -> list[int]:
    """A process and all that it started."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def cpu(pid: int) -> float:
    """Seconds of CPU time of a process and all that it started (proc_pid_stat(5))."""
    total = 0
    for member in family(pid):
        fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def resident(pid: int) -> int:
    """KiB of memory of a process and all that it started, shared pages once."""
    total = 0
    for member in family(pid):
        for line in Path(f"/proc/{member}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total


def idle(port: int, how: How, pid: int) -> float:
    """KiB for each session that waits."""
    context = client_context()
    warm = [Session(port, how, context) for _ in range(20)]
    before = resident(pid)
    kept = [Session(port, how, context) for _ in range(IDLE_SESSIONS)]
    time.sleep(0.5)
    grown = resident(pid) - before
    for session in warm + kept:
        session.close()
    return grown / IDLE_SESSIONS


@dataclass
class Figures:
    """One row of the table."""

    new: float = 0.0
    new_cpu: float = 0.0
    reused: float = 0.0
    reused_cpu: float = 0.0
    idle: float = 0.0

    def row(self, name: str) -> str:
        """In Markdown."""
        return (
            f"| {name} | {self.new:.0f} | {self.new_cpu:.2f} ms | {self.reused:.0f} | {self.reused_cpu:.2f} ms | "
            f"{self.idle:.0f} KiB |"
        )


Maker = Callable[[Setting], list[str]]
SUBJECTS: dict[str, tuple[Maker, How]] = {
    "haproxy, ssl in, ssl out": (haproxy, How.FIRST),
    "proxsmtp-tp, TLS in, TLS out": (ours_with_tls, How.STARTTLS),
    "proxsmtp-tp, in clear": (ours_in_clear, How.NEVER),
}


def wait_for(port: int) -> None:
    """Until somebody accepts there."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise RuntimeError("the mail server does not start")


@contextlib.contextmanager
def serving(maker: Maker, how: How) -> Iterator[tuple[int, int]]:
    """A subject with a server behind it: its port, and its process."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        certificate(folder)
        at = Setting(folder, free_port(), free_port())
        sink = multiprocessing.Process(target=serve, args=(at.server, how, folder))
        sink.start()
        stack.callback(sink.join)
        stack.callback(sink.terminate)
        wait_for(at.server)
        subject = stack.enter_context(running(maker(at), at.port))
        yield at.port, subject.pid


def measured(maker: Maker, how: How, sessions: int, rounds: int) -> Figures:
    """The best of the rounds."""
    best = Figures(new_cpu=1e9, reused_cpu=1e9)
    with serving(maker, how) as (port, pid):
        best.idle = idle(port, how, pid)
        for _ in range(rounds):
            before = cpu(pid)
            best.new = max(best.new, sessions / load(port, how, sessions, 1))
            best.new_cpu = min(best.new_cpu, (cpu(pid) - before) / sessions * 1000)
            before = cpu(pid)
            messages = CLIENTS * MESSAGES_REUSED
            best.reused = max(best.reused, messages / load(port, how, CLIENTS, MESSAGES_REUSED))
            best.reused_cpu = min(best.reused_cpu, (cpu(pid) - before) / messages * 1000)
    return best


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description="TLS through this project and haproxy")
    parser.add_argument("--sessions", type=int, default=1000, help="new sessions in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="subjects whose name contains this")
    args = parser.parse_args()
    missing = [tool for tool in ("haproxy", "openssl") if shutil.which(tool) is None]
    if missing:
        print("missing: " + ", ".join(missing) + ": run .ci/packages bench", file=sys.stderr)
        return 1
    print(f"one worker or thread, {CLIENTS} clients, {os.cpu_count()} cores, best of {args.rounds}\n")
    print("| subject | new sessions/s | CPU for each | messages/s, reused | CPU for each | idle session |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, (maker, how) in SUBJECTS.items():
        if not args.only or args.only in name:
            print(measured(maker, how, args.sessions, args.rounds).row(name), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
