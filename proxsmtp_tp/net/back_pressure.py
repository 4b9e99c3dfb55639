"""Back-pressure: which side of a connection is read. If one side does not read, the other side is not read.

client ──▶ server    the client is not read while the server does not read, or while its lines wait for replies
server ──▶ client    the server is not read while the client does not read, or while its replies wait to be handled
client ──▶ client    a client that does not read its replies is not read, and its commands are not handled
filter ──▶ server    a judged message is read back only as fast as the server reads it (`judging`)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from proxsmtp_tp.net.sides import keep_reading

if TYPE_CHECKING:
    import asyncio

    from proxsmtp_tp.net.deadlines import Deadlines
    from proxsmtp_tp.session.session import Session

BACKLOG_LIMIT: Final = 65536
"""Octets of a peer that may wait to be handled; with more it is not read. Enough for any group of commands."""


class BackPressureOwner(Protocol):
    """The connection."""

    loop: asyncio.AbstractEventLoop
    session: Session
    times: Deadlines
    client: Any
    """The client's transport; None: there is none. `server` likewise."""
    server: Any
    closing: bool
    """The last reply was sent: what the client still sends is read and discarded."""


class BackPressure:
    """Decides for one connection which sides are read."""

    __slots__ = ("_owner", "client_is_full", "client_paused", "server_is_full", "server_paused")

    def __init__(self, owner: BackPressureOwner) -> None:
        self._owner = owner
        self.client_is_full = False
        """The client does not read fast enough. `server_is_full` likewise."""
        self.server_is_full = False
        self.client_paused = False
        """The client is not read. `server_paused` likewise."""
        self.server_paused = False

    def balance(self) -> None:
        """After each event: start or stop reading each side."""
        session = self._owner.session
        fluent = not (self.client_is_full or self.server_is_full or self.client_paused or self.server_paused)
        if not fluent or session.waiting_octets > BACKLOG_LIMIT or session.waiting_reply_octets > BACKLOG_LIMIT:
            self._balance_client()
            self._balance_server()

    def server_full(self, full: bool) -> None:
        """The server does not read fast enough, or reads again."""
        self.server_is_full = full
        self._balance_client()

    def release_client(self) -> None:
        """Read the client in any case: its connection is being closed."""
        if self.client_paused:
            self.client_paused = False
            self._owner.client.resume_reading()

    def _balance_client(self) -> None:
        owner = self._owner
        pause = not owner.closing and (
            self.server_is_full or self.client_is_full or owner.session.waiting_octets > BACKLOG_LIMIT
        )
        if pause is not self.client_paused and owner.client is not None:
            self.client_paused = pause
            keep_reading(owner.client, not pause)
            if pause:
                owner.times.pause_text(owner.loop.time())
            else:
                owner.times.resume_text(owner.loop.time())

    def _balance_server(self) -> None:
        owner = self._owner
        pause = self.client_is_full or owner.session.waiting_reply_octets > BACKLOG_LIMIT
        if pause is not self.server_paused and owner.server is not None:
            self.server_paused = pause
            keep_reading(owner.server, not pause)
