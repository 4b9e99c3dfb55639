"""No sequence of bytes in a message makes any server see a second end of data (and so a second message).

Every text of up to six octets over CR, LF, dot, NUL and a letter, which holds every published way to smuggle (LF . LF,
LF . CRLF, CRLF . LF, CR . CR, CR . CRLF, CRLF . CR, CR CRLF . CRLF, NULs around and between), once as the client's wire
and once as a filter's output, against servers strict and lenient.
"""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given

from tests.unit.smtp.chunking import PROPERTY, Chunks, bytewise, chunked, cuts, of_pieces
from tests.unit.smtp.servers import MODELS, ends_seen, ends_seen_without_nuls
from tests.unit.smtp.test_data import decode, encode, relay

ALPHABET = (b"\r", b"\n", b".", b"\0", b"a")
END = b"\r\n.\r\n"
LINE_ENDS = (b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\0\n", b"\0\r\n", b"\r\n\0", b"\0\n", b"\0\r")
DOTS = (b".", b"..", b".\0", b"\0.", b"\0\0.\0", b". ")
VARIANTS = [before + dot + behind for before in LINE_ENDS for dot in DOTS for behind in LINE_ENDS]


def short_texts(length: int) -> list[bytes]:
    return [b"".join(octets) for octets in itertools.product(ALPHABET, repeat=length)]


def assert_one_end(wire: bytes, told: object) -> None:
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n", wire), told
    for newlines, nuls in MODELS:
        assert ends_seen(wire, newlines, nuls) == [len(wire) - 3], (newlines, nuls, told)
    assert ends_seen_without_nuls(wire) == 1, told


@pytest.mark.parametrize("length", range(7))
def test_every_short_text(length: int) -> None:
    for text in short_texts(length):
        wire = encode([text])
        assert_one_end(wire, text)
        assert encode(bytewise(text)) == wire, text


@pytest.mark.parametrize("length", range(7))
def test_every_short_wire(length: int) -> None:
    for sent in short_texts(length):
        wire = relay([sent + END])
        assert_one_end(wire, sent)
        assert relay(bytewise(sent + END)) == wire, sent
        assert encode([decode([sent + END])[1]]) == wire, sent


def test_every_variant_of_an_end_of_data_however_it_is_cut() -> None:
    for variant in VARIANTS:
        for sent in (b"a" + variant + b"MAIL FROM:<x@example.com>" + END, variant + END):
            wire = relay([sent])
            assert_one_end(wire, sent)
            for chunks in cuts(sent):
                assert relay(chunks) == wire, chunks
        text = b"a" + variant + b"QUIT"
        wire = encode([text])
        assert_one_end(wire, text)
        for chunks in cuts(text):
            assert encode(chunks) == wire, chunks


@given(chunked(of_pieces(*ALPHABET, b"\r\n", b"\r\n.", b"\0\0", max_size=60)))
@PROPERTY
def test_long_texts_however_they_are_cut(stream: tuple[bytes, Chunks]) -> None:
    _data, chunks = stream
    assert_one_end(encode(chunks), chunks)
    assert_one_end(relay([*chunks, END]), chunks)


def test_only_the_rfc_end_of_data_ends_data() -> None:
    strict = re.compile(rb"(?:\A|\r\n)\.\r\n")
    for variant in VARIANTS:
        sent = b"a" + variant + b"b"
        decoder, _text = decode([sent])
        assert decoder.done == (strict.search(sent) is not None), sent
