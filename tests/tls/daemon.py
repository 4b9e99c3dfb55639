"""The daemon as a process, between tools and a mail server that this test process runs."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiosmtpd.controller import Controller

from tests.tls.capture import Capture, check_legs
from tests.unit.net.tls_legs import self_signed

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND = Path(sys.executable).parent / "proxsmtp-tp"
WAIT_SECONDS = 60.0
NAME = "mx.example"


def free_port() -> int:
    """Nobody uses it now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Received:
    """A message at the server."""

    text: bytes
    tls: bool


@dataclass
class MailServer:
    """aiosmtpd with a certificate for mx.example, on a port of loopback."""

    port: int
    messages: list[Received] = field(default_factory=list)

    async def handle_DATA(self, _server: object, session: Any, envelope: Any) -> str:
        """One message."""
        self.messages.append(Received(envelope.content, session.ssl is not None))
        return "250 2.0.0 queued"


def certificate_files(folder: Path, name: str = NAME) -> tuple[str, str]:
    """Files of a self-signed certificate and its key."""
    certificate = self_signed(name)
    chain, key = folder / f"{name}.pem", folder / f"{name}.key"
    chain.write_bytes(certificate.chain)
    key.touch(0o600)
    key.write_bytes(certificate.key)
    return str(chain), str(key)


@contextmanager
def mail_server(folder: Path, *, tls: bool = True, wrapped: bool = False) -> Iterator[MailServer]:
    """With STARTTLS or without, or, `wrapped`, with TLS from the first octet."""
    server = MailServer(free_port())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate_files(folder))
    options: dict[str, Any] = {"tls_context": context} if tls and not wrapped else {}
    if wrapped:
        options["ssl_context"] = context
    controller = Controller(server, hostname="127.0.0.1", port=server.port, server_hostname=NAME, **options)
    controller.start()
    try:
        yield server
    finally:
        controller.stop()


@dataclass
class Daemon:
    """`proxsmtp-tp serve`."""

    port: int
    process: subprocess.Popen[bytes]
    log_file: Path

    @property
    def log(self) -> str:
        """All of it so far."""
        return self.log_file.read_text()

    def logged(self, text: str) -> str:
        """Wait until the log has this text."""
        end = time.monotonic() + WAIT_SECONDS
        while text not in self.log:
            assert time.monotonic() < end, f"{text!r} is not in the log:\n{self.log}"
            time.sleep(0.02)
        return self.log


@contextmanager
def daemon(folder: Path, server: int, rest: str) -> Iterator[Daemon]:
    """Fixed mode: all clients come to this server. `rest`: further directives.

    At the end: nothing was in clear to the server that was not so from the client.
    """
    port = free_port()
    with Capture() as capture, _daemon(folder, port, server, rest) as running:
        yield running
    legs = {end: [each for each in capture.streams if each.port == end] for end in (port, server)}
    check_legs(legs[port], legs[server])


@contextmanager
def _daemon(folder: Path, port: int, server: int, rest: str) -> Iterator[Daemon]:
    (folder / "temp").mkdir(exist_ok=True)
    (folder / "conf").write_text(
        f"Listen: 127.0.0.1:{port}\nOutAddress: 127.0.0.1:{server}\nWorkers: 1\nTempDirectory: {folder}/temp\n{rest}\n"
    )
    log_file = folder / "log"
    environment = {**os.environ, "STATE_DIRECTORY": str(folder / "state"), "RUNTIME_DIRECTORY": str(folder)}
    (folder / "state").mkdir(mode=0o700, exist_ok=True)
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [COMMAND, "serve", "-d", "3", "-f", str(folder / "conf"), "-p", str(folder / "pid")],
            stderr=log,
            env=environment,
        )
    running = Daemon(port, process, log_file)
    try:
        _wait_until_it_accepts(running)
        yield running
    finally:
        process.terminate()
        try:
            process.wait(WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    assert "internal error" not in running.log, running.log


def _wait_until_it_accepts(running: Daemon) -> None:
    pid = running.log_file.parent / "pid"
    end = time.monotonic() + WAIT_SECONDS
    while not (pid.exists() and pid.stat().st_size):
        assert running.process.poll() is None, running.log
        assert time.monotonic() < end, running.log
        time.sleep(0.05)


def run(*command: str, text: str = "", **environment: str) -> tuple[int, str]:
    """A tool: its exit status and all it said."""
    done = subprocess.run(
        command,
        input=text.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=60,
        env={**os.environ, **environment},
    )
    return done.returncode, done.stdout.decode(errors="replace")
