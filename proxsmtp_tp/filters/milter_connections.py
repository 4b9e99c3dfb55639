"""Connections to a milter that wait for the next message of the same client.

As with Postfix and sendmail, the messages of one connection of a client go to a milter on one connection, one after the
other: it is told once of the client, and negotiates once. Only a connection whose last message has its final answer is
kept, so no answer to one message can be taken for that to another. If a milter writes or closes a connection while it
has nothing to judge, this connection is not used again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import TYPE_CHECKING

from proxsmtp_tp.filters.callbacks import callback
from proxsmtp_tp.filters.interface import FilterRequest
from proxsmtp_tp.filters.protocols.milter_message import ShownMacros
from proxsmtp_tp.filters.protocols.milter_options import Options
from proxsmtp_tp.filters.streams import Stream

if TYPE_CHECKING:
    from proxsmtp_tp.filters.protocols.milter import MilterDialogue

IDLE = 5.0
"""Seconds that a connection waits for the next message: a client that has more mail sends it at once. Milters may have
a thread for each connection."""
LIFETIME = 30.0
"""Seconds from its beginning on during which a connection gets messages: then a new one is made, to the first address
again, or to the milter that listens on the socket now."""
PAUSE = 60.0
"""Seconds during which no connection is kept after one that could not be used: some milters serve one message on each
connection."""

_CLIENT = attrgetter(*(each.name for each in fields(FilterRequest) if each.name != "envelope"))
"""All that a milter may be told before MAIL."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A connection without a message. `goodbye` ends it in order. `began` and `since`: when it was made, and when its
    last message had its answer; by the event loop's clock.
    """

    stream: Stream
    options: Options
    macros: ShownMacros
    """Of its last message."""
    goodbye: bytes
    began: float
    since: float

    @property
    def usable(self) -> bool:
        """Whether the milter has neither closed it nor written to it."""
        return not (self.stream.spoke or self.stream.transport.is_closing())

    def quit(self) -> None:
        """End it in order."""
        self.stream.write(self.goodbye)
        self.stream.close()


class MilterConnections:
    """Those of one filter in one worker. `most`: how many there are, with those in use (`max=`)."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[tuple[object, ...], Kept] = {}
        """By client, in the order of the last answer."""
        self._timer: asyncio.TimerHandle | None = None
        self._not_before = 0.0
        self._closed = False

    def take(self, request: FilterRequest) -> Kept | None:
        """A connection of that client for its next message; the caller ends it or gives it back."""
        kept = self._kept.pop(_CLIENT(request), None) if self._kept else None
        if kept is None:
            return None
        now = asyncio.get_running_loop().time()
        if not kept.usable:
            kept.stream.transport.abort()
            self.pause()
        elif now - kept.began < LIFETIME:
            return kept
        else:
            kept.quit()
        return None

    def give(self, request: FilterRequest, stream: Stream, dialogue: MilterDialogue, began: float, in_use: int) -> bool:
        """Keep a connection, unless it is of no use: then False. `in_use`: how many have a message, without this."""
        options = dialogue.reusable
        if options is None:
            return False
        now = asyncio.get_running_loop().time()
        kept = Kept(stream, options, (dialogue.message.macros, dialogue.message.made), dialogue.goodbye(), began, now)
        client = _CLIENT(request)
        if self._closed or now < self._not_before or in_use >= self._most or client in self._kept or not kept.usable:
            return False
        self._kept[client] = kept
        self.make_space(in_use)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(IDLE, self._time_is_up)
        return True

    def make_space(self, in_use: int) -> None:
        """So many connections have a message: end the ones that have waited longest if there are too many."""
        while self._kept and len(self._kept) + in_use > self._most:
            self._kept.pop(next(iter(self._kept))).quit()

    def pause(self) -> None:
        """A message failed on a connection that had waited, or the milter has closed one."""
        self._not_before = asyncio.get_running_loop().time() + PAUSE

    def close(self) -> None:
        """End all."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self.make_space(self._most)

    @callback
    def _time_is_up(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        for client, kept in list(self._kept.items()):
            if kept.since + IDLE > loop.time():
                self._timer = loop.call_at(kept.since + IDLE, self._time_is_up)
                return
            del self._kept[client]
            kept.quit()

    def failed(self, error: Exception) -> None:
        """CallbackOwner: a bug. It concerns no message; the event loop logs it."""
        raise error
