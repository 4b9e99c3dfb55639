"""Answers of spamd and HTTP servers: any segmentation gives the same; any octets give an answer or an error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.filters.protocols.answers import HEAD_LIMIT, AnswerReader
from proxsmtp_tp.filters.protocols.errors import ProtocolError

COUNTED = b"SPAMD/1.1 0 EX_OK\r\nContent-length: 5\r\nSpam: True ; 15.0 / 5.0\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nA: b\r\n\r\n"
CLOSED = b"HTTP/1.0 200 OK\nServer:  x \n\nhello"
EMPTY = b"SPAMD/1.1 0 EX_OK\r\nContent-length: 0\r\n\r\n"


def read(pieces: list[bytes]) -> AnswerReader:
    reader = AnswerReader()
    for piece in pieces:
        reader.feed(piece)
    if not reader.done:
        reader.closed()
    return reader


@pytest.mark.parametrize(
    ("octets", "body"), [(COUNTED, b"hello"), (CHUNKED, b"hello"), (CLOSED, b"hello"), (EMPTY, b"")]
)
@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_answers(octets: bytes, body: bytes, size: int) -> None:
    reader = read([octets[at : at + size] for at in range(0, len(octets), size)])
    assert reader.take() == body
    assert reader.head is not None
    assert reader.head.start == octets.splitlines()[0]


def test_lines_of_the_head() -> None:
    head = read([CLOSED]).head
    assert head is not None
    assert head.get(b"server") == b"x"
    assert head.get(b"spam") is None


def test_the_body_comes_as_it_arrives() -> None:
    reader = AnswerReader()
    reader.feed(COUNTED[:-2])
    assert (reader.take(), reader.done) == (b"hel", False)
    reader.feed(COUNTED[-2:])
    assert (reader.take(), reader.done) == (b"lo", True)


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        COUNTED[:-1],
        COUNTED + b"x",
        CHUNKED[:-1],
        CHUNKED.replace(b"3\r\n", b"z\r\n"),
        CHUNKED.replace(b"hel\r\n", b"help\r\n"),
        CHUNKED.replace(b"0\r\nA", b"0\r\n" + b"A: b\r\n" * 20_000 + b"A"),
        CHUNKED.replace(b"3\r\n", b"3;" + b"x" * 2000 + b"\r\n"),
        CHUNKED.replace(b"chunked", b"gzip, chunked"),
        COUNTED.replace(b"5\r\n", b"-5\r\n", 1),
        COUNTED.replace(b"Spam", b"Content-Length: 6\r\nSpam"),
        COUNTED.replace(b"Spam:", b"Spam"),
        COUNTED.replace(b"Spam:", b" Spam:"),
        b"x" * (HEAD_LIMIT + 1),
    ],
)
def test_what_is_no_answer(octets: bytes) -> None:
    with pytest.raises(ProtocolError):
        read([octets])


@given(st.lists(st.one_of(st.binary(max_size=20), st.sampled_from([COUNTED, CHUNKED, CLOSED, b"\r\n\r\n", b"0\r\n"]))))
def test_anything_gives_an_answer_or_an_error(pieces: list[bytes]) -> None:
    def outcome(given: list[bytes]) -> object:
        try:
            reader = read(given)
        except ProtocolError:
            return None
        return reader.head, reader.take()

    joined = b"".join(pieces)
    assert outcome([bytes([octet]) for octet in joined]) == outcome([joined])
