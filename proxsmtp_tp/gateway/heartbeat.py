"""How a daemon tells the rules that it lives (RuleFail open): a datagram to itself, once a second.

The rules let a datagram to the listening port over lo keep connections coming for HEARTBEAT_HOLD. Why this and not
rules bound to the daemon's life: a daemon that hangs stops giving signs too; nothing has to run when it is killed; the
kernel forgets by itself; and the daemon needs no right to change rules, only to send. Nobody has to receive it.

Guarantees: never blocks, never raises for what the network does (a host without IPv6, a full buffer).
"""

from __future__ import annotations

import socket
from contextlib import suppress

INTERVAL = 1.0
"""Seconds between two signs."""


class Heartbeat:
    """The sender. Make it once; call `beat` each INTERVAL while the daemon accepts connections."""

    def __init__(self, listen_port: int) -> None:
        """`listen_port` is `Settings.intercept_port`: what the rules turn connections to."""
        self._sockets: list[tuple[socket.socket, tuple[str, int]]] = []
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            with suppress(OSError):
                sock = socket.socket(family, socket.SOCK_DGRAM)
                sock.setblocking(False)
                self._sockets.append((sock, (address, listen_port)))

    def beat(self) -> None:
        """Give one sign on each IP version."""
        for sock, address in self._sockets:
            with suppress(OSError):
                sock.sendto(b"", address)

    def close(self) -> None:
        """Give no more signs. Idempotent."""
        for sock, _ in self._sockets:
            sock.close()
        self._sockets.clear()
