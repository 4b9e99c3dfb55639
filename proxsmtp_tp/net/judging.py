"""The third party of a connection: the filter run of its message, and the judged message on its way back.

message text ──▶ filter       written as it comes; `full` says that the filter reads more slowly than that
judged message ──▶ session    read back in chunks, one a loop iteration, while the server takes them
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxsmtp_tp.filters.interface import FilterRequest
from proxsmtp_tp.session import events

if TYPE_CHECKING:
    from proxsmtp_tp.filters.interface import FilterRun
    from proxsmtp_tp.filters.verdict import Verdict
    from proxsmtp_tp.net.connection import Connection
    from proxsmtp_tp.session import effects

CHUNK = 65536
"""Octets of the judged message read at a time: what a loop iteration may spend on one connection."""


class Judging:
    """Of one connection, one message after the other; the FilterOwner of each."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.run: FilterRun | None = None
        """Where the text goes; None: nobody wants it."""
        self.full = False
        """The filter takes no more for now."""
        self._reading = False

    def start(self, effect: effects.StartFilter) -> None:
        """Begin to judge a message."""
        connection = self._connection
        request = FilterRequest(
            connection=connection.name,
            envelope=effect.envelope,
            client=connection.client_ip,
            server=connection.server_ip,
            helo=effect.helo,
            remote=effect.remote,
            remote_helo=effect.remote_helo,
        )
        if connection.proxy.filter is None:
            raise RuntimeError("the session asks for a filter that is not configured")
        self.run = connection.proxy.filter.start(request, self)

    def release(self) -> None:
        """Nobody wants the verdict, or the judged message, any more. Idempotent."""
        run, self.run = self.run, None
        self.full = False
        self._reading = False
        if run is not None:
            run.abort()
            run.close()

    # The judged message.

    def read_back(self) -> None:
        """It passed: feed it to the session, as fast as the server takes it."""
        self._reading = True
        self._connection.loop.call_soon(self._pump)

    def server_ready(self) -> None:
        """The server takes more again."""
        if self._reading:
            self._connection.loop.call_soon(self._pump)

    def stop_reading(self) -> None:
        """There is no server any more that takes it."""
        self._reading = False

    def _pump(self) -> None:
        """The next chunk, if the server has room for it."""
        connection = self._connection
        if not self._reading or connection.server_is_full or self.run is None:
            return
        try:
            chunk = self.run.read(CHUNK)
        except OSError as error:
            self._reading = False
            connection.feed(events.MessageUnreadable(str(error)))
            return
        if chunk:
            connection.feed(events.MessageChunk(chunk))
            connection.loop.call_soon(self._pump)
        else:
            self._reading = False
            connection.feed(events.MessageEnd())

    # FilterOwner.

    def filter_verdict(self, verdict: Verdict) -> None:
        """The session decides what becomes of it."""
        self._connection.feed(events.FilterVerdict(verdict))

    def pause_filter_input(self) -> None:
        """The client waits, too."""
        self.full = True
        self._connection.balance_client()

    def resume_filter_input(self) -> None:
        """The client may go on."""
        self.full = False
        self._connection.balance_client()
