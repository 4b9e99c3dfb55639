"""The bytes of the kernel's answers, and which connections have no destination. With real rules: tests/gateway."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any
from unittest.mock import create_autospec

import pytest

from proxsmtp_tp.net.original_destination import (
    Endpoint,
    NoDestinationError,
    RefusedDestinationError,
    decode_sockaddr_in,
    decode_sockaddr_in6,
    dialled_port,
    endpoint,
    original_destination,
    own_name,
)
from proxsmtp_tp.smtp import answers

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_sockaddr_in() -> None:
    packed = bytes.fromhex("02000019c63364190000000000000000")
    assert decode_sockaddr_in(packed) == Endpoint("198.51.100.25", 25)


def test_sockaddr_in6() -> None:
    packed = bytes.fromhex("0a00024b0000000020010db800020000000000000000002500000003")
    assert decode_sockaddr_in6(packed) == Endpoint("2001:db8:2::25", 587)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (("192.0.2.1", 25), "192.0.2.1:25"),
        (("::ffff:192.0.2.1", 25, 0, 0), "192.0.2.1:25"),
        (("2001:db8::1", 25, 0, 0), "[2001:db8::1]:25"),
        (("fe80::1%eth0", 25, 0, 3), "[fe80::1]:25"),
    ],
)
def test_names_of_sockets(name: tuple[str | int, ...], expected: str) -> None:
    assert str(endpoint(name)) == expected


@pytest.fixture(params=["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def accepted(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """A connection that was made to our listener directly; the last one is a v4 client on a dual-stack listener."""
    address = request.param
    listener = socket.socket(socket.AF_INET if address == "127.0.0.1" else socket.AF_INET6)
    if address != "127.0.0.1":
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind(("::" if address.startswith("::ffff") else address, 0))
    listener.listen()
    client = socket.create_connection((address.removeprefix("::ffff:"), listener.getsockname()[1]))
    sock, _ = listener.accept()
    with listener, client, sock:
        yield sock


def test_a_direct_connection_has_none(accepted: socket.socket) -> None:
    port = accepted.getsockname()[1]
    with pytest.raises(NoDestinationError, match="has no original destination"):
        original_destination(accepted, frozenset({port}))


def test_the_port_that_was_dialled_is_known_without_a_destination(accepted: socket.socket) -> None:
    assert dialled_port(accepted) == accepted.getsockname()[1]


def test_the_port_that_was_dialled_is_that_before_the_redirect() -> None:
    sock: Any = create_autospec(socket.socket, instance=True)
    sock.getsockname.return_value = ("192.0.2.1", 10025)
    sock.getsockopt.return_value = bytes.fromhex("020001d1c63364190000000000000000")
    assert dialled_port(sock) == 465


def test_a_connection_to_this_host_is_refused(accepted: socket.socket) -> None:
    """A local port that is none of our listeners': only TPROXY brings such a connection to us."""
    with pytest.raises(RefusedDestinationError, match=r"is refused: it is (a|the) loopback address") as caught:
        original_destination(accepted, frozenset({10025}))
    assert caught.value.reply is answers.DESTINATION_REFUSED


def names(own: str, peer: str, *, only_v6: bool) -> socket.socket:
    """An accepted connection on an IPv6 socket with these names, to port 25."""
    sock = create_autospec(socket.socket, instance=True)
    sock.getsockname.return_value = (own, 25, 0, 0)
    sock.getpeername.return_value = (peer, 40000, 0, 0)
    sock.getsockopt.return_value = int(only_v6)
    made: socket.socket = sock
    return made


def test_under_tproxy_it_is_the_address_of_the_socket() -> None:
    sock = names("2001:db8:2::25", "2001:db8::1", only_v6=True)
    assert original_destination(sock, frozenset({10025})) == Endpoint("2001:db8:2::25", 25)


def test_a_client_of_a_dual_stack_listener() -> None:
    sock = names("::ffff:198.51.100.25", "::ffff:192.0.2.10", only_v6=False)
    assert own_name(sock) == original_destination(sock, frozenset({10025})) == Endpoint("198.51.100.25", 25)


@pytest.mark.parametrize(("peer", "only_v6"), [("2001:db8::1", False), ("::ffff:192.0.2.10", True)])
def test_a_mapped_address_in_an_ipv6_packet(peer: str, only_v6: bool) -> None:
    """To connect(2) it is 198.51.100.25, past every rule for that address."""
    sock = names("::ffff:198.51.100.25", peer, only_v6=only_v6)
    assert own_name(sock) == Endpoint("::ffff:198.51.100.25", 25)
    with pytest.raises(RefusedDestinationError, match="it is an IPv4-mapped address in an IPv6 packet"):
        original_destination(sock, frozenset({10025}))
