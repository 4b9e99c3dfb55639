"""The daemon with a small proxy of its own: `fake_daemon.py FILE [--detach] [--pid-file FILE]`.

The proxy greets with `220 PID` (or `421` past MaxConnections) and answers lines: PING, BUSY (a transaction
runs), DONE, DIE (the process ends), HANG (the event loop does), BUSIER (than the other workers?), CAPS (what a
program that it starts has of capabilities), FILES (its descriptors), USER. As the real one it ends idle connections
with 421 when it drains, and busy ones when it is stopped or DrainTimeOut passes; in a reload idle ones may still become
busy once.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import subprocess
import sys
import time
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, cast

from proxsmtp_tp.certificates.material import CertificateError
from proxsmtp_tp.config.reader import ConfigError, load_config
from proxsmtp_tp.net.tls_certificates import Certificates
from proxsmtp_tp.service import worker
from proxsmtp_tp.service.launch import Launch, launch
from proxsmtp_tp.service.worker import NO_KEYS
from proxsmtp_tp.session.state import Reason

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Sequence

    from proxsmtp_tp.certificates.material import Material
    from proxsmtp_tp.config.settings import Settings
    from proxsmtp_tp.net.admission import Admission
    from proxsmtp_tp.net.tls_certificates import WorkerKeys


class Turn(Enum):
    """A client's transaction."""

    TO_COME = "it has been idle since it came"
    RUNS = "it is busy"
    OVER = "it is idle again"


class FakeProxy:
    """What a worker runs here. While PATH exists, `Header: X-Fail: PATH` makes its start fail, `X-Wait: PATH` wait."""

    def __init__(
        self,
        settings: Settings,
        listeners: Sequence[socket.socket],
        admission: Admission,
        worker: int,
        *,
        keys: WorkerKeys = NO_KEYS,
    ) -> None:
        self.keys = keys
        what, _, path = (settings.header or "").partition(": ")
        if what == "X-Fail" and Path(path).exists():
            raise RuntimeError("asked to fail\nat the start")
        while what == "X-Wait" and Path(path).exists():
            time.sleep(0.01)
        self.settings, self.listeners, self.admission, self.worker = settings, listeners, admission, worker
        self.loop = asyncio.get_running_loop()
        self.clients: dict[socket.socket, Turn] = {}
        self.reason: Reason | None = None
        self.done = asyncio.Event()

    async def run(self) -> None:
        for listener in self.listeners:
            self.loop.add_reader(listener, self.accept, listener)
        await self.done.wait()

    def drain(self, reason: Reason) -> None:
        if self.reason is None:
            self.loop.call_later(self.settings.drain_time_out, self.stop)
        self.reason = reason
        for listener in self.listeners:
            self.loop.remove_reader(listener)
        self.listeners = []
        kept = {Turn.RUNS, Turn.TO_COME} if reason is Reason.RELOAD else {Turn.RUNS}
        for client in [client for client, turn in self.clients.items() if turn not in kept]:
            self.end(client, b"421 draining\n")
        self.check()

    def stop(self) -> None:
        for client in list(self.clients):
            self.end(client, b"421 stopped\n")
        self.check()

    def accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except BlockingIOError:
            return
        if not self.admission.try_enter(self.worker):
            client.send(b"421 too many\n")
            client.close()
            return
        client.setblocking(False)
        client.send(b"220 %d\n" % os.getpid())
        self.clients[client] = Turn.TO_COME
        self.loop.add_reader(client, self.read, client)

    def read(self, client: socket.socket) -> None:
        try:
            words = client.recv(4096).decode().split()
        except ConnectionError:
            words = []
        if not words:
            self.end(client, b"")
        for word in words:
            if word.startswith("MINT="):
                self.minted = self.loop.create_task(self.mint(client, word.partition("=")[2]))
                continue
            client.send(self.answer(client, word).encode() + b"\n")

    def answer(self, client: socket.socket, word: str) -> str:  # noqa: C901  (one case for each word)
        if word == "DIE":
            os._exit(7)
        if word == "HANG":
            client.send(b"250 HANG\n")
            time.sleep(600)
        if word == "BUSIER":
            return str(self.admission.busier_than_others(self.worker))
        if word == "CAPS":
            lines = subprocess.run(["cat", "/proc/self/status"], capture_output=True, check=True).stdout.decode()
            return " ".join(line.replace("\t", "") for line in lines.splitlines() if line.startswith("Cap"))
        if word == "FILES":
            return " ".join(str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink())
        if word.startswith("READ="):
            try:
                return f"{len(Path(word.partition('=')[2]).read_bytes())} octets"
            except OSError as error:
                return str(error.strerror)
        if word == "USER":
            return f"{os.getresuid()} {os.getresgid()} {os.getgroups()}"
        if word in {"BUSY", "DONE"}:
            self.clients[client] = Turn.RUNS if word == "BUSY" else Turn.OVER
        if word == "DONE" and self.reason:
            self.loop.call_soon(self.end, client, b"421 draining\n")
        return f"250 {word}"

    async def mint(self, client: socket.socket, name: str) -> None:
        """The certificate (base64 of PEM) of the CA that clients trust, or why there is none."""
        certificates = Certificates(self.keys, lambda material, _: cast("ssl.SSLContext", material))
        try:
            made = cast("Material", await certificates.context((name,), True, "192.0.2.1"))
            said = base64.b64encode(made.chain).decode()
        except CertificateError as error:
            said = f"none: {error}"
        client.send(f"{said}\n".encode())

    def end(self, client: socket.socket, text: bytes) -> None:
        if self.clients.pop(client, None) is not None:
            self.loop.remove_reader(client)
            self.admission.leave(self.worker)
            with suppress(OSError):  # it hung up first
                client.send(text)
            client.close()
        self.check()

    def check(self) -> None:
        if self.reason and not self.clients:
            self.done.set()


def main() -> int:
    worker.GRACE = 1.0  # the tests of what ends by it need not wait longer
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("--detach", action="store_true")
    parser.add_argument("--pid-file")
    args = parser.parse_args()
    try:
        configuration = load_config(args.file)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    return launch(
        Launch(
            configuration,
            args.file,
            name="fake",
            pid_file=args.pid_file,
            level=4,
            detach=args.detach,
            make_proxy=FakeProxy,
            proxy_module="asyncio",
        )
    )


if __name__ == "__main__":
    sys.exit(main())
