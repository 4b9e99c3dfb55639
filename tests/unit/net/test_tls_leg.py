"""A side in TLS, over a transport and an engine that the test plays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from proxsmtp_tp.net.tls_leg import Leg

if TYPE_CHECKING:
    import asyncio


class Transport:
    """Refuses to send behind a FIN, as those of asyncio do."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.finished = False

    def write(self, data: bytes) -> None:
        """Keep it."""
        if self.finished:
            raise RuntimeError("Cannot call write() after write_eof()")
        self.sent.append(data)

    def write_eof(self) -> None:
        """A FIN."""
        self.finished = True

    def is_closing(self) -> bool:
        """Whether it is closed: never."""
        return False

    def pause_reading(self) -> None:
        """Nothing."""

    def resume_reading(self) -> None:
        """Nothing."""


class Engine:
    """Answers each record of the peer with one of its own, as OpenSSL answers the KeyUpdates of TLS 1.3."""

    handshaking = more = False
    end = None

    def __init__(self) -> None:
        self._answers = b""

    def receive(self, _data: bytes) -> bytes:
        """No plain text."""
        self._answers += b"answer"
        return b""

    def close_notify(self) -> None:
        """The last record of ours."""
        self._answers += b"goodbye"

    def to_send(self) -> bytes:
        """Each octet once."""
        answers, self._answers = self._answers, b""
        return answers


class Owner:
    """Nothing may fail."""

    def failed(self, error: Exception) -> None:
        """A bug."""
        pytest.fail(str(error))


def test_what_the_engine_answers_after_our_fin_is_dropped() -> None:
    """Otherwise a client that sends KeyUpdates after the end of its session causes an internal error."""
    transport = Transport()
    leg = Leg(transport, cast("Any", Engine()), cast("Any", Owner()), cast("asyncio.AbstractEventLoop", None))
    leg.received(b"KeyUpdate")
    assert transport.sent == [b"answer"]
    leg.write_eof()
    leg.received(b"KeyUpdate")
    assert transport.sent == [b"answer", b"goodbye"]
