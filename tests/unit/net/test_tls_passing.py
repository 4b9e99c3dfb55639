"""A passed connection, over transports that the test plays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from proxsmtp_tp.net.tls_passing import Passing
from proxsmtp_tp.session.state import Wait
from tests.unit.tls import hellos

if TYPE_CHECKING:
    from proxsmtp_tp.session import events


class Transport:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent = b""

    def write(self, data: bytes) -> None:
        """Keep it."""
        self.sent += data


class Owner:
    """The connection, with its loop and its deadlines."""

    def __init__(self) -> None:
        self.closing = False
        self.armed: list[Wait] = []
        self.spoken = 0
        self.loop = self.times = self

    def time(self) -> float:
        """The clock."""
        return 0.0

    def arm(self, wait: Wait, _now: float) -> None:
        """A deadline."""
        self.armed.append(wait)

    def server_speaks(self) -> None:
        """It is not this proxy."""
        self.spoken += 1

    def feed(self, event: events.Event) -> None:
        """Nothing may end it."""
        pytest.fail(str(event))

    def failed(self, error: BaseException) -> None:
        """A bug."""
        pytest.fail(str(error))

    def client_full(self, _full: bool) -> None:
        """Nothing."""

    server_full = client_full


def test_the_end_of_a_connection_is_not_put_off_by_what_still_comes() -> None:
    """The session has ended by a deadline: what the client still sends must not begin the idle time again."""
    owner, client, server = Owner(), Transport(), Transport()
    passing = Passing(cast("Any", owner), client, server)
    hello = hellos.hello(hellos.server_name(b"mx.example"))
    passing.client_data(hello)
    assert (server.sent, owner.armed) == (hello, [Wait.PASSING])
    owner.closing = True
    passing.client_data(b"\x17\x03\x03\0\x01x")
    assert (server.sent, owner.armed) == (hello, [Wait.PASSING])
