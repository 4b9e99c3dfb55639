"""Passed streams: TLS records only, in both directions, for the life of the connection."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.tls.facts import Side
from proxsmtp_tp.tls.records import RecordChecker, RecordError
from tests.unit.smtp.chunking import PROPERTY, Chunks, bytewise, chunked
from tests.unit.tls import hellos

SERVER_HELLO = hellos.records(hellos.message(b"\x03\x03" + bytes(38), kind=2), version=0x0303)
DATA = hellos.records(b"\xa5" * 300, kind=23, version=0x0303)
CCS = hellos.records(b"\x01", kind=20, version=0x0303)
ALERT = hellos.records(b"\x02\x28", kind=21, version=0x0303)
STREAM = hellos.HYBRID + CCS + DATA + DATA + ALERT


def checked(side: Side, *chunks: bytes) -> RecordChecker:
    checker = RecordChecker(side)
    for chunk in chunks:
        checker.feed(chunk)
    return checker


def reason(side: Side, *chunks: bytes) -> str:
    with pytest.raises(RecordError) as caught:
        checked(side, *chunks)
    return caught.value.reason


def test_a_connection_from_both_sides() -> None:
    client = checked(Side.CLIENT, STREAM)
    server = checked(Side.SERVER, SERVER_HELLO + CCS + DATA)
    assert (client.records, client.octets) == (5, len(STREAM))
    assert server.records == 3
    assert checked(Side.CLIENT, STREAM[:-1]).records == 4
    assert checked(Side.CLIENT, STREAM, DATA[:3]).records == 5


@given(chunked(st.just(STREAM)))
@PROPERTY
def test_any_cut_gives_the_same_counts(cut: tuple[bytes, Chunks]) -> None:
    data, chunks = cut
    checker = checked(Side.CLIENT, *chunks)
    assert (checker.records, checker.octets) == (5, len(data))


@given(st.binary(max_size=100) | st.binary(max_size=60).map(lambda data: SERVER_HELLO + data))
@PROPERTY
def test_any_octets_are_counted_or_refused_by_name(data: bytes) -> None:
    for side in Side:
        answers = []
        for chunks in ([data], bytewise(data)):
            try:
                answers.append(str(checked(side, *chunks).records))
            except RecordError as error:
                answers.append(error.reason)
        assert answers[0] == answers[1]
        assert answers[0].isprintable()


def test_a_handshake_of_openssl_passes() -> None:
    """With real records of both directions, TLS 1.2 and 1.3; the server refuses by an alert, which is its right."""
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = context.maximum_version = version
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(to_client, to_server, server_hostname="mx.example")
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        hello = to_server.read()
        checked(Side.CLIENT, hello)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # without a certificate: no cipher is possible
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        incoming.write(hello)
        with pytest.raises(ssl.SSLError):
            server.wrap_bio(incoming, outgoing, server_side=True).do_handshake()
        assert checked(Side.SERVER, outgoing.read()).records == 1


@pytest.mark.parametrize(
    ("side", "data", "expected"),
    [
        (Side.CLIENT, b"MAIL FROM:<>\r\n", "there is no TLS record of type 77"),
        (Side.SERVER, b"250 ok\r\n", "there is no TLS record of type 50"),
        (Side.CLIENT, DATA, "the first record of the client is of type 23"),
        (Side.CLIENT, CCS, "the first record of the client is of type 20"),
        (Side.CLIENT, ALERT, "the first record of the client is of type 21"),
        (Side.SERVER, DATA, "the first record of the server is of type 23"),
        (Side.CLIENT, SERVER_HELLO, "the first message of the client is of type 2"),
        (Side.SERVER, hellos.HYBRID, "the first message of the server is of type 1"),
        (Side.CLIENT, hellos.HYBRID + b"RCPT", "there is no TLS record of type 82"),
        (Side.CLIENT, hellos.HYBRID + b"\x18\x03\x03\x00\x01\x00", "there is no TLS record of type 24"),
        (Side.CLIENT, hellos.HYBRID + b"\x17\x02", "a record is of no version of TLS"),
        (Side.CLIENT, hellos.HYBRID + b"\x17\x03\x05", "a record is of no version of TLS"),
        (Side.CLIENT, b"\x16\xfe\xff", "a record is of no version of TLS"),
        (Side.SERVER, SERVER_HELLO + b"\x17\x03\x03\x00\x00", "a record has no octets, or more than 18432"),
        (Side.SERVER, SERVER_HELLO + b"\x17\x03\x03\x48\x01", "a record has no octets, or more than 18432"),
    ],
)
def test_what_is_no_tls(side: Side, data: bytes, expected: str) -> None:
    assert reason(side, data) == expected
    assert reason(side, *bytewise(data)) == expected


def test_the_longest_record() -> None:
    assert checked(Side.SERVER, SERVER_HELLO, b"\x17\x03\x03\x48\x00" + bytes(18432)).records == 2


def test_an_alert_may_be_the_first_of_a_server() -> None:
    assert checked(Side.SERVER, ALERT).records == 1
