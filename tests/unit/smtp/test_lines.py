"""Lines of a client, in bounded memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.smtp import answers
from proxsmtp_tp.smtp.lines import AUTH_LIMIT, COMMAND_LIMIT, LineBuffer, LineTooLong
from tests.unit.smtp.chunking import PROPERTY, Chunks, bytewise, chunked, cuts, of_pieces


def lines_of(buffer: LineBuffer, chunks: Chunks) -> list[bytes | None]:
    """Each line; None for one that was too long."""
    lines: list[bytes | None] = []
    for chunk in chunks:
        buffer.feed(chunk)
        while True:
            try:
                line = buffer.next_line()
            except LineTooLong:
                lines.append(None)
                continue
            if line is None:
                break
            lines.append(line)
    return lines


def test_lines_end_at_lf_and_keep_their_ends() -> None:
    for chunks in cuts(b"EHLO a\r\n\nb\nc\rd\r\n\r\nrest"):
        buffer = LineBuffer()
        assert lines_of(buffer, chunks) == [b"EHLO a\r\n", b"\n", b"b\n", b"c\rd\r\n", b"\r\n"]
        assert buffer.take() == b"rest"


@pytest.mark.parametrize("limit", [COMMAND_LIMIT, AUTH_LIMIT])
def test_the_limit_counts_the_line_end(limit: int) -> None:
    fits = b"a" * (limit - 2) + b"\r\n"
    for chunks in ([fits + b"a" + fits + b"NOOP\r\n"], bytewise(fits + b"a" + fits + b"NOOP\r\n")):
        assert lines_of(LineBuffer(limit), chunks) == [fits, None, b"NOOP\r\n"]


def test_limits_are_those_of_the_rfcs() -> None:
    assert LineBuffer().limit == COMMAND_LIMIT
    assert COMMAND_LIMIT >= 512 + 746
    assert AUTH_LIMIT == 12288


def test_an_over_long_line_has_its_reply() -> None:
    buffer = LineBuffer(1)
    buffer.feed(b"a\n")
    with pytest.raises(LineTooLong) as caught:
        buffer.next_line()
    assert caught.value.reply is answers.LINE_TOO_LONG


def test_an_over_long_line_is_not_kept() -> None:
    buffer = LineBuffer(100)
    for _ in range(1000):
        buffer.feed(b"a" * 99)
        assert buffer.next_line() is None
        assert len(buffer) <= 100
    assert lines_of(buffer, [b"\nNOOP\r\n"]) == [None, b"NOOP\r\n"]


def test_the_limit_may_change_between_lines() -> None:
    buffer = LineBuffer(10)
    assert lines_of(buffer, [b"12345678901\n"]) == [None]
    buffer.limit = 20
    assert lines_of(buffer, [b"12345678901\n"]) == [b"12345678901\n"]
    buffer.limit = 10
    assert lines_of(buffer, [b"12345678901\n"]) == [None]


def test_what_follows_data_is_taken_as_it_is() -> None:
    buffer = LineBuffer()
    buffer.feed(b"DATA\r\nSubject: x\r\n.\r\nQUIT\r\n")
    assert buffer.next_line() == b"DATA\r\n"
    assert len(buffer) == 21
    assert buffer.take() == b"Subject: x\r\n.\r\nQUIT\r\n"
    assert len(buffer) == 0
    assert buffer.take() == b""
    assert lines_of(buffer, [b"NOOP\r\n"]) == [b"NOOP\r\n"]


def test_nothing_is_taken_from_the_middle_of_an_over_long_line() -> None:
    buffer = LineBuffer(10)
    assert lines_of(buffer, [b"a" * 11]) == []
    with pytest.raises(RuntimeError):
        buffer.take()


@given(chunked(of_pieces(b"a", b"bcdefgh", b"\r\n", b"\n", b"\r", b"\0") | st.binary()))
@PROPERTY
def test_any_bytes_in_any_chunks(stream: tuple[bytes, Chunks]) -> None:
    data, chunks = stream
    expected = [line if len(line) <= 10 else None for line in data.split(b"\n")]
    expected = [None if line is None or len(line) == 10 else line + b"\n" for line in expected[:-1]]
    assert lines_of(LineBuffer(10), chunks) == expected


@pytest.mark.parametrize(("tail", "ended"), [([b"\r", b"\n"], True), ([b"\r", b"a\n"], False), ([b"\n"], False)])
def test_how_an_over_long_line_ends(tail: list[bytes], ended: bool) -> None:
    """Only what ends with CRLF was one command (RFC 5321 section 2.3.8)."""
    buffer = LineBuffer(10)
    *chunks, last = [b"a" * 20, *tail]
    assert lines_of(buffer, chunks) == []
    buffer.feed(last)
    with pytest.raises(LineTooLong) as caught:
        buffer.next_line()
    assert caught.value.ended is ended
