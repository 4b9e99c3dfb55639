"""The Message-ID is found whatever the pieces in which a message arrives, and in bounded memory."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.smtp.message_id import HEADER_LIMIT, VALUE_LIMIT, MessageIdFinder, value_at_once
from tests.unit.smtp.chunking import PROPERTY, of_pieces

ONE = b"<1.2@c.example>"
MESSAGES = [
    (b"Message-ID: " + ONE + b"\r\nSubject: x\r\n\r\nbody", ONE),
    (b"Subject: x\r\nMESSAGE-id:" + ONE + b"\r\n\r\n", ONE),
    (b"Message-Id: " + ONE + b"\n\nbody", ONE),
    (b"Message-ID:\r\n " + ONE + b"\r\nX: y\r\n\r\n", ONE),
    (b"A: b\r\nMessage-ID :\t" + ONE + b" \r\n\r\n", ONE),
    (b"X-Message-ID: <no@x>\r\nMessage-ID: " + ONE + b"\r\n\r\n", ONE),
    (b"Subject: x\r\n\r\nMessage-ID: <in the body@x>\r\n", b""),
    (b"\r\nMessage-ID: <in the body@x>\r\n", b""),
    (b"Subject: a\r\n Message-ID: <in a fold@x>\r\n\r\n", b""),
    (b"Message-ID: " + b"x" * 900 + b"\r\n\r\n", b"x" * VALUE_LIMIT),
    (b"X: " + b"y" * 5000 + b"\r\nMessage-ID: " + ONE + b"\r\n\r\n", ONE),
    (b"", b""),
]


@pytest.mark.parametrize(("text", "value"), MESSAGES)
@given(st.integers(0, 2**32))
def test_any_pieces(text: bytes, value: bytes, seed: int) -> None:
    finder = MessageIdFinder()
    at, cuts = 0, random.Random(seed)
    longest = cuts.choice([1, 5, 50, 5000])
    while at < len(text):
        size = cuts.randint(1, longest)
        finder.feed(text[at : at + size])
        at += size
    assert finder.value == value


def test_memory_is_bounded() -> None:
    finder = MessageIdFinder()
    for _ in range(1000):
        finder.feed(b"X: " + b"y" * 1000)
        assert len(finder._held) <= 2100
    for piece in (b"A: b\r\n" * 100, b"Message-ID:\r\n" * 100):
        finder = MessageIdFinder()
        for _ in range(1000):
            finder.feed(piece)
            assert len(finder._held) <= HEADER_LIMIT


@given(of_pieces(b"Message-ID:", b"message-id", b"\r\n", b"\r\n\r\n", b" ", b":", b"<x@y>", b"\t", b"A: b", b"\r\r\n"))
@PROPERTY
def test_a_complete_header_is_read_at_once_as_a_finder_reads_it(text: bytes) -> None:
    finder = MessageIdFinder()
    finder.feed(text)
    assert value_at_once(text) in {None, finder.value}


def test_the_usual_header_is_read_at_once() -> None:
    assert value_at_once(MESSAGES[0][0]) == ONE
    assert value_at_once(MESSAGES[5][0]) == ONE
    assert value_at_once(b"Subject: x\r\n\r\nMessage-ID: <in the body@x>\r\n\r\n") == b""
