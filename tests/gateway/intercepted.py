"""A gateway that intercepts connections to a server behind its default route, and a sender of single packets."""

from __future__ import annotations

from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING

from tests.gateway.daemon_host import DaemonHost
from tests.gateway.network import SERVER, WAN, Listener, greeting, run
from tests.gateway.packets import Wire
from tests.gateway.rules_host import SOON, within

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator


@contextmanager
def intercepted(**directives: str) -> Iterator[tuple[DaemonHost, Wire]]:
    """The gateway and the sender. Connections are intercepted: the server sees the gateway as its client."""
    peers: list[str] = []

    def greet(peer: socket.socket) -> str:
        peers.append(peer.getpeername()[0])
        return "220 hello"

    with ExitStack() as stack:
        host = stack.enter_context(closing(DaemonHost(TransparentProxy="client", **directives)))
        stack.enter_context(closing(Listener(host.net.server, 25, greet)))
        wire = stack.enter_context(closing(Wire(host.net)))
        for version in (4, 6):
            run(host.gateway, "ip", f"-{version}", "route", "add", "default", "via", SERVER[version])

        def filtered() -> bool:
            for version in (4, 6):
                greeting(host.net.client, SERVER[version], wait=1)
            return peers[-2:] == [WAN[4], WAN[6]]

        assert within(SOON, filtered)
        yield host, wire
