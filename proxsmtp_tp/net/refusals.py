"""Makes the rules refuse connections to a server that cannot be reached: sends a UDP datagram to that server's address.

The rules (chain `failed`) drop the datagram before it leaves the host and store its destination for ten seconds. In
that time they answer new connections to it with a reset, so a client fails before a greeting, as without the proxy. The
rules accept datagrams of the daemon's user only: no other user can make them refuse a server, and the daemon needs no
right to change rules. In full mode the datagram has the client's address as its source, and the refusal is for that
client only, because a server may refuse one address and serve others.

For a server that does not answer, the datagram is sent before the connection attempt has timed out: one client waits,
the others are refused at once.

Guarantees: never blocks, never raises for what the network does. Without the rules a datagram reaches the next
router at most (IP_TTL, ip(7); IPV6_UNICAST_HOPS, ipv6(7)).
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from proxsmtp_tp.net.source_port import make_transparent

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from proxsmtp_tp.config.settings import Settings
    from proxsmtp_tp.net.original_destination import Endpoint

UNREACHABLE = frozenset(
    {errno.ECONNREFUSED, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ECONNRESET}
)
"""Errors of connect(2) that mean: the server is unreachable. Other errors are faults of this host."""

SILENCE = 3.5
"""Seconds without an answer before the first datagram: by then the SYN was repeated after 1 and 3 seconds."""
AGAIN = 5.0
"""Seconds between datagrams: the rules store a destination for ten seconds, so one datagram may be lost."""


class Refusals:
    """Sends the datagrams. `enabled` is false where the configuration has no rules, or this is not the user they
    accept."""

    def __init__(self, settings: Settings) -> None:
        ruled = bool(settings.rule_interface) or settings.rule_local
        self.enabled = settings.refuse_unreachable and ruled and (settings.user is not None or os.geteuid() == 0)

    def ask(self, server: Endpoint, client_ip: str | None) -> None:
        """Make the rules refuse new connections to this server; with `client_ip`, from that address only."""
        if not self.enabled:
            return
        v6 = ":" in server.ip
        with suppress(OSError), socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            if v6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1)
            else:
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
            if client_ip is not None:
                make_transparent(sock)
                sock.bind((client_ip, 0))
            sock.sendto(b"", tuple(server))  # EPERM: the rules drop it

    @contextmanager
    def while_silent(
        self, loop: asyncio.AbstractEventLoop, server: Endpoint, client_ip: str | None, first: float | None = None
    ) -> Iterator[None]:
        """Ask again and again until the block ends; the first time after `first` seconds (default: SILENCE)."""
        if not self.enabled:
            yield
            return

        def ask() -> None:
            self.ask(server, client_ip)
            timers.append(loop.call_later(AGAIN, ask))

        timers = [loop.call_later(SILENCE if first is None else first, ask)]
        try:
            yield
        finally:
            timers[-1].cancel()
