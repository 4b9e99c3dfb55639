"""A TLS leg without I/O: cuts, faults, ends, bounded work."""

from __future__ import annotations

import gc
import ssl
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxsmtp_tp.net.tls_contexts import load, server_context
from proxsmtp_tp.net.tls_stream import (
    HANDSHAKE_OCTETS_MAX,
    HANDSHAKE_RECORDS_MAX,
    OCTETS_PER_CALL,
    RECORDS_PER_CALL,
    SILENT_MAX,
    End,
    TlsStream,
    TlsStreamError,
)
from proxsmtp_tp.tls.alerts import Alert, alert_record
from proxsmtp_tp.tls.facts import Side, TlsFacts, Verified
from tests.unit.net.tls_legs import TLS_1_2, TLS_1_3, client_leg, connected, receive_all, self_signed, server_leg, shake

if TYPE_CHECKING:
    from collections.abc import Iterator

BOTH = pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
VERSION = st.sampled_from([TLS_1_2, TLS_1_3])


def records(data: bytes) -> list[bytes]:
    """TLS records, one by one."""
    found = []
    while data:
        length = 5 + int.from_bytes(data[3:5])
        found.append(data[:length])
        data = data[length:]
    return found


# What arrives.


@BOTH
def test_octets_of_both_directions_arrive(version: int) -> None:
    client, server = connected(version)
    server.write(b"EHLO a\r\n")
    assert client.receive(server.to_send()) == b"EHLO a\r\n"
    client.write(b"250 b\r\n")
    assert server.receive(client.to_send()) == b"250 b\r\n"
    assert client.to_send() == server.to_send() == b""


@BOTH
def test_large_messages_are_whole(version: int) -> None:
    client, server = connected(version)
    message = bytes(range(256)) * 4096
    server.write(message)
    assert receive_all(client, server.to_send()) == message


def test_nothing_is_sent_for_nothing() -> None:
    client, _ = connected()
    client.write(b"")
    assert client.to_send() == b""


class Cuts:
    """A transport that gives the bytes of a peer in pieces of the lengths drawn."""

    def __init__(self, lengths: list[int]) -> None:
        self._lengths = lengths
        self._next = 0

    def __call__(self, data: bytes) -> Iterator[bytes]:
        while data:
            length = self._lengths[self._next % len(self._lengths)]
            self._next += 1
            yield data[:length]
            data = data[length:]


@settings(max_examples=60, deadline=None)
@given(version=VERSION, lengths=st.lists(st.integers(1, 3000), min_size=1, max_size=30))
@example(version=TLS_1_2, lengths=[1])
@example(version=TLS_1_3, lengths=[1])
@example(version=TLS_1_3, lengths=[5])
def test_any_cut_gives_the_same_octets(version: int, lengths: list[int]) -> None:
    client, server = client_leg(version), server_leg(version)
    cut = Cuts(lengths)
    while client.handshaking or server.handshaking:
        for sender, receiver in ((server, client), (client, server)):
            for piece in cut(sender.to_send()):
                assert receiver.receive(piece) == b""
    sent = [b"MAIL FROM:<a@b.example>\r\n", b"x" * 20000, b"\r\n.\r\n"]
    got = b""
    for plain in sent:
        server.write(plain)
        for piece in cut(server.to_send()):
            got += receive_all(client, piece)
    server.close_notify()
    for piece in cut(server.to_send()):
        assert client.end is None
        got += receive_all(client, piece)
    assert got == b"".join(sent)
    assert client.end is End.CLEAN


@BOTH
def test_the_call_that_ends_the_handshake_gives_nothing_else_out(version: int) -> None:
    """So that the peer is verified before anything that it sent is read."""
    client, server = client_leg(version), server_leg(version)
    client.receive(server.to_send())
    server.receive(client.to_send())
    if version == TLS_1_2:
        client.receive(server.to_send())
        client.write(b"220 early\r\n")
        assert server.receive(client.to_send()) == b""
        assert not server.handshaking
        assert server.more
        assert server.receive(b"") == b"220 early\r\n"
        assert not server.more
    else:
        server.write(b"EHLO early\r\n")
        assert client.receive(server.to_send()) == b""
        assert not client.handshaking
        assert client.more
        assert client.receive(b"") == b"EHLO early\r\n"
        assert not client.more


