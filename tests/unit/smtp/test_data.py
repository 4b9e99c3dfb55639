"""Line ends, dots and the end of data, against a second implementation that is slow and obvious."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.smtp.data import RUN_LIMIT, DataDecoder, DataEncoder, DataRelay, Normalizer
from tests.unit.smtp.chunking import PROPERTY, Chunks, bytewise, chunked, cuts, of_pieces
from tests.unit.smtp.servers import received

HARD = of_pieces(b"\r\n.\r\n", b"\r\n", b"\r", b"\n", b".", b"\0", b"a", b"text\r\n", b".\r\n", b"\xff")
TEXT = of_pieces(b"\r\n", b"\r", b"\n", b".", b"a", b"line\r\n", b"..\r\n", b".\r\n", b"\xff \t")


def normalised(text: bytes) -> bytes:
    return re.sub(rb"\r*\n|\r", b"\r\n", text)


def decoded(wire: bytes) -> tuple[bytes, bytes] | None:
    """Text and rest; None where the end of data has not come."""
    body, end, rest = (b"\r\n" + wire).partition(b"\r\n.\r\n")
    if not end:
        return None
    return normalised((body + b"\r\n").replace(b"\r\n.", b"\r\n")[2:]), rest


def encoded(text: bytes) -> bytes:
    lines = normalised(text).split(b"\r\n")
    if not lines[-1]:
        lines.pop()
    lines = [re.sub(rb"\A\0*\.", b"..", line) for line in lines]
    return b"".join(line + b"\r\n" for line in [*lines, b"."])


def decode(chunks: Chunks) -> tuple[DataDecoder, bytes]:
    """Feed chunks as a session does: what comes behind the end of data in later chunks is not fed."""
    decoder = DataDecoder()
    text = []
    for at, chunk in enumerate(chunks):
        text.append(decoder.feed(chunk))
        if decoder.done:
            decoder.rest += b"".join(chunks[at + 1 :])
            break
    return decoder, b"".join(text)


def encode(chunks: Chunks) -> bytes:
    encoder = DataEncoder()
    return b"".join([*[encoder.feed(chunk) for chunk in chunks], encoder.finish()])


def relay(chunks: Chunks) -> bytes:
    relay = DataRelay()
    wire = []
    for chunk in chunks:
        wire.append(relay.feed(chunk))
        if relay.decoder.done:
            break
    return b"".join(wire)


@pytest.mark.parametrize(
    ("wire", "text"),
    [
        (b".\r\n", b""),
        (b"\r\n.\r\n", b"\r\n"),
        (b"a\r\n.\r\n", b"a\r\n"),
        (b"a\r\n..\r\n.\r\n", b"a\r\n.\r\n"),
        (b"..a\r\n...\r\n.\r\n", b".a\r\n..\r\n"),
        (b".a\r\n.\r\n", b"a\r\n"),
        (b"a\n.\nb\r\n.\r\n", b"a\r\n.\r\nb\r\n"),
        (b"a\r\n.\nb\r\n.\r\n", b"a\r\n\r\nb\r\n"),
        (b"a\n.\r\nb\r\n.\r\n", b"a\r\n.\r\nb\r\n"),
        (b"a\r.\rb\r\n.\r\n", b"a\r\n.\r\nb\r\n"),
        (b"a\r.\r\nb\r\n.\r\n", b"a\r\n.\r\nb\r\n"),
        (b"a\r\n.\rb\r\n.\r\n", b"a\r\n\r\nb\r\n"),
        (b"a\r\n.\r\r\nb\r\n.\r\n", b"a\r\n\r\nb\r\n"),
        (b"a\r\r\n.\r\n", b"a\r\n"),
        (b"a\r\0\n.\r\0\n\r\n.\r\n", b"a\r\n\0\r\n.\r\n\0\r\n\r\n"),
        (b"\n.\r\n\r\n.\r\n", b"\r\n.\r\n\r\n"),
    ],
)
def test_decoding(wire: bytes, text: bytes) -> None:
    for chunks in cuts(wire + b"QUIT\r\n.\r\n"):
        decoder, found = decode(chunks)
        assert found == text, chunks
        assert decoder.done
        assert decoder.rest == b"QUIT\r\n.\r\n"
        assert decoder.size == len(text)
        assert decoder.bare_newlines == (re.search(rb"\r(?!\n)|(?<!\r)\n", wire) is not None)


@pytest.mark.parametrize(
    ("text", "wire"),
    [
        (b"", b".\r\n"),
        (b"\r\n", b"\r\n.\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b".\r\n..\r\n.a", b"..\r\n...\r\n..a\r\n.\r\n"),
        (b"a\n.\nb\r.\rc\r\r\n.\r\r\n", b"a\r\n..\r\nb\r\n..\r\nc\r\n..\r\n.\r\n"),
        (b"a\r", b"a\r\n.\r\n"),
        (b"\0", b"\0\r\n.\r\n"),
        (b"\0\r\n\0", b"\0\r\n\0\r\n.\r\n"),
        (b".\0\r\n", b"..\0\r\n.\r\n"),
        (b"\0.\r\n", b"..\r\n.\r\n"),
        (b"a\0.\r\n\0\0.\0", b"a\0.\r\n..\0\r\n.\r\n"),
        (b"\0\0a.\r\n", b"\0\0a.\r\n.\r\n"),
    ],
)
def test_encoding(text: bytes, wire: bytes) -> None:
    for chunks in cuts(text):
        assert encode(chunks) == wire, chunks


@given(chunked(HARD))
@PROPERTY
def test_any_chunking_decodes_as_the_obvious_way(stream: tuple[bytes, Chunks]) -> None:
    wire, chunks = stream
    expected = decoded(wire)
    decoder, text = decode(chunks)
    assert decoder.done == (expected is not None)
    if expected:
        assert (text, decoder.rest) == expected


@given(chunked(HARD))
@PROPERTY
def test_any_chunking_encodes_as_the_obvious_way(stream: tuple[bytes, Chunks]) -> None:
    text, chunks = stream
    assert encode(chunks) == encoded(text)


@given(chunked(HARD))
@PROPERTY
def test_a_relay_is_a_decoder_and_an_encoder(stream: tuple[bytes, Chunks]) -> None:
    wire, chunks = stream
    text, _rest = decoded(wire + b"\r\n.\r\n") or (b"", b"")
    assert relay([*chunks, b"\r\n.\r\n"]) == encoded(text)


@given(chunked(st.binary(max_size=200)))
@PROPERTY
def test_any_bytes_have_a_text_and_a_wire(stream: tuple[bytes, Chunks]) -> None:
    data, chunks = stream
    assert encode(chunks) == encoded(data)
    text, _rest = decoded(data + b"\r\n.\r\n") or (None, None)
    assert decode([*chunks, b"\r\n.\r\n"])[1] == text


@given(chunked(TEXT))
@PROPERTY
def test_a_server_of_the_rfc_gets_the_text_back(stream: tuple[bytes, Chunks]) -> None:
    text, chunks = stream
    expected = normalised(text)
    if expected and not expected.endswith(b"\r\n"):
        expected += b"\r\n"
    assert received(encode(chunks)) == expected


@given(chunked(of_pieces(b"\r\n", b"..\r\n", b"..a\r\n", b"a.\r\n", b"\0 b\r\n", b"\xc3\xa9 \t\r\n")))
@PROPERTY
def test_a_clean_message_is_byte_identical_after_decoder_and_encoder(stream: tuple[bytes, Chunks]) -> None:
    wire, chunks = stream
    chunks = [*chunks, b".\r\n"]
    decoder, text = decode(chunks)
    assert not decoder.bare_newlines
    assert encode([text]) == wire + b".\r\n"
    assert relay(chunks) == wire + b".\r\n"


@given(chunked(HARD))
@PROPERTY
def test_normalizing(stream: tuple[bytes, Chunks]) -> None:
    text, chunks = stream
    normalizer = Normalizer()
    found = b"".join([*[normalizer.feed(chunk) for chunk in chunks], normalizer.finish()])
    assert found == normalised(text)
    assert normalizer.seen == (found != text)


def test_normalizing_leaves_clean_text_as_the_very_object() -> None:
    text = b"a\r\nb\r\n"
    assert Normalizer().feed(text) is text


@pytest.mark.parametrize("behind", [b"\n", b"x", b""])
@pytest.mark.parametrize("length", [RUN_LIMIT - 1, RUN_LIMIT, RUN_LIMIT + 1, 3 * RUN_LIMIT])
def test_a_run_of_cr_is_held_back_within_bounds(length: int, behind: bytes) -> None:
    run = b"\r" * length
    lines = 1 if behind == b"\n" else min(length, RUN_LIMIT)
    expected = b"a" + b"\r\n" * lines + behind.strip()
    for chunks in ([b"a" + run + behind], [b"a", *bytewise(run), behind]):
        normalizer = Normalizer()
        assert b"".join([*[normalizer.feed(chunk) for chunk in chunks], normalizer.finish()]) == expected
        assert normalizer.seen


@pytest.mark.parametrize("behind", [b"x", b".", b"\r\n", b""])
@pytest.mark.parametrize("length", [RUN_LIMIT - 1, RUN_LIMIT, RUN_LIMIT + 1, 3 * RUN_LIMIT])
def test_a_run_of_nuls_is_held_back_within_bounds(length: int, behind: bytes) -> None:
    run = b"\0" * length
    start = b"..\r\n" if behind == b"." else run[:RUN_LIMIT] + behind.strip() + b"\r\n"
    for chunks in ([b"a\r\n" + run + behind], [b"a\r\n", *bytewise(run), behind]):
        assert encode(chunks) == b"a\r\n" + start + b".\r\n"


def test_nuls_within_a_line_are_not_held_back() -> None:
    encoder = DataEncoder()
    assert encoder.feed(b"a" + b"\0" * 5000) == b"a" + b"\0" * 5000
    assert encoder.feed(b"\0.b") == b"\0.b"


@pytest.mark.parametrize(
    ("wire", "kept"),
    [
        (b"a.", b""),
        (b"a\r\n", b""),
        (b"a\n.", b""),
        (b"a\r", b"\r"),
        (b".", b"."),
        (b"a\r\n.", b"."),
        (b"a\r\n.\r", b".\r"),
    ],
)
def test_only_what_may_begin_an_end_of_data_is_kept_back(wire: bytes, kept: bytes) -> None:
    assert DataDecoder().feed(wire) == normalised(wire.removesuffix(kept))


def test_plain_text_is_reported() -> None:
    decoder = DataDecoder()
    told = []
    for wire in (b"a\r\nb", b"\r\n..c", b"d\0", b"e\nf", b"g\r\n"):
        decoder.feed(wire)
        told.append(decoder.plain)
    assert told == [True, False, False, False, True]


def test_feeding_after_the_end_of_data_is_a_bug() -> None:
    decoder = DataDecoder()
    decoder.feed(b".\r\n")
    with pytest.raises(RuntimeError):
        decoder.feed(b"")
