"""The two transports of a connection in asyncio's words: each callback is one call of the connection's."""

from __future__ import annotations

import asyncio
import select
from typing import TYPE_CHECKING

from proxsmtp_tp.session import events

if TYPE_CHECKING:
    import socket

    from proxsmtp_tp.net.connection import Connection


class ClientSide(asyncio.Protocol):
    """The client's transport, in asyncio's words."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.connection.client_made(transport)

    def data_received(self, data: bytes) -> None:
        self.connection.client_data(data)

    def eof_received(self) -> bool:
        self.connection.client_eof()
        return True  # our last reply may still be heard

    def connection_lost(self, _exc: Exception | None) -> None:
        self.connection.client_lost()

    def pause_writing(self) -> None:
        self.connection.hold_server()

    def resume_writing(self) -> None:
        self.connection.release_server()


class ServerSide(asyncio.Protocol):
    """The server's transport, in asyncio's words."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.connection.server_made(transport)

    def data_received(self, data: bytes) -> None:
        self.connection.feed(events.ServerData(data))

    def eof_received(self) -> None:
        self.connection.server_eof()

    def connection_lost(self, _exc: Exception | None) -> None:
        self.connection.server_lost()

    def pause_writing(self) -> None:
        self.connection.server_full(True)

    def resume_writing(self) -> None:
        self.connection.server_full(False)


def was_reset(sock: socket.socket) -> bool:
    """Whether the peer has reset the connection, which the event loop tells only of a socket that it reads.

    POLLERR (poll(2)) stands for a RST, not for a FIN, and a look does not clear it; one takes 5 microseconds. A unix
    socket knows no reset.
    """
    look = select.poll()
    look.register(sock, 0)
    return any(seen & select.POLLERR for _, seen in look.poll(0))