# How it ends.


@BOTH
def test_close_notify_is_a_clean_end_and_one_can_still_answer(version: int) -> None:
    client, server = connected(version)
    server.write(b"QUIT\r\n")
    server.close_notify()
    assert client.receive(server.to_send()) == b"QUIT\r\n"
    assert client.end is End.CLEAN
    client.write(b"221 bye\r\n")
    assert server.receive(client.to_send()) == b"221 bye\r\n"


@settings(max_examples=60, deadline=None)
@given(version=VERSION, at=st.integers(0, 10_000))
def test_a_fin_at_any_octet_before_close_notify_is_a_truncation(version: int, at: int) -> None:
    client, server = connected(version)
    server.write(b"DATA\r\n")
    server.write(b"x" * 9000)
    server.close_notify()
    data = server.to_send()
    at = min(at, len(data) - 1)
    receive_all(client, data[:at])
    client.eof()
    assert client.end is End.TRUNCATED
    assert not client.more


@BOTH
def test_a_fin_is_a_truncation_where_openssl_would_call_it_clean(version: int) -> None:
    """Python before 3.11.3 sets this option in every context: a FIN then looks like close_notify."""
    lenient = server_context()
    lenient.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    lenient.maximum_version = ssl.TLSVersion.TLSv1_2 if version == TLS_1_2 else ssl.TLSVersion.TLSv1_3
    client, server = client_leg(version), server_leg(context=lenient)
    shake(server, client)
    client.write(b"250 half a reply")
    assert server.receive(client.to_send()) == b"250 half a reply"
    server.eof()
    assert server.receive(b"") == b""
    assert server.end is End.TRUNCATED


def test_a_fin_within_the_handshake_is_a_truncation() -> None:
    client, server = client_leg(), server_leg()
    client.receive(server.to_send()[:100])
    client.eof()
    assert client.end is End.TRUNCATED
    assert client.handshaking


@BOTH
def test_the_end_is_reported_after_waiting_data(version: int) -> None:
    client, server = connected(version)
    for _ in range(RECORDS_PER_CALL + 1):
        server.write(b"a")
    client.receive(server.to_send())
    client.eof()
    assert client.more
    assert client.end is None
    assert client.receive(b"") == b"a"
    assert client.end is End.TRUNCATED


@BOTH
def test_what_comes_after_close_notify_is_ignored(version: int) -> None:
    client, server = connected(version)
    server.close_notify()
    assert client.receive(server.to_send() + b"EHLO in clear\r\n") == b""
    assert client.receive(b"more in clear\r\n") == b""
    assert client.end is End.CLEAN
    assert not client.more


@BOTH
def test_after_our_close_notify_the_peer_is_read_on(version: int) -> None:
    client, server = connected(version)
    client.close_notify()
    client.close_notify()
    client.write(b"dropped")
    assert server.receive(client.to_send()) == b""
    assert server.end is End.CLEAN
    server.write(b"QUIT\r\n")
    assert client.receive(server.to_send()) == b"QUIT\r\n"
    server.close_notify()
    assert client.receive(server.to_send()) == b""
    assert client.end is End.CLEAN


def test_a_handshake_that_is_given_up_sends_nothing_more() -> None:
    server = server_leg()
    server.to_send()
    server.close_notify()
    assert server.to_send() == b""


# Faults.


