"""A relay of two uvloop Protocols that write what they read: what any proxy in Python with this event loop costs.

Usage: python bare_relay.py PORT TO [WORKERS]

Two processes that share the port (SO_REUSEPORT), as a daemon with two workers.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from typing import cast

import uvloop


class Side(asyncio.Protocol):
    """One leg. What it reads, the other leg writes."""

    def __init__(self) -> None:
        self.other: Side | None = None
        self.transport: asyncio.Transport | None = None
        self.waiting: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send what came before the connection was made."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.writelines(self.waiting)
        self.waiting.clear()
        if self.other is None:  # the client has gone meanwhile
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Write it to the other leg."""
        if self.other is None:
            return
        if self.other.transport is None:
            self.other.waiting.append(data)
        else:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        """The other leg stops reading until this one has written."""
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """The other leg reads again."""
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, _: Exception | None) -> None:
        """Close both legs."""
        if self.other is not None:
            self.other.other = None
            if self.other.transport is not None:
                self.other.transport.close()
        self.other = None


class Accepted(Side):
    """The leg to the client: it dials the other one."""

    def __init__(self, to: int) -> None:
        super().__init__()
        self._to = to
        self._dialling: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connect the other leg."""
        self.other = server = Side()
        server.other = self
        super().connection_made(transport)
        self._dialling = asyncio.get_running_loop().create_task(self._dial(server))

    async def _dial(self, server: Side) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: server, "127.0.0.1", self._to)
        except OSError:
            assert self.transport is not None
            self.transport.abort()


async def serve(port: int, to: int) -> None:
    """Serve until the process is ended."""
    loop = asyncio.get_running_loop()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    server = await loop.create_server(lambda: Accepted(to), sock=listener, backlog=4096)
    await server.serve_forever()


def main() -> None:
    """Start the workers; this process is one of them."""
    port, to, workers = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 2
    for _ in range(workers - 1):
        if os.fork() == 0:
            break
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    uvloop.run(serve(port, to))


if __name__ == "__main__":
    main()
