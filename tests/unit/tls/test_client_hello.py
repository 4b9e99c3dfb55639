"""The ClientHello: any cut gives the same answer, any octets give an answer or a named refusal."""

from __future__ import annotations

import itertools
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.tls.client_hello import LIMIT, ClientHello, ClientHelloReader, NotTlsError
from tests.unit.smtp.chunking import PROPERTY, bytewise
from tests.unit.tls import captured, hellos


def read(*chunks: bytes) -> ClientHello | None:
    reader = ClientHelloReader()
    for chunk in chunks:
        if (found := reader.feed(chunk)) is not None:
            return found
    return None


def refusal(data: bytes) -> str:
    with pytest.raises(NotTlsError) as caught:
        read(data)
    return caught.value.reason


def from_openssl(name: str | None, protocols: list[str] | None = None, **options: ssl.TLSVersion) -> bytes:
    """The ClientHello of the OpenSSL that Python uses."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    for option, value in options.items():
        setattr(context, option, value)
    if protocols:
        context.set_alpn_protocols(protocols)
    out = ssl.MemoryBIO()
    side = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        side.do_handshake()
    return out.read()


def test_of_openssl() -> None:
    found = read(data := from_openssl("MX.Example.ORG", ["smtp", "x"]))
    assert found == ClientHello("mx.example.org", (b"smtp", b"x"), (0x0304, 0x0303), False, data)


def test_of_openssl_without_a_name_and_with_old_versions_only() -> None:
    data = from_openssl(None, maximum_version=ssl.TLSVersion.TLSv1_2)
    assert read(data) == ClientHello("", (), (0x0303,), False, data)


@pytest.mark.parametrize("program", captured.HELLOS)
def test_of_other_programs(program: str) -> None:
    data = captured.HELLOS[program]
    found = read(*bytewise(data))
    assert found is not None
    assert (found.server_name, found.ech, found.octets) == ("mx.example.org", False, data)
    assert found.alpn == ((b"smtp",) if program.startswith("OpenSSL") else ())
    assert found.versions[:2] == (0x0304, 0x0303)


def test_a_hybrid_key_share_over_several_segments_and_records() -> None:
    assert len(hellos.HYBRID) > 1280
    expected = ClientHello("mx.example.org", (), (0x0304, 0x0303), False, hellos.HYBRID)
    assert read(hellos.HYBRID[:1280], hellos.HYBRID[1280:]) == expected
    message = hellos.HYBRID[5:]
    for size in (1, 3, 4, 5, 100, 1000):
        found = read(data := hellos.records(message, size))
        assert found is not None
        assert (found.server_name, found.octets) == ("mx.example.org", data)


@given(st.lists(st.integers(0, len(hellos.HYBRID)), max_size=20), st.sampled_from([1, 7, 512, 1 << 14]))
@PROPERTY
def test_any_cut_gives_the_same_answer(cuts: list[int], size: int) -> None:
    data = hellos.records(hellos.HYBRID[5:], size)
    chunks = [data[a:b] for a, b in itertools.pairwise([0, *sorted(cuts), len(data)])]
    assert read(*chunks) == read(data)


def test_octet_by_octet() -> None:
    reader = ClientHelloReader()
    answers = [reader.feed(bytes([octet])) for octet in hellos.HYBRID]
    assert answers[:-1] == [None] * (len(hellos.HYBRID) - 1)
    assert answers[-1] == read(hellos.HYBRID)


def answer(*chunks: bytes) -> str:
    """The hello, or why it is none."""
    try:
        return str(read(*chunks))
    except NotTlsError as error:
        return f"refused: {error.reason}"


@given(st.binary(max_size=600) | st.binary(max_size=600).map(lambda data: hellos.records(hellos.message(data))))
@PROPERTY
def test_any_octets_give_an_answer_or_a_named_refusal(data: bytes) -> None:
    found = answer(data)
    assert found.isprintable()
    assert found != "refused: "
    if not found.startswith("ClientHello("):
        assert answer(*bytewise(data)) == found


@given(st.lists(st.tuples(st.sampled_from([0, 16, 43, 0xFE0D, 51]), st.binary(max_size=40)), max_size=5))
@PROPERTY
def test_any_extensions_give_an_answer_or_a_named_refusal(extensions: list[tuple[int, bytes]]) -> None:
    data = hellos.hello(*(hellos.extension(number, content) for number, content in extensions))
    assert answer(data).startswith(("ClientHello(", "refused: "))
    assert answer(*bytewise(data)) == answer(data)


def test_octets_after_the_hello_belong_to_it() -> None:
    later = b"\x14\x03\x03\x00\x01\x01"
    found = read(hellos.HYBRID + later)
    assert found is not None
    assert found.octets == hellos.HYBRID + later


def test_with_ech_the_name_is_not_reliable() -> None:
    found = read(hellos.hello(hellos.server_name(b"cover.example"), hellos.extension(0xFE0D, b"\0")))
    assert found is not None
    assert (found.ech, found.server_name, found.reliable_name) == (True, "cover.example", "")
    plain = read(hellos.HYBRID)
    assert plain is not None
    assert plain.reliable_name == "mx.example.org"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"MX.example.", "mx.example"),
        (b"_x-y.example", "_x-y.example"),
        (b"192.0.2.1", ""),
        (b"192.0.2.1.", ""),
        (b"2001:db8::1", ""),
    ],
)
def test_names(name: bytes, expected: str) -> None:
    found = read(hellos.hello(hellos.server_name(name)))
    assert found is not None
    assert found.server_name == expected


@pytest.mark.parametrize(
    "name", [b"", b".", b"a..b", b"a b", b"a\0.example", b"a\n", b"-a", b"\xc3\xa4.example", b"a" * 256]
)
def test_what_is_no_name(name: bytes) -> None:
    assert refusal(hellos.hello(hellos.server_name(name))) == "the server name is no host name"


def test_without_extensions() -> None:
    data = hellos.records(hellos.message(hellos.body(None, version=0x0301)))
    assert read(data) == ClientHello("", (), (0x0301,), False, data)


LONG = hellos.records(hellos.message(hellos.body([hellos.extension(21, bytes(60000))])))
"""Padded (RFC 7685) almost to the limit."""


def test_the_limit() -> None:
    assert len(LONG) < LIMIT
    assert read(LONG) is not None
    in_small_records = hellos.records(hellos.message(hellos.body([hellos.extension(21, bytes(20000))])), 1)
    for chunks in ([in_small_records], [in_small_records[at : at + 999] for at in range(0, LIMIT + 999, 999)]):
        with pytest.raises(NotTlsError, match="65536"):
            read(*chunks)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"EHLO client.example\r\n", "the first octet is not that of a TLS handshake record"),
        (b"\x80\x2e\x01\x03\x01", "the first octet is not that of a TLS handshake record"),  # SSL 2
        (b"\x15\x03\x01\x00\x02\x02\x28", "the first octet is not that of a TLS handshake record"),
        (b"\x16\x02", "the record is of no version of TLS"),
        (b"\x16\xfe\xff", "the record is of no version of TLS"),  # DTLS
        (b"\x16\x03\x01\x00\x00", "the record has no octets, or more than 16384"),
        (b"\x16\x03\x01\x40\x01", "the record has no octets, or more than 16384"),
        (b"\x16\x03\x01\x00\x01\x02", "the first handshake message is no ClientHello"),
        (b"\x16\x03\x01\x00\x04\x01\xff\xff\xff", "the ClientHello has more than 65536 octets"),
        (hellos.records(hellos.HYBRID[5:] + b"\x0b"), "octets behind the ClientHello in its record"),
        (hellos.records(hellos.message(b"\x03\x03")), "a part of the ClientHello is longer than the whole"),
        (
            hellos.records(hellos.message(hellos.body([b"\0\0\0\x09"]))),
            "a part of the ClientHello is longer than the whole",
        ),
        (hellos.records(hellos.message(hellos.body([]) + b"\0")), "octets behind the extensions of the ClientHello"),
        (
            hellos.records(hellos.message(hellos.body([], session_id=bytes(33)))),
            "the session id has more than 32 octets",
        ),
        (
            hellos.records(hellos.message(hellos.body([], suites=b""))),
            "the list of cipher suites is empty, or not of pairs of octets",
        ),
        (
            hellos.records(hellos.message(hellos.body([], suites=b"\x13\x01\x13"))),
            "the list of cipher suites is empty, or not of pairs of octets",
        ),
        (hellos.records(hellos.message(hellos.body([], compression=b""))), "the list of compression methods is empty"),
        (hellos.hello(hellos.versions(0x0304), hellos.versions(0x0304)), "an extension is there twice"),
        (hellos.hello(hellos.server_name(b"a.example", kind=1)), "the server name is not one host name"),
        (
            hellos.hello(hellos.extension(0, hellos.vector(2, 2 * (b"\0" + hellos.vector(2, b"a.example"))))),
            "the server name is not one host name",
        ),
        (hellos.hello(hellos.alpn()), "the list of protocols (ALPN) is empty, or has an empty name"),
        (hellos.hello(hellos.alpn(b"smtp", b"")), "the list of protocols (ALPN) is empty, or has an empty name"),
        (hellos.hello(hellos.versions()), "the list of versions is empty, or not of pairs of octets"),
    ],
)
def test_refusals(data: bytes, reason: str) -> None:
    assert refusal(data) == reason
