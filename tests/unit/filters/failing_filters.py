"""Filters that judge well, and filters that fail in every way, on real sockets and as real commands."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from tests.unit.filters.member_harness import server
from tests.unit.filters.protocols.milter_peer import options, packet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OCTET_PAUSE = 0.5
"""Seconds between two octets of a slow filter: its answer takes longer than TIMEOUT."""
TIMEOUT = 4.0


async def clamd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """No virus."""
    await reader.readuntil(b"\0")
    while (size := struct.unpack(">I", await reader.readexactly(4))[0]) > 0:
        await reader.readexactly(size)
    writer.write(b"stream: OK\0")


async def milter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """It wants every event, and goes on."""
    while head := await reader.read(1):
        (size,) = struct.unpack(">I", head + await reader.readexactly(3))
        code = (await reader.readexactly(size))[:1]
        if code not in b"DQA":
            writer.write(options() if code == b"O" else packet(b"c"))


async def spamd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """No spam."""
    asked = (await reader.readuntil(b"\r\n\r\n")).lower()
    text = await reader.readexactly(int(asked.split(b"content-length: ")[1].split(b"\r\n")[0]))
    writer.write(b"SPAMD/1.1 0 EX_OK\r\nContent-length: %d\r\nSpam: False ; 1.2 / 5.0\r\n\r\n" % len(text) + text)


async def rspamd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """No action."""
    asked = (await reader.readuntil(b"\r\n\r\n")).lower()
    await reader.readexactly(int(asked.split(b"content-length: ")[1].split(b"\r\n")[0]))
    text = b'{"action": "no action", "score": 0.5}'
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text)


async def scanner(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """SMTP: it takes every message."""
    writer.write(b"220 scanner ESMTP\r\n")
    while line := await reader.readline():
        if line.upper().startswith(b"DATA"):
            writer.write(b"354 go\r\n")
            await reader.readuntil(b"\r\n.\r\n")
        writer.write(b"250 ok\r\n")


SERVERS: dict[str, tuple[Handler, bytes]] = {
    "milter": (milter, options()),
    "clamd": (clamd, b"stream: OK\0"),
    "spamd": (spamd, b"SPAMD/1.1 0 EX_OK\r\nSpam: False ; 1.2 / 5.0\r\n\r\n"),
    "rspamd": (rspamd, b'HTTP/1.1 200 OK\r\nContent-Length: 23\r\n\r\n{"action": "no action"}'),
    "smtp": (scanner, b"220 scanner ESMTP\r\n"),
}
"""By type: one that judges well, and what it says first."""

READY = r"printf 'proxsmtp-worker=1\n\n'; "
COMMANDS = {
    "stopped": "exec /missing",
    "SIGSTOP": "kill -STOP $$",
    "killed": "head -c 10 >/dev/null; kill -KILL $$",
    "garbage": r"printf 'action=garbage\377\n\n'; sleep 1000",
    "slow": "sleep 1000",
    "full": "sleep 1000",
}
"""By failure: the command of the types pipe, file and worker. What a pipe writes is the message, never garbage."""
FAILURES = tuple(COMMANDS)


def kinds(failure: str) -> list[str]:
    """The types that can fail in this way."""
    return [*SERVERS, "worker", *(["pipe", "file"] if failure != "garbage" else [])]


class Switched:
    """A server that fails until `good`."""

    def __init__(self, kind: str, failure: str) -> None:
        self.good = False
        self._well, self._first = SERVERS[kind]
        self._failure = failure

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        if self.good:
            await self._well(reader, writer)
        elif self._failure == "garbage":
            writer.write(b"\xff garbage\r\n" * 20)
        elif self._failure == "slow":
            for octet in self._first:
                if writer.is_closing():
                    return
                writer.write(bytes([octet]))
                await asyncio.sleep(OCTET_PAUSE)
        else:
            writer.write(self._first if self._well is scanner else b"")
            await reader.readexactly(4)
            writer.transport.abort()


@asynccontextmanager
async def failing(path: Path, kind: str, failure: str) -> AsyncIterator[tuple[str, Switched | None]]:
    """A filter of that type that fails so: what follows its name in a Filter line; and the switch of a server."""
    if kind not in SERVERS:
        ready = READY if kind == "worker" and failure != "stopped" else ""
        path.with_suffix(".sh").write_text(ready + COMMANDS[failure] + "\n")
        yield f"{kind} exec sh {path.with_suffix('.sh')}", None
        return
    line, switch = f"{kind} {path}", Switched(kind, failure)
    async with AsyncExitStack() as stack:
        if failure in {"SIGSTOP", "full"}:  # the kernel takes the connection, and nobody reads
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(path))
            listener.listen()
            yield line, None
        elif failure == "stopped":
            yield line, None
        else:
            await stack.enter_async_context(server(path, switch.serve))
            yield line, switch
