"""Connections that began unfiltered: reset on both sides or left alone, and counted; also after a time of fail open."""

from __future__ import annotations

import socket
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.gateway import existing, survey
from proxsmtp_tp.gateway.plan import Existing, Fail, Method, Mode
from tests.gateway.network import CLIENT, SERVER, WAIT, family, greeting, inside, open_socket
from tests.gateway.rules_host import METHODS, MODES, SOON, RulesHost, options, within
from tests.gateway.test_fail import HeartbeatSender

if TYPE_CHECKING:
    from collections.abc import Iterator

BOTH = [(method, mode) for method in METHODS for mode in MODES]


class Session:
    """A connection of the client to the server; the test has both ends."""

    def __init__(self, host: RulesHost, version: int, port: int = 25) -> None:
        self.version = version
        self._listening = open_socket(host.net.server, family(SERVER[version]))
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listening.bind((SERVER[version], port))
        self._listening.listen()
        self._listening.settimeout(WAIT)
        self.client = open_socket(host.net.client, family(SERVER[version]))
        self.client.settimeout(WAIT)
        self.client.connect((SERVER[version], port))
        address, own = self.client.getsockname()[:2]
        ends = (address, own), (SERVER[version], port)
        self.name = " -> ".join(
            f"[{address}]:{port}" if ":" in address else f"{address}:{port}" for address, port in ends
        )
        """As check-rules shows it."""
        self.server, _ = self._listening.accept()
        self.server.settimeout(WAIT)
        self._listening.close()

    def passes(self) -> bool:
        """Whether a command of the client reaches the server, and the answer comes back."""
        try:
            self.client.sendall(b"NOOP\r\n")
            if self.server.recv(64) != b"NOOP\r\n":
                return False
            self.server.sendall(b"250 ok\r\n")
            return self.client.recv(64) == b"250 ok\r\n"
        except OSError:
            return False

    def no_longer_passes(self) -> bool:
        """Whether nothing of the client reaches the server, or no answer comes back."""
        return not self.passes()

    def client_is_reset(self) -> bool:
        """Whether the client gets a reset when it says something."""
        return speaks_to_a_reset(self.client)

    @staticmethod
    def is_reset(sock: socket.socket) -> bool:
        """Whether the connection is reset on this side."""
        try:
            while sock.recv(64):
                pass
        except ConnectionResetError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """End both."""
        self.client.close()
        self.server.close()


def speaks_to_a_reset(sock: socket.socket) -> bool:
    """Say something; whether the connection is, or was already, reset."""
    try:
        sock.sendall(b"MAIL FROM:<a@example.org>\r\n")
    except ConnectionResetError:
        return True
    return Session.is_reset(sock)


@pytest.fixture
def sessions(host: RulesHost) -> Iterator[list[Session]]:
    """One of each IP version."""
    found = [Session(host, version) for version in (4, 6)]
    yield found
    for session in found:
        session.close()


def counted(host: RulesHost, **changes: Any) -> list[str]:
    """What check-rules counts."""

    def look() -> list[str]:
        plan, _ = survey.choose_plan(options(**changes), host.store().read_all())
        return existing.connections(plan)

    return inside(host.net.gateway, look)


@pytest.mark.parametrize(("method", "mode"), BOTH)
def test_reset_ends_both_sides(host: RulesHost, sessions: list[Session], method: Method, mode: Mode) -> None:
    host.daemon(mode)
    assert all(session.passes() for session in sessions)
    host.install(method=method, mode=mode)
    for session in sessions:
        # An answer on its way arrives: a message that the server took is not sent twice.
        session.server.sendall(b"250 queued\r\n")
        assert session.client.recv(64) == b"250 queued\r\n"
        assert session.client_is_reset()
        if method is Method.IPTABLES:
            # There the server learns when it says something.
            session.server.sendall(b"421 idle\r\n")
        assert session.is_reset(session.server)
        # The next connection is filtered.
        assert greeting(host.net.client, SERVER[session.version]).startswith("daemon")
    assert counted(host, method=method, mode=mode) == sorted(session.name for session in sessions)


@pytest.mark.parametrize(("method", "mode"), BOTH)
def test_finish_lets_them_go_on_and_counts_them(
    host: RulesHost, sessions: list[Session], method: Method, mode: Mode
) -> None:
    finish = {"method": method, "mode": mode, "existing": Existing.FINISH}
    host.daemon(mode)
    host.install(**finish)
    assert counted(host, **finish) == []
    assert all(session.passes() for session in sessions)
    assert counted(host, **finish) == sorted(session.name for session in sessions)
    assert host.check(**finish).in_place
    assert not host.install(**finish).changed


@pytest.mark.parametrize("method", METHODS)
def test_others_are_left_alone(host: RulesHost, method: Method) -> None:
    """Other ports, excepted clients, and what the server's side began."""
    from ipaddress import ip_network

    others = [Session(host, version, 2525) for version in (4, 6)]
    excepted = [Session(host, version) for version in (4, 6)]
    host.install(method=method, except_sources=tuple(ip_network(CLIENT[version]) for version in (4, 6)))
    for session in (*others, *excepted):
        with closing(session):
            assert session.passes()
    assert counted(host, method=method) == []


@pytest.mark.parametrize(("method", "mode"), BOTH)
def test_what_began_while_fail_open_let_it_pass(host: RulesHost, method: Method, mode: Mode) -> None:
    changes = {"method": method, "mode": mode, "fail": Fail.OPEN}
    host.install(**changes)
    server = host.server()
    assert within(SOON, lambda: all(greeting(host.net.client, SERVER[v], wait=1).startswith("server") for v in (4, 6)))
    server.close()
    sessions = [Session(host, version) for version in (4, 6)]
    assert all(session.passes() for session in sessions)
    heartbeat_sender = HeartbeatSender(host)
    try:
        assert all(within(SOON, session.no_longer_passes) for session in sessions)
    finally:
        heartbeat_sender.stop()
        for session in sessions:
            session.close()
    # In tproxy mode, those of the seconds without a listener, too.
    assert {session.name for session in sessions} <= set(counted(host, **changes))


@pytest.mark.parametrize("method", METHODS)
def test_the_hosts_own(host: RulesHost, method: Method) -> None:
    """--local: connections of the gateway itself that began before the rules."""
    listening = open_socket(host.net.server, socket.AF_INET)
    with closing(listening):
        listening.bind((SERVER[4], 25))
        listening.listen()
        client = open_socket(host.net.gateway, socket.AF_INET)
        with closing(client):
            client.settimeout(WAIT)
            client.connect((SERVER[4], 25))
            server, _ = listening.accept()
            with closing(server):
                client.sendall(b"NOOP\r\n")
                assert server.recv(64) == b"NOOP\r\n"
                host.install(method=method, local=True, daemon_uid=65534)
                assert speaks_to_a_reset(client)
