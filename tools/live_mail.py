"""A daemon with mail, on this host alone: for a look at `proxsmtp-tp top`, its test and its screenshot.

Clients and the server are threads of this process. Each client has an address of its own and sends one message after
another; the filter's script decides by the sender's name: slow@, spam@, later@, and others, which pass.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

COMMAND = Path(sys.executable).parent / "proxsmtp-tp"
_START = 30.0
"""Seconds that the daemon may take to start on a busy machine."""
_FILTER = """#!/bin/sh
case "$SENDER" in
slow@*) sleep "${SLOW:-1}" ;;
spam@*) echo "550 5.7.1 spam" >&2; exit 1 ;;
later@*) echo "451 4.7.1 try again later" >&2; exit 1 ;;
esac
exec cat
"""


class LiveMail:
    """The daemon, its server and its clients. `directives` are more lines of its configuration."""

    def __init__(self, folder: Path, server: str = "127.0.0.1", directives: str = "", slow: float = 1.0) -> None:
        self.folder = folder
        self._ends = threading.Event()
        self._threads: list[threading.Thread] = []
        self._sink = socket.create_server((server, 0), backlog=512)
        self._sink.settimeout(0.2)
        self._run(self._accept)
        script = folder / "filter"
        script.write_text(_FILTER)
        script.chmod(0o755)
        with socket.create_server((server, 0)) as probe:
            self.port = int(probe.getsockname()[1])
        self.configuration = folder / "inbound.conf"
        self.configuration.write_text(
            f"Instance: inbound\nListen: 0.0.0.0:{self.port}\nOutAddress: {server}:{self._sink.getsockname()[1]}\n"
            f"Workers: 2\nMaxConnections: 100\nFilterCommand: SLOW={slow} {script}\nFilterProcesses: 4\n"
            f"TempDirectory: {folder}\nDrainTimeOut: 1\n{directives}"
        )
        self.environment = {**os.environ, "RUNTIME_DIRECTORY": str(folder), "STATE_DIRECTORY": str(folder)}
        self.log = folder / "log"
        self._server = server
        self.start()

    def start(self) -> None:
        """The daemon, until it accepts."""
        with self.log.open("ab") as log:
            self.daemon = subprocess.Popen(
                [COMMAND, "serve", "-f", str(self.configuration)], stderr=log, env=self.environment
            )
        end = time.monotonic() + _START
        while True:
            with suppress(OSError), socket.create_connection((self._server, self.port), 1) as connected:
                connected.sendall(b"QUIT\r\n")
                return
            if self.daemon.poll() is not None or time.monotonic() > end:
                raise RuntimeError(self.log.read_text())
            time.sleep(0.05)

    def stop(self) -> None:
        """The daemon alone."""
        self.daemon.terminate()
        try:
            self.daemon.wait(_START)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            self.daemon.wait()

    def send(self, client: str, senders: Iterable[str], pause: float, size: int = 500) -> None:
        """Messages from this address until the end, one session each; `senders` begin again after the last one."""
        self._run(self._send, client, [*senders], pause, size)

    def hold(self, client: str, said: bytes) -> None:
        """A session that says this, and then waits until it is ended."""
        self._run(self._hold, client, said)

    def close(self) -> None:
        """End everything."""
        self._ends.set()
        self.stop()
        for thread in self._threads:
            thread.join(_START)
        self._sink.close()

    def _run(self, what: object, *arguments: object) -> None:
        thread = threading.Thread(target=what, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _connect(self, client: str) -> socket.socket:
        connected = socket.create_connection((self._server, self.port), 30, source_address=(client, 0))
        connected.settimeout(0.2)
        return connected

    def _read(self, connected: socket.socket) -> bytes:
        """The next octets; empty at the end of the connection, or of all."""
        while not self._ends.is_set():
            try:
                return connected.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                break
        return b""

    def _hold(self, client: str, said: bytes) -> None:
        with suppress(OSError), self._connect(client) as connected:
            self._read(connected)
            for line in said.splitlines(keepends=True):
                connected.sendall(line)
                self._read(connected)
            while self._read(connected):
                pass

    def _send(self, client: str, senders: list[str], pause: float, size: int) -> None:
        number = 0
        while not self._ends.is_set():
            with suppress(OSError), self._connect(client) as connected:
                sender = senders[number % len(senders)]
                self._dialogue(connected, sender, size)
            number += 1
            self._ends.wait(pause)

    def _dialogue(self, connected: socket.socket, sender: str, size: int) -> None:
        text = "Subject: one\r\n\r\n" + ("x" * 62 + "\r\n") * (size // 64)
        envelope = (f"MAIL FROM:<{sender}>", "RCPT TO:<bob@mx.example>")
        for said in ("", "EHLO client.example", *envelope, "DATA", f"{text}.", "QUIT"):
            if said:
                connected.sendall(said.encode() + b"\r\n")
            if not self._read(connected):
                return

    # The server.

    def _accept(self) -> None:
        while not self._ends.is_set():
            try:
                connected, _ = self._sink.accept()
            except TimeoutError:
                continue
            self._run(self._serve, connected)

    def _serve(self, connected: socket.socket) -> None:
        with connected, suppress(OSError):
            connected.settimeout(0.2)
            connected.sendall(b"220 mx.example ESMTP\r\n")
            data, text = b"", False
            while more := self._read(connected):
                data += more
                while (end := data.find(b"\r\n.\r\n" if text else b"\r\n")) >= 0:
                    line, data = data[:end], data[end + (5 if text else 2) :]
                    text, reply = (False, b"250 2.0.0 Ok: queued as 4F1") if text else _reply(line)
                    connected.sendall(reply + b"\r\n")


def _reply(line: bytes) -> tuple[bool, bytes]:
    verb = line[:4].upper()
    return verb == b"DATA", {b"DATA": b"354 go on", b"QUIT": b"221 2.0.0 Bye"}.get(verb, b"250 2.0.0 Ok")