@settings(max_examples=200, deadline=None)
@given(version=VERSION, side=st.sampled_from(Side), data=st.lists(st.binary(max_size=300), max_size=5))
@example(version=TLS_1_3, side=Side.CLIENT, data=[b"EHLO not tls\r\n"])
@example(version=TLS_1_3, side=Side.CLIENT, data=[b"GET / HTTP/1.1\r\n\r\n"])
@example(version=TLS_1_3, side=Side.SERVER, data=[b"454 no tls\r\n"])
@example(version=TLS_1_3, side=Side.SERVER, data=[alert_record(Alert.HANDSHAKE_FAILURE)])
@example(version=TLS_1_3, side=Side.CLIENT, data=[b"\x16\x03\x01\xff\xff"])
@example(version=TLS_1_3, side=Side.CLIENT, data=[b"\x18\x03\x03\x00\x00"])
@example(version=TLS_1_3, side=Side.CLIENT, data=[b"\x80\x2e\x01\x03\x01"])
def test_any_bytes_in_the_handshake_are_waited_for_or_refused(version: int, side: Side, data: list[bytes]) -> None:
    stream = client_leg(version) if side is Side.CLIENT else server_leg(version)
    try:
        for piece in data:
            assert stream.receive(piece) == b""
    except TlsStreamError as error:
        assert str(error) == error.reason  # noqa: PT017
        assert error.reason  # noqa: PT017
        assert error.side is side  # noqa: PT017
        with pytest.raises(TlsStreamError):
            stream.receive(b"")
    assert stream.handshaking


@settings(max_examples=100, deadline=None)
@given(version=VERSION, at=st.integers(0, 3000), bit=st.integers(0, 7))
def test_no_octet_can_be_changed(version: int, at: int, bit: int) -> None:
    """A change is an error, or the peer's text does not come: never another text."""
    client, server = connected(version)
    message = b"250 " + b"y" * 2500 + b"\r\n"
    client.write(message)
    data = bytearray(client.to_send())
    data[at % len(data)] ^= 1 << bit
    got = b""
    try:
        got = receive_all(server, bytes(data))
    except TlsStreamError as error:
        assert error.side is Side.SERVER  # noqa: PT017
    assert got in {b"", message} if version == TLS_1_2 else got == b""


@BOTH
def test_what_came_before_a_fault_is_given_out_first(version: int) -> None:
    """Otherwise the reply to a message would be lost, and the message would be sent twice."""
    client, server = connected(version)
    client.write(b"250 queued\r\n")
    data = client.to_send() + b"\x17\x03\x03\x00\x20" + bytes(32)
    assert server.receive(data) == b"250 queued\r\n"
    assert server.more
    with pytest.raises(TlsStreamError):
        server.receive(b"")
    assert not server.more
    assert server.to_send()[:1] in {b"\x15", b"\x17"}  # our alert
    server.write(b"dropped")
    server.close_notify()
    assert server.to_send() == b""


@BOTH
def test_clear_text_after_the_handshake_is_an_error(version: int) -> None:
    client, _ = connected(version)
    with pytest.raises(TlsStreamError, match=r"^wrong version number$"):
        client.receive(b"MAIL FROM:<>\r\n")


def test_a_handshake_has_limited_records_and_octets() -> None:
    """A ClientHello in records of one octet, and one that never ends."""
    piece = b"\x16\x03\x01\x00\x01"
    stream = client_leg()
    with pytest.raises(TlsStreamError, match="the TLS handshake of the client is too long"):
        receive_all(
            stream, piece + b"\x01" + piece + b"\x00" + piece + b"\xff" + (piece + b"\xff") * HANDSHAKE_RECORDS_MAX
        )
    hello = server_leg().to_send()
    handshake = hello[5:]
    small = b"".join(piece + handshake[at : at + 1] for at in range(len(handshake)))
    stream = client_leg()
    assert receive_all(stream, small) == b""
    assert stream.to_send()[:1] == b"\x16"
    assert HANDSHAKE_OCTETS_MAX > 64 * 1024 + 100 * 1024


# Work in one call.


@BOTH
def test_one_call_handles_a_limited_number_of_records(version: int) -> None:
    client, server = connected(version)
    for _ in range(10 * RECORDS_PER_CALL):
        server.write(b"n")
    data = server.to_send()
    for _ in range(10):
        assert client.receive(data) == b"n" * RECORDS_PER_CALL
        data = b""
    assert not client.more


