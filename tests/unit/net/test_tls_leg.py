"""A side in TLS, over a transport that the test plays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from proxsmtp_tp.net.tls_sides import ClientLeg
from tests.unit.net.tls_legs import connected, receive_all

if TYPE_CHECKING:
    import asyncio

    from proxsmtp_tp.net.tls_stream import TlsStream

FORGED = b"\x17\x03\x03\x00\x20" + b"\0" * 32
"""A record that nobody of the two has encrypted: the engine answers it with an alert."""


class Transport:
    """Refuses to send after a FIN, as those of asyncio do."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.orders: list[str] = []

    def write(self, data: bytes) -> None:
        """Keep it."""
        if "write_eof" in self.orders:
            raise RuntimeError("Cannot call write() after write_eof()")
        self.sent.append(data)

    def is_closing(self) -> bool:
        """Whether it is closed: never."""
        return False

    def __getattr__(self, name: str) -> Any:
        """`write_eof`, `pause_reading`, `resume_reading`."""
        return lambda: self.orders.append(name)


class Owner:
    """The connection."""

    loop = cast("asyncio.AbstractEventLoop", None)
    closing = False

    def __init__(self) -> None:
        self.heard: list[object] = []

    def client_data(self, data: bytes) -> None:
        """What the client said."""
        self.heard.append(data)
        if data == b"a bug":
            raise ZeroDivisionError(data)

    def tls_broken(self, _side: str, reason: str) -> None:
        """TLS has failed."""
        self.heard.append(reason)

    def feed(self, _event: object) -> None:
        """The session's."""

    def failed(self, error: Exception) -> None:
        """A bug."""
        self.heard.append(error)


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
def transport() -> Transport:
    return Transport()


@pytest.fixture
def peer_and_leg(owner: Owner, transport: Transport) -> tuple[TlsStream, ClientLeg]:
    """A client after its handshake, and our leg to it."""
    client, server = connected()
    return server, ClientLeg(transport, client, cast("Any", owner), lambda: None)


def record(peer: TlsStream, text: bytes) -> bytes:
    """A text as a peer sends it."""
    peer.write(text)
    return peer.to_send()


def test_what_the_engine_answers_after_our_fin_is_dropped(
    peer_and_leg: tuple[TlsStream, ClientLeg], transport: Transport, owner: Owner
) -> None:
    """Otherwise a client that sends KeyUpdates after the end of its session causes an internal error."""
    _, leg = peer_and_leg
    leg.write_eof()
    (goodbye,) = transport.sent
    leg.received(FORGED)
    assert transport.sent == [goodbye]
    assert owner.heard == ["decryption failed or bad record mac"]


def test_what_the_engine_answers_before_it_is_sent(
    peer_and_leg: tuple[TlsStream, ClientLeg], transport: Transport
) -> None:
    peer_and_leg[1].received(FORGED)
    assert len(transport.sent) == 1


def test_reading_is_started_and_stopped_only_when_that_changes(
    peer_and_leg: tuple[TlsStream, ClientLeg], transport: Transport, owner: Owner
) -> None:
    peer, leg = peer_and_leg
    leg.received(record(peer, b"a"))
    leg.received(record(peer, b"b"))
    assert transport.orders == ["resume_reading"]
    leg.pause_reading()
    leg.pause_reading()
    leg.received(record(peer, b"c"))
    assert transport.orders == ["resume_reading", "pause_reading"]
    assert owner.heard == [b"a", b"b"]


def test_a_leg_that_is_paused_first_pauses_its_transport(
    peer_and_leg: tuple[TlsStream, ClientLeg], transport: Transport
) -> None:
    peer_and_leg[1].pause_reading()
    assert transport.orders == ["pause_reading"]


def test_a_bug_while_a_record_is_handled_ends_the_connection(
    peer_and_leg: tuple[TlsStream, ClientLeg], owner: Owner
) -> None:
    peer, leg = peer_and_leg
    leg.received(record(peer, b"a bug"))
    assert isinstance(owner.heard[1], ZeroDivisionError)


def test_records_in_any_cut(peer_and_leg: tuple[TlsStream, ClientLeg], owner: Owner) -> None:
    """One record, a part of one, and more than one are read in different ways."""
    peer, leg = peer_and_leg
    whole = record(peer, b"one") + record(peer, b"two")
    third = record(peer, b"three")
    leg.received(whole + third[:7])
    leg.received(third[7:])
    leg.received(record(peer, b"four"))
    assert b"".join(cast("list[bytes]", owner.heard)) == b"onetwothreefour"
    leg.write(b"heard")
    assert receive_all(peer, cast("Transport", leg.transport).sent[-1]) == b"heard"
