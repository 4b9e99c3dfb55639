"""What the session is told about the limits of its client: values, and the interface of the object that knows them.

The object (`net.client_limits.ConnectionLimits`) is asked at the moment of a decision, because what it knows changes
with every event of the client, in all workers. It also counts the event, unless it is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from proxsmtp_tp.config.rates import AtOnce, ClientLimit, LockReply, RateLimit


@dataclass(frozen=True, slots=True)
class Exceeded:
    """A limit is reached; one more event would be admitted in `seconds` (0: nobody knows when a connection ends)."""

    limit: ClientLimit
    rate: RateLimit | AtOnce
    seconds: int


@dataclass(frozen=True, slots=True)
class Locked:
    """The client is locked. `until` is in UTC, as RFC 3339 writes it; `reason` is a directive, or `administrator`."""

    client: str
    until: str
    reason: str
    reply: LockReply


@dataclass(frozen=True, slots=True)
class Finding:
    """What must be done: refuse for this reason (None: do not), and log what the limits in shadow form would refuse."""

    refused: Exceeded | Locked | None
    shadow: tuple[Exceeded, ...] = ()


class ClientLimits(Protocol):
    """Of the client of one session. None, the usual answer, is a Finding with nothing to do."""

    def connection(self, server: str) -> Finding | None:
        """The client has connected; `server` is the IP address that it wants to talk to, "" where it does not matter.

        Counts the connection and the server.
        """

    def message(self) -> Finding | None:
        """MAIL is about to be sent to the server. Counts the message."""

    def recipient(self) -> Finding | None:
        """RCPT is about to be sent to the server. Counts the recipient."""

    def happened(self, limit: ClientLimit) -> Finding | None:
        """Count something that cannot be refused any more (REJECTS, SPAM). A Finding: the limit is reached with it."""
