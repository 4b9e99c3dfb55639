"""TransparentProxy full: the client's ports and ours, towards the same server, where few are free."""

from __future__ import annotations

import threading
from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING

import pytest

from tests.gateway.daemon_host import DaemonHost
from tests.gateway.network import CLIENT, SERVER, family, open_socket
from tests.gateway.rules_host import SOON, within

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

PORTS = range(40000, 40003)
"""All ports that the gateway can choose from; the client uses some of them."""


class Server:
    """A mail server for many sessions at once, which answers every command with the port that it sees."""

    def __init__(self, host: DaemonHost, version: int) -> None:
        self._listener = open_socket(host.net.server, family(SERVER[version]))
        self._listener.bind((SERVER[version], 25))
        self._listener.listen()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                link, peer = self._listener.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(link, peer[1])))
                self._threads[-1].start()

    def _serve(self, link: socket.socket, port: int) -> None:
        with closing(link), suppress(OSError):
            link.sendall(b"220 server.example\r\n")
            while link.recv(512):
                link.sendall(b"250 %d\r\n" % port)

    def close(self) -> None:
        """Close, when its sessions have ended."""
        self._listener.shutdown(2)
        for thread in self._threads:
            thread.join()
        self._listener.close()


@pytest.fixture
def gateway(request: pytest.FixtureRequest) -> Iterator[DaemonHost]:
    method, mode, fail = request.param
    host = DaemonHost(
        RuleMethod=method, RuleMode=mode, RuleFail=fail, TransparentProxy="full", Workers="2", ConnectTimeOut="10"
    )
    yield host
    host.close()


def choose_from(host: DaemonHost, ports: range) -> None:
    """What the gateway's own connections may come from."""
    host.run(f"sysctl -qw net.ipv4.ip_local_port_range='{ports[0]} {ports[-1]}'")


def session(stack: ExitStack, host: DaemonHost, version: int, port: int) -> socket.socket:
    """A session of the client from this port, greeted."""
    link = stack.enter_context(closing(open_socket(host.net.client, family(SERVER[version]))))
    link.settimeout(20)
    link.bind((CLIENT[version], port))
    link.connect((SERVER[version], 25))
    assert link.recv(512).startswith(b"220 ")
    return link


def server_sees(link: socket.socket) -> int:
    """From which port the server sees this session come."""
    link.sendall(b"HELO client.example\r\n")
    code, port = link.recv(512).split()
    assert code == b"250"
    return int(port)


def intercepted(host: DaemonHost, version: int) -> bool:
    """Whether the rules intercept: with fail open they do from the first heartbeat on."""
    with ExitStack() as stack:
        link = session(stack, host, version, 0)
        return server_sees(link) != int(link.getsockname()[1])


SETUPS = [
    (method, mode, fail)
    for method in ("nftables", "iptables")
    for mode in ("redirect", "tproxy")
    for fail in ("closed", "open")
]


@pytest.mark.parametrize("gateway", SETUPS, indirect=True, ids="-".join)
@pytest.mark.parametrize("version", [4, 6])
def test_ports_that_client_and_gateway_share(gateway: DaemonHost, version: int) -> None:
    """The daemon takes none of the client's ports, and a client may come from one that the daemon has."""
    with ExitStack() as stack:
        stack.callback(Server(gateway, version).close)
        assert within(SOON, lambda: intercepted(gateway, version))
        choose_from(gateway, PORTS[:2])
        first = session(stack, gateway, version, PORTS[0])
        assert server_sees(first) == PORTS[1]
        choose_from(gateway, PORTS[:3])
        second = session(stack, gateway, version, PORTS[1])
        assert server_sees(second) == PORTS[2]
        assert server_sees(first) == PORTS[1]
