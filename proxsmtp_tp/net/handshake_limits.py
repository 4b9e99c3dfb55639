"""How many TLS handshakes run at once in one worker, of all clients and of one client.

A handshake takes about a millisecond of CPU time, fifty times that of a small message's command. Without a limit, one
client that opens connections and only does handshakes would keep a worker from serving others.
"""

from __future__ import annotations

from proxsmtp_tp.config.addresses import client_of_address


class HandshakeLimits:
    """The handshakes that run in this worker. A limit of 0 is none. Programs of this host have no limit of a client.

    One handshake is that of a whole connection: of both of its legs, from STARTTLS to the end of the second handshake.
    """

    def __init__(self, at_once: int, of_one_client: int) -> None:
        self._at_once = at_once
        self._of_one_client = of_one_client
        self._running = 0
        self._of: dict[str, int] = {}

    @property
    def running(self) -> int:
        """Handshakes that run now."""
        return self._running

    @property
    def clients(self) -> int:
        """Clients that have one of them."""
        return len(self._of)

    def take(self, client: str) -> str:
        """Take a place for a client; returns why there is none. Only for Place, which gives it back.

        Then the client gets 421 4.7.0 to STARTTLS, and may connect again.
        """
        count = self._of.get(client, 0)
        if self._at_once and self._running >= self._at_once:
            return "too many TLS handshakes at once"
        if client and self._of_one_client and count >= self._of_one_client:
            return "too many TLS handshakes of this client at once"
        self._running += 1
        self._of[client] = count + 1
        return ""

    def give_back(self, client: str) -> None:
        """One of this client has ended. Only for Place."""
        self._running -= 1
        if (left := self._of[client] - 1) > 0:
            self._of[client] = left
        else:
            del self._of[client]


class Place:
    """A connection's place for a handshake (`session.limits.HandshakePlace`)."""

    __slots__ = ("_client", "_limits", "_taken")

    def __init__(self, limits: HandshakeLimits, client_ip: str) -> None:
        self._limits = limits
        self._client = client_of_address(client_ip)
        self._taken = False

    def begin(self) -> str:
        """Take a place, if this connection has none; returns why there is none."""
        if self._taken:
            return ""
        reason = self._limits.take(self._client)
        self._taken = not reason
        return reason

    def end(self) -> None:
        """The handshake is finished or has failed, or the connection has ended. Idempotent."""
        if self._taken:
            self._taken = False
            self._limits.give_back(self._client)