@BOTH
def test_one_call_handles_a_limited_number_of_octets(version: int) -> None:
    client, server = connected(version)
    server.write(b"x" * 1_000_000)
    first = client.receive(server.to_send())
    assert OCTETS_PER_CALL / 2 < len(first) <= OCTETS_PER_CALL + 2**14
    assert client.more
    assert len(receive_all(client, b"")) == 1_000_000 - len(first)


def test_our_records_are_small_enough_for_the_memory_of_an_idle_leg() -> None:
    client, _ = connected()
    client.write(b"x" * 50_000)
    assert max(len(record) for record in records(client.to_send())) < 8192 + 64


def ticket_server(tickets: int) -> TlsStream:
    """A TLS 1.3 server that sends so many tickets behind its handshake: records without application data."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = tickets
    load(context, self_signed())
    return TlsStream(context, Side.CLIENT)


def test_the_tickets_of_a_server_are_no_data() -> None:
    server, peer = server_leg(), ticket_server(8)
    shake(server, peer)
    peer.write(b"250 a\r\n")
    assert receive_all(server, peer.to_send()) == b"250 a\r\n"


def test_records_without_data_are_limited() -> None:
    server, peer = server_leg(), ticket_server(SILENT_MAX + 1)
    peer.receive(server.to_send())
    server.receive(peer.to_send())
    peer.receive(server.to_send())
    tickets = peer.to_send()
    assert len(records(tickets)) == SILENT_MAX + 1
    with pytest.raises(TlsStreamError, match="the server sends too many TLS records without data"):
        receive_all(server, tickets)


# What is known of a leg.


def test_facts_and_chain() -> None:
    client, server = connected(TLS_1_3)
    assert client.facts() == TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", "mx.example")
    assert server.facts(Verified.DANE) == TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", "mx.example", Verified.DANE)
    assert server.chain() == [ssl.PEM_cert_to_DER_cert(self_signed().chain.decode())]
    _, server = connected(TLS_1_2)
    assert server.facts().version == "TLSv1.2"
    assert server.chain() == [ssl.PEM_cert_to_DER_cert(self_signed().chain.decode())]


@pytest.mark.parametrize("name", ["a..b", ".", "x" * 64 + ".example", "ü" * 64])
def test_a_name_that_cannot_be_sent(name: str) -> None:
    with pytest.raises(TlsStreamError, match="cannot be sent as a server name"):
        TlsStream(server_context(), Side.SERVER, name)


# What is left of a leg that was given up.

STEPS = range(6)


def given_up(version: int, step: int) -> None:
    """A pair of legs that ends at this step of the handshake."""
    client, server = client_leg(version), server_leg(version)
    hello = server.to_send()
    if step == 0:
        return
    client.receive(hello[: len(hello) // 2 if step == 1 else len(hello)])
    if step == 2:
        with pytest.raises(TlsStreamError):
            client.receive(alert_record(Alert.UNKNOWN_CA) * 2)
        return
    if step >= 3:
        server.receive(client.to_send())
    if step >= 4:
        shake(server, client)
    if step >= 5:
        server.write(b"EHLO a\r\n")
        client.receive(server.to_send())
        with pytest.raises(TlsStreamError):
            client.receive(b"\x17\x03\x03\x00\x20" + bytes(32))


@BOTH
def test_nothing_is_left_of_200_rounds_at_each_step(version: int) -> None:
    """Without a garbage collection: a stream is in no reference cycle."""

    def objects() -> int:
        return sum(
            isinstance(o, (TlsStream, ssl.SSLObject, ssl.SSLContext)) or type(o).__module__ == "_ssl"
            for o in gc.get_objects()
        )

    for step in STEPS:
        given_up(version, step)
    gc.collect()
    before = objects()
    gc.disable()
    try:
        for step in STEPS:
            for _ in range(200):
                given_up(version, step)
        assert objects() == before
    finally:
        gc.enable()
