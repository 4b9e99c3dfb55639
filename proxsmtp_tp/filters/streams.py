"""Connections to the servers that judge mail (milter, clamd, spamd, rspamd): several addresses, the next one if one
cannot be connected to.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.config.addresses import UnixAddress
from proxsmtp_tp.filters.callbacks import callback
from proxsmtp_tp.filters.member import FilterFailedError

if TYPE_CHECKING:
    from proxsmtp_tp.config.addresses import Address

BUFFER = 64 * 1024
"""A stream reads ahead twice as many octets, and again from so many on: what a server sends faster waits in its own
socket."""

RETURN = 30.0
"""Seconds after which the first address is tried again, when another one was used in place of it."""

QUEUE_FULL = 0.02
"""Seconds between two attempts at a unix socket whose queue is full."""


class Stream:
    """A connection, and asyncio's Protocol of it: one reader, one writer.

    In place of asyncio's StreamReader and StreamWriter, because this class can be compiled.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._unread = bytearray()
        self._closed = False
        """Nothing more comes."""
        self._error: Exception | None = None
        self._lost = False
        self._paused = False
        self._full = False
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    @property
    def spoke(self) -> bool:
        """Whether octets have come that nobody has read, or the end."""
        return bool(self._unread) or self._closed

    @property
    def transport(self) -> asyncio.Transport:
        """That of the connection."""
        if self._transport is None:
            raise AssertionError("a stream that is not connected")
        return self._transport

    @property
    def unsent(self) -> int:
        """Octets that were written, and that the system has not taken yet."""
        return self.transport.get_write_buffer_size()

    async def read(self, most: int) -> bytes:
        """The next octets; b"" at the end. Raises ConnectionError.

        It gives way to others only if it must wait: see `spoke`.
        """
        if not self._unread and not self._closed:
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        if self._error is not None:
            raise self._error
        unread = self._unread
        if len(unread) <= most:
            data = bytes(unread)
            unread.clear()
        else:
            data = bytes(unread[:most])
            del unread[:most]
        if self._paused and len(unread) <= BUFFER:
            self._paused = False
            self.transport.resume_reading()
        return data

    def write(self, data: bytes) -> None:
        """Write; then `await drain()`: a server that does not read must not fill the memory."""
        self.transport.write(data)

    async def drain(self) -> None:
        """Wait while the server does not read fast enough. Raises ConnectionError."""
        if self._error is not None:
            raise self._error
        if self.transport.is_closing():
            await asyncio.sleep(0)  # `connection_lost` comes next
        if self._lost:
            raise ConnectionResetError("Connection lost")
        if self._full:
            self._writer = self._loop.create_future()
            try:
                await self._writer
            finally:
                self._writer = None

    def close(self) -> None:
        """End it in order: what is unsent is sent."""
        self.transport.close()

    # Called by the transport: see `asyncio.Protocol`. What another one than these two raises, it gives to
    # `connection_lost`.

    @callback
    def connection_made(self, transport: asyncio.Transport) -> None:
        """asyncio.Protocol."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """asyncio.Protocol."""
        self._unread += data
        self._read_on()
        if len(self._unread) > 2 * BUFFER and not self._paused and not self._closed:
            self._paused = True
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        """asyncio.Protocol. True: we may still write."""
        self._closed = True
        self._read_on()
        return True

    @callback
    def connection_lost(self, error: Exception | None) -> None:
        """asyncio.Protocol."""
        self._closed = self._lost = True
        self._error = error
        self._read_on()
        writer = self._writer
        if writer is not None and not writer.done():
            if error is not None:
                writer.set_exception(error)
            else:
                writer.set_result(None)

    def failed(self, error: Exception) -> None:
        """CallbackOwner: who reads gets the error."""
        self._error = error
        self._read_on()

    def pause_writing(self) -> None:
        """asyncio.Protocol."""
        self._full = True

    def resume_writing(self) -> None:
        """asyncio.Protocol."""
        self._full = False
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)

    def _read_on(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


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
                    stream = await _connected(address)
            except TimeoutError:
                reasons.append(f"{address}: no connection within {self._connect:g} s")
            except OSError as error:
                reasons.append(f"{address}: {_reason(error)}")
            else:
                if index != self._current:
                    self._current, self._since = index, now
                return stream
        raise FilterFailedError("; ".join(reasons), unreachable=True)


def _reason(error: OSError) -> str:
    """In the words of the system; asyncio has its own ("Connect call failed"). An error of a name has no number > 0."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)


async def _connected(address: Address) -> Stream:
    loop, stream = asyncio.get_running_loop(), Stream(address)

    def protocol() -> Any:
        return stream

    if isinstance(address, UnixAddress):
        sock = await _unix_socket(address.path)
        try:
            await loop.create_unix_connection(protocol, sock=sock)
        except BaseException:
            sock.close()
            raise
    else:
        await loop.create_connection(protocol, address.host, address.port)
    return stream


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
