"""Tells the rules that the daemon runs (RuleFail open): the daemon sends a datagram to itself, once a second.

When the rules see a datagram to the listening port over lo, they intercept connections for HEARTBEAT_HOLD seconds.
Why the rules are not installed and removed together with the daemon: a daemon that hangs stops sending, too; after a
kill no process has to run, because the kernel's entry expires; and the daemon needs no right to change rules. No socket
has to receive the datagram.

Guarantees: never blocks, never raises for network errors (a host without IPv6, a full buffer).
"""

from __future__ import annotations

import socket
from contextlib import suppress

INTERVAL = 1.0
"""Seconds between two heartbeats."""


class Heartbeat:
    """Sends heartbeats. Make one; call `beat` each INTERVAL while the daemon accepts connections."""

    def __init__(self, listen_port: int) -> None:
        """`listen_port` is `Settings.intercept_port`: the port to which the rules redirect connections."""
        self._sockets: list[tuple[socket.socket, tuple[str, int]]] = []
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            with suppress(OSError):
                sock = socket.socket(family, socket.SOCK_DGRAM)
                sock.setblocking(False)
                self._sockets.append((sock, (address, listen_port)))

    def beat(self) -> None:
        """Send one heartbeat for each IP version."""
        for sock, address in self._sockets:
            with suppress(OSError):
                sock.sendto(b"", address)

    def close(self) -> None:
        """Close the sockets: no more heartbeats. Idempotent."""
        for sock, _ in self._sockets:
            sock.close()
        self._sockets.clear()
