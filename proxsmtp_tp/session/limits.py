"""The limits of a client as the session sees them: values, and the interface of the object that decides.

The object (`net.client_limits.ConnectionLimits`) is asked at each decision, because every event of the client, in any
worker, changes the answer. It also counts the event, unless the event is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

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
    """What to do: refuse for this reason (None: do not refuse), and log what limits in shadow form would refuse."""

    refused: Exceeded | Locked | None
    shadow: tuple[Exceeded, ...] = ()


class HandshakePlace(Protocol):
    """The place of this connection among the TLS handshakes of the worker (`net.handshake_limits.Place`)."""

    def begin(self) -> str:
        """Take it, unless it is taken already. Returns why there is none; "": it is taken."""

    def end(self) -> None:
        """Give it back. Idempotent."""


class Rejections(Protocol):
    """The servers for which this client has rejected our certificate (TlsRejected: pass). `name`: in its hello."""

    def known(self, server: str, port: int, name: str) -> bool:
        """Whether it has done so lately: its TLS passes."""

    def learn(self, server: str, port: int, name: str) -> None:
        """It does so now."""


class ClientLimits(Protocol):
    """The limits of one session's client. In the usual case the methods return None: there is nothing to do."""

    def connection(self, server: str) -> Finding | None:
        """The client has connected. `server` is the IP address that it connected to; "" if the configuration says where
        mail goes.

        Counts the connection and the server.
        """

    def message(self) -> Finding | None:
        """MAIL is about to be sent to the server. Counts the message."""

    def recipient(self) -> Finding | None:
        """RCPT is about to be sent to the server. Counts the recipient."""

    def happened(self, limit: ClientLimit) -> Finding | None:
        """Count what cannot be refused any more (REJECTS, SPAM). Returns a Finding if the limit is reached."""
