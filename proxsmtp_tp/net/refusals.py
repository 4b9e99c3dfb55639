"""Makes the rules refuse connections to a server that cannot be reached, by a datagram to the address of that server.

The rules (chain `failed`) drop the datagram before it leaves the host, remember its destination, and for ten seconds
answer new connections to it with a reset: a client then fails as it would without the proxy, before a greeting. Only
datagrams of the daemon's user are valid, so no other user can make the rules refuse a server, and the daemon needs no
right to change rules. In full mode the datagram comes from the client's own address, and is valid for that client only,
because a server may refuse one address and serve others.

A server that gives no answer is named while it is waited for, so that one client waits and the others go on.

Guarantees: never blocks, never raises for what the network does. Where the rules are missing, a datagram goes no
further than to the next router (IP_TTL, ip(7); IPV6_UNICAST_HOPS, ipv6(7)).
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
"""What connect(2) says of a server that is not there; other errors are our own."""

SILENCE = 3.5
"""Seconds without an answer after which a server is named: the SYN and two more, after 1 and 3 seconds, are lost."""
AGAIN = 5.0
"""Seconds after which it is named again: the rules keep it for ten, one datagram may get lost."""


class Refusals:
    """Sends the datagrams. `enabled` is false without rules of ours, or if this is not their user."""

    def __init__(self, settings: Settings) -> None:
        ruled = bool(settings.rule_interface) or settings.rule_local
        self.enabled = settings.refuse_unreachable and ruled and (settings.user is not None or os.geteuid() == 0)

    def ask(self, server: Endpoint, client_ip: str | None) -> None:
        """Have new connections to this server refused; with `client_ip`, from that address only."""
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
        """Have them refused until the block ends, from `first` seconds on (`SILENCE`)."""
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
