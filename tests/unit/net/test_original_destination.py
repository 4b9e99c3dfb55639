"""The bytes of the kernel's answers, and which connections have no destination. With real rules: tests/gateway."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.net.original_destination import (
    Endpoint,
    NoDestinationError,
    decode_sockaddr_in,
    decode_sockaddr_in6,
    endpoint,
    is_local,
    original_destination,
)

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


def test_what_is_local() -> None:
    assert is_local(Endpoint("127.0.0.1", 25))
    assert is_local(Endpoint("127.9.9.9", 25))
    assert not is_local(Endpoint("192.0.2.77", 25))
    assert not is_local(Endpoint("0.0.0.0", 25))


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


def test_under_tproxy_the_socket_says_it(accepted: socket.socket) -> None:
    """A local port that is none of our listeners': only TPROXY brings such a connection to us."""
    own = endpoint(accepted.getsockname())
    assert original_destination(accepted, frozenset({10025})) == own
