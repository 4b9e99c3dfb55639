"""The two transports of a connection: each callback of asyncio is one call to the owner."""

from __future__ import annotations

import asyncio
import select
import socket
import struct
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

_NO_LINGER = struct.pack("ii", 1, 0)
"""struct linger: on, for no second."""


class ClientOwner(Protocol):
    """The receiver of events of the client's transport."""

    def client_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport is ready; the client's first bytes may follow at once."""

    def client_data(self, data: bytes) -> None:
        """Bytes from the client."""

    def client_eof(self) -> None:
        """The client has closed its sending half."""

    def client_lost(self) -> None:
        """The client's connection has ended."""

    def client_full(self, full: bool) -> None:
        """The client does not read fast enough, or reads again."""


class ServerOwner(Protocol):
    """The receiver of events of the server's transport."""

    def server_made(self, transport: asyncio.BaseTransport) -> None:
        """The upstream connection is ready; its greeting may follow at once."""

    def server_data(self, data: bytes) -> None:
        """Bytes from the server."""

    def server_eof(self) -> None:
        """The server has closed its sending half."""

    def server_lost(self) -> None:
        """The server's connection has ended."""

    def server_full(self, full: bool) -> None:
        """The server does not read fast enough, or reads again."""


class ClientSide(asyncio.Protocol):
    """asyncio's callbacks for the client's transport."""

    __slots__ = ("owner",)

    def __init__(self, owner: ClientOwner) -> None:
        self.owner = owner

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.owner.client_made(transport)

    def data_received(self, data: bytes) -> None:
        self.owner.client_data(data)

    def eof_received(self) -> bool:
        self.owner.client_eof()
        return True  # the client may still read our last reply

    def connection_lost(self, _exc: Exception | None) -> None:
        self.owner.client_lost()

    def pause_writing(self) -> None:
        self.owner.client_full(True)

    def resume_writing(self) -> None:
        self.owner.client_full(False)


class ServerSide(asyncio.Protocol):
    """asyncio's callbacks for the server's transport."""

    __slots__ = ("owner",)

    def __init__(self, owner: ServerOwner) -> None:
        self.owner = owner

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.owner.server_made(transport)

    def data_received(self, data: bytes) -> None:
        self.owner.server_data(data)

    def eof_received(self) -> None:
        self.owner.server_eof()

    def connection_lost(self, _exc: Exception | None) -> None:
        self.owner.server_lost()

    def pause_writing(self) -> None:
        self.owner.server_full(True)

    def resume_writing(self) -> None:
        self.owner.server_full(False)


def make_transport(loop: asyncio.AbstractEventLoop, side: Callable[[], asyncio.Protocol], sock: socket.socket) -> None:
    """Make the transport of a connected socket; `connection_made` follows. Raises OSError.

    The coroutine of the event loop takes its first step at once. A task would take it one iteration later, with one
    more epoll_pwait(2).
    """
    making = loop.connect_accepted_socket(side, sock)
    waiter: asyncio.Future[None] = making.send(None)
    waiter.add_done_callback(partial(_made, making))


def _made(making: Coroutine[Any, None, object], _waiter: asyncio.Future[None]) -> None:
    with suppress(StopIteration):
        making.send(None)


def keep_reading(transport: Any, on: bool) -> None:
    """Read the peer, or let its bytes wait in the kernel. A transport that is being closed is not changed."""
    if transport.is_closing():
        return
    if on:
        transport.resume_reading()
    else:
        transport.pause_reading()


def was_reset(sock: socket.socket) -> bool:
    """Whether the peer has reset the connection. The event loop notices this only on a socket that it reads.

    POLLERR (poll(2)) means a RST, not a FIN, and asking does not clear it; one call takes 5 microseconds. Unix sockets
    have no reset.
    """
    look = select.poll()
    look.register(sock, 0)
    return any(seen & select.POLLERR for _, seen in look.poll(0))


def reset(sock: socket.socket) -> None:
    """Make the next close send a RST instead of a FIN (socket(7), SO_LINGER)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
