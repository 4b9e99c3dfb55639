"""Connections to the servers that judge mail (milter, clamd, spamd, rspamd): several addresses, the next one if one
cannot be connected to.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, NamedTuple

from proxsmtp_tp.config.addresses import UnixAddress
from proxsmtp_tp.filters.member import FilterFailedError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import SupportsIndex

    from proxsmtp_tp.config.addresses import Address

BUFFER = 64 * 1024
"""Octets that a stream reads ahead: what a server sends faster waits in its own socket."""

RETURN = 30.0
"""Seconds after which the first address is tried again, when another one was used in place of it."""

QUEUE_FULL = 0.02
"""Seconds between two attempts at a unix socket whose queue is full."""


class StreamReader(asyncio.StreamReader):
    """Knows which octets have come and were not read. Only `read` is used."""

    def __init__(self) -> None:
        super().__init__(BUFFER, asyncio.get_running_loop())
        self._unread = 0
        self._closed = False

    @property
    def spoke(self) -> bool:
        """Whether octets have come that nobody has read, or the end."""
        return self._unread > 0 or self._closed

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        """Of StreamReaderProtocol."""
        octets = bytes(data)
        self._unread += len(octets)
        super().feed_data(octets)

    def feed_eof(self) -> None:
        """Of StreamReaderProtocol."""
        self._closed = True
        super().feed_eof()

    async def read(self, n: int = -1) -> bytes:
        """The next octets; b"" at the end."""
        data = await super().read(n)
        self._unread -= len(data)
        return data


class Stream(NamedTuple):
    """A connection. Write, then `await writer.drain()`: a server that does not read must not fill the memory."""

    reader: StreamReader
    writer: asyncio.StreamWriter
    address: Address


class Servers:
    """The addresses of one filter. `connect`: seconds for each."""

    def __init__(self, addresses: tuple[Address, ...], connect: float) -> None:
        self.addresses = addresses
        self._connect = connect
        self._current = 0
        self._since = 0.0

    async def open(self) -> Stream:
        """Connect to the address that worked last, else to the others. Raises FilterFailedError (`unreachable`)."""
        now = asyncio.get_running_loop().time()
        if self._current and now - self._since > RETURN:
            self._current = 0
        reasons = []
        for step in range(len(self.addresses)):
            index = (self._current + step) % len(self.addresses)
            address = self.addresses[index]
            try:
                async with asyncio.timeout(self._connect):
                    reader, writer = await _connected(address)
            except TimeoutError:
                reasons.append(f"{address}: no connection within {self._connect:g} s")
            except OSError as error:
                reasons.append(f"{address}: {_reason(error)}")
            else:
                if index != self._current:
                    self._current, self._since = index, now
                return Stream(reader, writer, address)
        raise FilterFailedError("; ".join(reasons), unreachable=True)


def _reason(error: OSError) -> str:
    """In the words of the system; asyncio has its own ("Connect call failed"). An error of a name has no number > 0."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)


async def _connected(address: Address) -> tuple[StreamReader, asyncio.StreamWriter]:
    loop, reader = asyncio.get_running_loop(), StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport: asyncio.WriteTransport
    if isinstance(address, UnixAddress):
        sock = await _unix_socket(address.path)
        try:
            transport, _ = await loop.create_unix_connection(lambda: protocol, sock=sock)
        except BaseException:
            sock.close()
            raise
    else:
        transport, _ = await loop.create_connection(lambda: protocol, address.host, address.port)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def _unix_socket(path: str) -> socket.socket:
    """Connect. A full queue of the listener gives EAGAIN at once (connect(2)), which event loops take for an error, or
    for success: it is tried again until the caller's time has passed. libmilter's queue has 20 places.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        while True:
            try:
                sock.connect(path)
            except BlockingIOError:
                await asyncio.sleep(QUEUE_FULL)
            else:
                return sock
    except BaseException:
        sock.close()
        raise
