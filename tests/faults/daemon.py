"""The real daemon as a process, on unix sockets, with clients and a server that the test plays.

So the server can tell which worker has dialled (SO_PEERCRED, unix(7)).
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tests.unit.net.proxy_harness import WAIT_SECONDS, Mx, Peer, until
from tests.unit.session.models import ModelServer

COMMAND = Path(sys.executable).parent / "proxsmtp-tp"
LIMIT = 24
WORKERS = 2


class Daemon:
    """`proxsmtp-tp serve` with a configuration of its own: `rest` are its other directives; messages in `temp`."""

    def __init__(self, folder: Path, rest: str, temp: Path | None = None) -> None:
        self.folder = folder
        self.temp = temp or folder / "temp"
        self.temp.mkdir(exist_ok=True)
        (folder / "conf").write_text(
            f"Listen: {folder}/in\nOutAddress: {folder}/mx\nWorkers: {WORKERS}\nMaxConnections: {LIMIT}\n"
            f"TempDirectory: {self.temp}\n{rest}\n"
        )
        self.log = folder / "log"
        self.start()

    def start(self) -> None:
        """Once more, after `kill`."""
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [COMMAND, "serve", "-f", str(self.folder / "conf"), "-p", str(self.folder / "pid")],
                stderr=log,
                env={**os.environ, "RUNTIME_DIRECTORY": str(self.folder)},
            )

    @property
    def ready(self) -> bool:
        """All its workers accept."""
        assert self._process.poll() is None, self.log.read_text()
        pid = self.folder / "pid"
        return pid.exists() and pid.stat().st_size > 0

    @property
    def workers(self) -> list[int]:
        """Their process ids."""
        pid = self._process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    async def reload(self) -> None:
        """HUP, until the new workers are in force."""
        done = "the new configuration is in force"
        before = self.log.read_text().count(done)
        self._process.send_signal(signal.SIGHUP)
        await until(lambda: self.log.read_text().count(done) > before, "the reload is done")

    def kill(self) -> None:
        """All of it, as the kernel does that ends a whole unit for lack of memory."""
        self._process.send_signal(signal.SIGSTOP)  # nobody is replaced, and nobody ends by itself
        for pid in self.workers:
            os.kill(pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        (self.folder / "pid").unlink()

    def files(self) -> set[str]:
        """What is in its TempDirectory."""
        return {path.name for path in self.temp.iterdir()}

    def end(self) -> None:
        """TERM, and wait."""
        self._process.terminate()
        try:
            self._process.wait(WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Caller:
    """One client, the server's end of its connection, and the worker in between."""

    def __init__(self, client: Peer, server: Peer, model: ModelServer) -> None:
        self.client = client
        self.server = server
        self.model = model
        raw = server.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        self.worker = int(struct.unpack("3i", raw)[0])

    async def answer(self) -> None:
        """The server's part, until its end."""
        with suppress(OSError):
            while data := await asyncio.get_running_loop().sock_recv(self.server.sock, 65536):
                await self.server.say(self.model.receive(data))


class DaemonPeers:
    """The daemon's clients and its server."""

    def __init__(self, folder: Path, mx: Mx) -> None:
        self.entrance = str(folder / "in")
        self.mx = mx
        self.clients: list[Peer] = []

    async def client(self) -> Peer:
        """Connect."""
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        self.clients.append(Peer(sock))
        await asyncio.get_running_loop().sock_connect(sock, self.entrance)
        return self.clients[-1]

    async def caller(self) -> Caller:
        """A client in the middle of its message."""
        client = await self.client()
        server = await self.mx.greeted()
        caller = Caller(client, server, ModelServer())
        self.mx._start(caller.answer())
        await client.reply()
        for said in ("EHLO c.example", "MAIL FROM:<a@c.example>", "RCPT TO:<b@mx.example>", "DATA"):
            await client.ask(said)
        await client.say("Subject: one")
        return caller

    async def admitted(self) -> bool:
        """Whether one more client is accepted. Its connection stays open."""
        client = await self.client()
        with suppress(TimeoutError):
            async with asyncio.timeout(WAIT_SECONDS):
                answering = asyncio.create_task(self.mx.greeted())
                reply = await client.reply()
                if not reply.startswith(b"220"):
                    answering.cancel()
                return reply.startswith(b"220")
        return False

    def close(self) -> None:
        """Close all connections."""
        for client in self.clients:
            client.close()
