"""Header lines put into a message."""

from __future__ import annotations

import email
import email.policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.smtp.headers import NAME_LIMIT, HeaderInserter
from tests.unit.smtp.chunking import PROPERTY, Chunks, bytewise, chunked, cuts, of_pieces

HEADER = b"X-New: 1\r\n"
LONG = b"n" * NAME_LIMIT
MESSAGES = of_pieces(
    b"Subject: a\r\n",
    b"From : b\r\n",
    b" folded\r\n",
    b"\r\n",
    b"text\r\n",
    b"From x\r\n",
    b">From y",
    b":",
    b"a",
    b" ",
    b"\n",
)


def inserted(chunks: Chunks, *, on_top: bool, header: bytes = HEADER) -> bytes:
    inserter = HeaderInserter(header, on_top=on_top)
    return b"".join([*[inserter.feed(chunk) for chunk in chunks], inserter.finish()])


@pytest.mark.parametrize(
    ("text", "behind"),
    [
        (b"", b"@"),
        (b"\r\n", b"@\r\n"),
        (b"\r\nbody\r\n", b"@\r\nbody\r\n"),
        (b"A: 1\r\n\r\nbody\r\n", b"A: 1\r\n@\r\nbody\r\n"),
        (
            b"A: 1\r\nB:2\r\n folded\r\n\tmore\r\n\r\nC: 3\r\n\r\n",
            b"A: 1\r\nB:2\r\n folded\r\n\tmore\r\n@\r\nC: 3\r\n\r\n",
        ),
        (b"A: 1\r\n \r\nB: 2\r\n\r\n", b"A: 1\r\n \r\nB: 2\r\n@\r\n"),
        (b"A: 1\r\n", b"A: 1\r\n@"),
        (b"A: 1", b"A: 1\r\n@"),
        (b"A :\r\n\r\n", b"A :\r\n@\r\n"),
        (b"body\r\n", b"@\r\nbody\r\n"),
        (b"body", b"@\r\nbody"),
        (b"two words: x\r\n", b"@\r\ntwo words: x\r\n"),
        (b": x\r\n", b"@\r\n: x\r\n"),
        (b"\xff: x\r\n", b"@\r\n\xff: x\r\n"),
        (b" folded\r\nA: 1\r\n", b"@\r\n folded\r\nA: 1\r\n"),
        (b"A: 1\r\nbody\r\nB: 2\r\n\r\n", b"A: 1\r\n@\r\nbody\r\nB: 2\r\n\r\n"),
        (b"From a b\r\nA: 1\r\n\r\n", b"From a b\r\nA: 1\r\n@\r\n"),
        (b">From a b\r\nA: 1\r\n\r\n", b">From a b\r\nA: 1\r\n@\r\n"),
        (b"From a b\r\nbody", b"From a b\r\n@\r\nbody"),
        (b"From a b\r\n\r\nbody", b"From a b\r\n@\r\nbody"),
        (b"From a b\r\n folded\r\n", b"From a b\r\n@\r\n folded\r\n"),
        (b"From a b\r\n", b"From a b\r\n@"),
        (b"From a b", b"From a b\r\n@"),
        (b"A: 1\r\nFrom a b\r\n\r\n", b"A: 1\r\n@\r\nFrom a b\r\n\r\n"),
        (LONG + b":\r\n\r\n", LONG + b":\r\n@\r\n"),
        (LONG + b"n:\r\n\r\n", b"@\r\n" + LONG + b"n:\r\n\r\n"),
        (b"A: 1\n\nbody\n", b"A: 1\n@\nbody\n"),
    ],
)
def test_after_the_last_field(text: bytes, behind: bytes) -> None:
    for chunks in cuts(text):
        assert inserted(chunks, on_top=False) == behind.replace(b"@", HEADER), chunks


@pytest.mark.parametrize(
    ("text", "on_top"),
    [
        (b"", b"@"),
        (b"\r\nbody\r\n", b"@\r\nbody\r\n"),
        (b"A: 1\r\n\r\nbody\r\n", b"@A: 1\r\n\r\nbody\r\n"),
        (b"A: 1", b"@A: 1"),
        (b"body\r\n\r\n", b"@\r\nbody\r\n\r\n"),
        (b"body", b"@\r\nbody"),
        (b" folded\r\n", b"@\r\n folded\r\n"),
        (b"From a b\r\nA: 1\r\n\r\n", b"From a b\r\n@A: 1\r\n\r\n"),
        (b"From a b\r\nbody\r\n", b"From a b\r\n@\r\nbody\r\n"),
        (b"From a b", b"From a b\r\n@"),
        (b"From : a\r\n\r\n", b"@From : a\r\n\r\n"),
        (LONG + b"n:\r\n", b"@\r\n" + LONG + b"n:\r\n"),
    ],
)
def test_on_top(text: bytes, on_top: bytes) -> None:
    for chunks in cuts(text):
        assert inserted(chunks, on_top=True) == on_top.replace(b"@", HEADER), chunks


@pytest.mark.parametrize("on_top", [True, False])
def test_nothing_to_insert(on_top: bool) -> None:
    for chunks in cuts(b"body: no\r\nbody"):
        assert inserted(chunks, on_top=on_top, header=b"") == b"body: no\r\nbody"


def test_what_is_held_back_is_bounded() -> None:
    inserter = HeaderInserter(HEADER, on_top=False)
    fed = returned = 0
    for chunk in bytewise(b"A: " + b"x" * 3000 + b"\r\n " + b"y" * 3000 + b"\r\n" + b"n" * 3000):
        fed += 1
        returned += len(inserter.feed(chunk))
        assert fed - returned <= 2 * NAME_LIMIT
    assert returned == fed + len(HEADER) + 2


def test_after_the_body_nothing_is_held_back() -> None:
    inserter = HeaderInserter(HEADER, on_top=False)
    inserter.feed(b"A: 1\r\n\r\n")
    body = b"B"
    assert inserter.feed(body) is body
    assert inserter.finish() == b""


@pytest.mark.parametrize("on_top", [True, False])
def test_a_reader_finds_the_field_and_the_same_body(on_top: bool) -> None:
    text = b"Subject: x\r\nTo: a,\r\n b\r\n\r\nBody: no field\r\n\r\nend\r\n"
    message = email.message_from_bytes(inserted([text], on_top=on_top), policy=email.policy.SMTP)
    before = email.message_from_bytes(text, policy=email.policy.SMTP)
    assert message["X-New"] == "1"
    assert message.keys() == (["X-New", "Subject", "To"] if on_top else ["Subject", "To", "X-New"])
    assert message.get_content() == before.get_content()


@given(chunked(MESSAGES | st.binary()), st.booleans())
@PROPERTY
def test_any_text_in_any_chunks(stream: tuple[bytes, Chunks], on_top: bool) -> None:
    text, chunks = stream
    whole = inserted([text], on_top=on_top)
    assert inserted(chunks, on_top=on_top) == whole
    before, found, behind = whole.partition(HEADER)
    assert found
    assert text in {before + behind, before + behind.removeprefix(b"\r\n"), before.removesuffix(b"\r\n") + behind}
