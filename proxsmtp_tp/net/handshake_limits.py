"""How many TLS handshakes run at once in one worker, of all clients and of one client.

A handshake takes about a millisecond of CPU time, fifty times that of a small message's command. Without a limit, one
client that opens connections and only does handshakes would keep a worker from everybody else's mail.
"""

from __future__ import annotations

from enum import Enum

from proxsmtp_tp.config.addresses import client_of_address


class Busy(Enum):
    """Why no handshake may begin now. The client gets 454 4.7.0 to STARTTLS, and may try again (RFC 3207 section 4)."""

    WORKER = "too many TLS handshakes at once"
    CLIENT = "too many TLS handshakes of this client at once"


class HandshakeLimits:
    """The handshakes that run in this worker. A limit of 0 is none. Programs of this host have no limit of a client.

    One handshake is that of a whole connection: of both of its legs, from STARTTLS to the end of the second handshake.
    """

    def __init__(self, at_once: int, of_one_client: int) -> None:
        self.at_once = at_once
        self.of_one_client = of_one_client
        self._running = 0
        self._of: dict[str, int] = {}

    def begin(self, client_ip: str) -> Handshake | Busy:
        """Take a place, or say why there is none. A place is given back by `Handshake.end`."""
        if self.at_once and self._running >= self.at_once:
            return Busy.WORKER
        client = client_of_address(client_ip)
        count = self._of.get(client, 0)
        if client and self.of_one_client and count >= self.of_one_client:
            return Busy.CLIENT
        self._running += 1
        self._of[client] = count + 1
        return Handshake(self, client)

    @property
    def running(self) -> int:
        """Handshakes that run now."""
        return self._running

    @property
    def clients(self) -> int:
        """Clients that have one of them."""
        return len(self._of)

    def give_back(self, client: str) -> None:
        """One of this client has ended. Only for Handshake."""
        self._running -= 1
        if (left := self._of[client] - 1) > 0:
            self._of[client] = left
        else:
            del self._of[client]


class Handshake:
    """A place that is taken until `end`."""

    __slots__ = ("_client", "_limits")

    def __init__(self, limits: HandshakeLimits, client: str) -> None:
        self._limits: HandshakeLimits | None = limits
        self._client = client

    def end(self) -> None:
        """The handshake is finished or has failed, or the connection has ended. A second call does nothing."""
        if self._limits is not None:
            self._limits.give_back(self._client)
            self._limits = None
