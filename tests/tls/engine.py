"""The TLS engine on sockets, without the proxy: the minimum that a connection does with a TlsStream."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.net.tls_stream import TlsStream, TlsStreamError
from proxsmtp_tp.tls.alerts import Alert, alert_record
from proxsmtp_tp.tls.client_hello import ClientHelloReader, NotTlsError
from proxsmtp_tp.tls.facts import Side
from tests.unit.net.tls_legs import self_signed

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator
    from pathlib import Path

    from proxsmtp_tp.certificates.material import Material
    from proxsmtp_tp.net.tls_contexts import ClientContexts

WAIT_SECONDS = 60.0
"""Seconds for anything that does not come."""


class Leg(asyncio.Protocol):
    """One connection. What happens is in `seen`, in order: facts, lines, the end or the reason of an error."""

    def __init__(self) -> None:
        self.seen: asyncio.Queue[Any] = asyncio.Queue()
        self.stream: TlsStream | None = None
        self.transport: Any = None
        self.turns = 0
        self._line = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.seen.put_nowait("lost")

    def data_received(self, data: bytes) -> None:
        self.turn(data)

    def turn(self, data: bytes) -> None:
        assert self.stream is not None
        self.turns += 1
        before = self.stream.handshaking
        try:
            plain = self.stream.receive(data)
        except TlsStreamError as error:
            self.transport.write(self.stream.to_send())
            self.transport.close()
            self.seen.put_nowait(error)
            return
        if before and not self.stream.handshaking:
            self.seen.put_nowait(self.stream.facts())
        self.got(plain)
        self.transport.write(self.stream.to_send())
        if self.stream.more:
            self.transport.pause_reading()
            asyncio.get_running_loop().call_soon(self.turn, b"")
        elif self.stream.end is not None:
            self.seen.put_nowait(self.stream.end)
            self.stream.close_notify()
            self.transport.write(self.stream.to_send())
            self.transport.close()
        else:
            self.transport.resume_reading()

    def eof_received(self) -> bool:
        if self.stream is None:
            self.transport.close()
        elif not self.transport.is_closing():
            self.stream.eof()
            self.turn(b"")
        return True

    def got(self, plain: bytes) -> None:
        *lines, self._line = (self._line + plain).split(b"\n")
        for line in lines:
            self.seen.put_nowait(line)

    def send(self, plain: bytes) -> None:
        assert self.stream is not None
        self.stream.write(plain)
        self.transport.write(self.stream.to_send())

    async def next(self) -> Any:
        """What happens next."""
        async with asyncio.timeout(WAIT_SECONDS):
            return await self.seen.get()


class ClientLeg(Leg):
    """A TLS server: reads the ClientHello first, then answers each line with itself."""

    def __init__(self, contexts: ClientContexts, certificate: Material) -> None:
        super().__init__()
        self._contexts = contexts
        self._certificate = certificate
        self._hello = ClientHelloReader()

    def data_received(self, data: bytes) -> None:
        if self.stream is not None:
            self.turn(data)
            return
        try:
            hello = self._hello.feed(data)
        except NotTlsError as error:
            self.transport.write(alert_record(Alert.UNEXPECTED_MESSAGE))
            self.transport.close()
            self.seen.put_nowait(error)
            return
        if hello is None:
            return
        context = self._contexts.get(self._certificate, hello.versions)
        self.stream = TlsStream(context, Side.CLIENT, hello.server_name)
        self.turn(hello.octets)

    def got(self, plain: bytes) -> None:
        super().got(plain)
        if plain:
            self.send(plain)


class ServerLeg(Leg):
    """A TLS client."""

    def __init__(self, context: ssl.SSLContext, name: str) -> None:
        super().__init__()
        self.stream = TlsStream(context, Side.SERVER, name)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.stream is not None
        self.transport.write(self.stream.to_send())


class Listening:
    """A TLS server of ours; `accepted` gives its connections in order."""

    def __init__(self, contexts: ClientContexts, certificate: Material) -> None:
        self._contexts, self._certificate = contexts, certificate
        self._legs: asyncio.Queue[ClientLeg] = asyncio.Queue()
        self.port = 0

    def make(self) -> ClientLeg:
        leg = ClientLeg(self._contexts, self._certificate)
        self._legs.put_nowait(leg)
        return leg

    async def accepted(self) -> ClientLeg:
        async with asyncio.timeout(WAIT_SECONDS):
            return await self._legs.get()


@asynccontextmanager
async def listening(contexts: ClientContexts, certificate: Material | None = None) -> AsyncIterator[Listening]:
    """On a free port of loopback."""
    owner = Listening(contexts, certificate or self_signed())
    server = await asyncio.get_running_loop().create_server(owner.make, "127.0.0.1", 0)
    owner.port = server.sockets[0].getsockname()[1]
    try:
        yield owner
    finally:
        server.close()
        await server.wait_closed()


async def connect(port: int, context: ssl.SSLContext, name: str = "mx.example") -> ServerLeg:
    """A TLS client of ours; waits until the server listens."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            try:
                _, leg = await loop.create_connection(lambda: ServerLeg(context, name), "127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                return leg


class Program:
    """A process with its input and output."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._input, self._output = process.stdin, process.stdout

    def type(self, text: bytes) -> None:
        self._input.write(text)

    def end_of_input(self) -> None:
        self._input.close()

    def kill(self) -> None:
        self._process.kill()

    async def until(self, text: bytes) -> bytes:
        """Its output up to this text. AssertionError: it ended without."""
        seen = b""
        async with asyncio.timeout(WAIT_SECONDS):
            while text not in seen:
                more = await self._output.read(4096)
                assert more, seen.decode(errors="replace")
                seen += more
        return seen

    async def rest(self) -> bytes:
        """Its output until it ends."""
        async with asyncio.timeout(WAIT_SECONDS):
            seen = await self._output.read()
            await self._process.wait()
            return seen


@asynccontextmanager
async def program(*command: str | Path) -> AsyncIterator[Program]:
    """Runs until the end of the block; errors are in its output."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.kill()
        assert process.stdin is not None
        process.stdin.close()
        await process.communicate()
