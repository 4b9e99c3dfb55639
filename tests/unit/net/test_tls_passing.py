"""A passed connection, over transports that the test plays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from proxsmtp_tp.config.settings import Settings
from proxsmtp_tp.net.deadlines import Deadlines, limits_of
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
    """The connection, with its loop."""

    def __init__(self) -> None:
        self.closing = False
        self.now = 0.0
        settings = Settings()
        self.times = Deadlines(settings, limits_of(settings), 0.0)
        self.loop = self

    def time(self) -> float:
        """The clock."""
        return self.now

    def server_speaks(self) -> None:
        """It is not this proxy."""

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
    idle = owner.times.step
    assert (server.sent, owner.times.wait) == (hello, Wait.PASSING)
    owner.closing, owner.now = True, 1.0
    passing.client_data(b"\x17\x03\x03\0\x01x")
    assert (server.sent, owner.times.step) == (hello, idle)
