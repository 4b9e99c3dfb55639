"""Replies: built by us, read from servers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.smtp.replies import (
    LINE_LIMIT,
    LINES_LIMIT,
    OWN_LINE_LIMIT,
    TOTAL_LIMIT,
    Reply,
    ReplyError,
    ReplyReader,
    SmtpError,
)
from tests.unit.smtp.chunking import PROPERTY, Chunks, bytewise, chunked, cuts, of_pieces

LINES = of_pieces(
    b"250 ok\r\n", b"250-a\r\n", b"250\r\n", b"550 no\n", b"250-\r\n", b"\r", b"\n", b"250", b"\0", b"\xff", b"x"
)


def read(chunks: Chunks) -> tuple[list[Reply], str | None]:
    """All replies, and what the reader said when it met what is none."""
    reader = ReplyReader()
    replies: list[Reply] = []
    for chunk in chunks:
        reader.feed(chunk)
        try:
            while (reply := reader.next()) is not None:
                replies.append(reply)
        except ReplyError as error:
            return replies, str(error)
    return replies, None


@pytest.mark.parametrize(
    ("code", "texts", "wire"),
    [
        (250, ["ok"], b"250 ok\r\n"),
        (250, [], b"250 \r\n"),
        (250, ["a", b"b", "c"], b"250-a\r\n250-b\r\n250 c\r\n"),
        (550, ["5.7.1 no\r\n250 yes"], b"550 5.7.1 no  250 yes\r\n"),
        (550, [b"nul\0 bell\7 del\x7f tab\t 8-bit\xff"], b"550 nul? bell? del? tab  8-bit?\r\n"),
        (550, ["caf\u00e9\u2028\ud800"], b"550 caf???\r\n"),
    ],
)
def test_replies_of_ours(code: int, texts: list[str | bytes], wire: bytes) -> None:
    assert Reply.of(code, *texts).wire == wire


@pytest.mark.parametrize("code", [0, 199, 600, 2500, -250])
def test_a_code_that_is_none(code: int) -> None:
    with pytest.raises(ValueError, match="not a reply code"):
        Reply.of(code, "x")


@given(st.integers(200, 599), st.lists(st.text() | st.binary(), max_size=5))
@PROPERTY
def test_replies_of_ours_are_replies_whatever_the_texts(code: int, texts: list[str | bytes]) -> None:
    reply = Reply.of(code, *texts)
    replies, fault = read(bytewise(reply.wire))
    assert (replies, fault) == ([reply], None)
    assert replies[0].code == code
    assert len(reply.texts) == max(len(texts), 1)
    assert reply.wire.isascii()


def test_lines_of_ours_are_cut_at_the_limit() -> None:
    reply = Reply.of(550, "a" * 1000, "b" * 506, "c" * 507)
    assert [len(line) for line in reply.wire.splitlines(keepends=True)] == [OWN_LINE_LIMIT] * 3
    assert reply.texts == (b"a" * 506, b"b" * 506, b"c" * 506)


def test_refusals_of_ours_end_with_the_trace_id() -> None:
    assert Reply.of(421, "4.4.2 gone").traced("01JD8Q3K7C2VA").wire == b"421 4.4.2 gone (01JD8Q3K7C2VA)\r\n"
    assert Reply.of(550, "one", "two").traced("01JD8Q3K7C2VA").wire == b"550-one\r\n550 two (01JD8Q3K7C2VA)\r\n"


def test_replies_that_keep_their_words() -> None:
    """Those of servers and filters, and those that refuse nothing."""
    for reply in (
        Reply.quoting(550, "spam"),
        Reply(550, b"550 no\r\n"),
        Reply.of(354, "go"),
        Reply.of(250, "2.0.0 Ok"),
    ):
        assert reply.traced("01JD8Q3K7C2VA") is reply
    reply = Reply.of(550, "no")
    assert reply.traced("") is reply


def test_a_long_refusal_is_cut_for_the_trace_id() -> None:
    wire = Reply.of(550, "first", "x" * 600).traced("01JD8Q3K7C2VA").wire
    last = wire.splitlines(keepends=True)[-1]
    assert len(last) == 512
    assert last.endswith(b"xx (01JD8Q3K7C2VA)\r\n")


def test_kinds() -> None:
    kinds = ("positive", "intermediate", "transient", "negative")
    found = {code: [k for k in kinds if getattr(Reply.of(code), k)] for code in (200, 299, 354, 421, 499, 500, 599)}
    assert found == {
        200: ["positive"],
        299: ["positive"],
        354: ["intermediate"],
        421: ["transient", "negative"],
        499: ["transient", "negative"],
        500: ["negative"],
        599: ["negative"],
    }


def test_replies_are_equal_by_their_bytes() -> None:
    assert Reply.of(250, "a") == Reply.of(250, b"a")
    assert len({Reply.of(250, "a"), Reply.of(250, "a"), Reply.of(250, "b")}) == 2
    assert Reply.of(250, "a") != b"250 a\r\n"
    assert repr(Reply.of(250, "a")) == "Reply(b'250 a\\r\\n')"


def test_an_error_of_a_peer_carries_its_reply() -> None:
    reply = Reply.of(500, "no")
    assert SmtpError(reply).reply is reply


@pytest.mark.parametrize(
    ("sent", "wire", "texts"),
    [
        (b"250 ok\r\n", b"250 ok\r\n", (b"ok",)),
        (b"250 ok\n", b"250 ok\r\n", (b"ok",)),
        (b"250\r\n", b"250\r\n", (b"",)),
        (b"250 \r\n", b"250 \r\n", (b"",)),
        (b"571 no\r\n", b"571 no\r\n", (b"no",)),
        (b"250-a\r\n250-b\r\n250 c\r\n", b"250-a\r\n250-b\r\n250 c\r\n", (b"a", b"b", b"c")),
        (b"250-a\n250-\n250\n", b"250-a\r\n250-\r\n250 \r\n", (b"a", b"", b"")),
        (b"250 a\rb\0c\x7fd\te\r\r\n", b"250 a b?c?d e \r\n", (b"a b?c?d e ",)),
        (b"250-a\rb\r\n250 c\0\r\n", b"250-a b\r\n250 c?\r\n", (b"a b", b"c?")),
        (b"250 \xc3\xa9\xff\r\n", b"250 \xc3\xa9\xff\r\n", (b"\xc3\xa9\xff",)),
        (b"250\tok\r\n", b"250 ok\r\n", (b"ok",)),
    ],
)
def test_what_a_server_sends(sent: bytes, wire: bytes, texts: tuple[bytes, ...]) -> None:
    for chunks in cuts(sent + b"354 go"):
        replies, fault = read(chunks)
        assert fault is None
        assert [reply.wire for reply in replies] == [wire], chunks
        assert replies[0].texts == texts
        assert replies[0].code == int(wire[:3])


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"ok\r\n", "not a reply line"),
        (b"25\r\n", "not a reply line"),
        (b"2500 ok\r\n", "not a reply line"),
        (b"250ok\r\n", "not a reply line"),
        (b"250_ok\r\n", "not a reply line"),
        (b"150 ok\r\n", "not a reply line"),
        (b"650 ok\r\n", "not a reply line"),
        (b" 250 ok\r\n", "not a reply line"),
        (b"\xb2\xb5\xb0 ok\r\n", "not a reply line"),
        (b"250-a\r\n550 b\r\n", "goes on with"),
        (b"250-a\r\n550-b\r\n", "goes on with"),
        (b"250-a\r\nb\r\n", "not a reply line"),
        (b"250 " + b"a" * TOTAL_LIMIT + b"\r\n", "reply line"),
        (b"250-a\r\n" * LINES_LIMIT + b"250 a\r\n", "lines"),
        (b"250-" + b"a" * (LINE_LIMIT - 6) + b"\r\n", None),
        ((b"250-" + b"a" * (LINE_LIMIT - 6) + b"\r\n") * (TOTAL_LIMIT // LINE_LIMIT + 1), "octets"),
    ],
)
def test_what_is_no_reply(sent: bytes, said: str | None) -> None:
    for chunks in ([sent], bytewise(sent)):
        replies, fault = read([b"220 hello\r\n", *chunks])
        assert [reply.wire for reply in replies] == [b"220 hello\r\n"]
        assert said in fault if said and fault else fault is said


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
@pytest.mark.parametrize("beyond", [1, 2, 3, 7000])
def test_a_line_that_is_too_long_is_cut(beyond: int, end: bytes) -> None:
    sent = b"250-a\r\n250 " + b"b" * (LINE_LIMIT - 4 - len(end) + beyond) + end
    cut = b"250-a\r\n250 " + b"b" * (LINE_LIMIT - 6) + b"\r\n"
    for chunks in ([sent + b"354 go\r\n"], bytewise(sent + b"354 go\r\n")):
        replies, fault = read(chunks)
        assert fault is None
        assert [reply.wire for reply in replies] == [cut, b"354 go\r\n"]


def test_a_line_without_end_is_not_kept() -> None:
    reader = ReplyReader()
    for _ in range(TOTAL_LIMIT // (LINE_LIMIT + 4)):
        reader.feed(b"250 " + b"a" * LINE_LIMIT)
        assert reader.next() is None
        assert len(reader) <= LINE_LIMIT
    reader.feed(b"\n250 b\r\n")
    assert reader.next() == Reply(250, b"250 " + b"a" * (LINE_LIMIT - 6) + b"\r\n")
    assert reader.next() == Reply(250, b"250 b\r\n")


@pytest.mark.parametrize("tolerant", [False, True])
@pytest.mark.parametrize("blank", [b"\r\n", b"\n", b" \t\r\n"])
def test_blank_lines_are_passed_over(blank: bytes, tolerant: bool) -> None:
    reader = ReplyReader()
    for octet in bytewise(blank.join([b"", b"250-a\r\n", b"250 b\r\n", b"354 go\r\n"])):
        reader.feed(octet)
    assert reader.next(tolerant=tolerant) == Reply(250, b"250-a\r\n250 b\r\n")
    assert reader.next(tolerant=tolerant) == Reply(354, b"354 go\r\n")


@pytest.mark.parametrize(
    ("sent", "wire"),
    [
        (b"250ok\r\n", b"250 ok\r\n"),
        (b"250, ok\r\n", b"250 , ok\r\n"),
        (b"250_ok\n", b"250 _ok\r\n"),
        (b"250  ok\r\n", b"250  ok\r\n"),
        (b"250-Ok\r\n251 queued\r\n", b"251-Ok\r\n251 queued\r\n"),
        (b"250-Ok\r\n550 no\r\n", b"550-Ok\r\n550 no\r\n"),
        (b"550-no\r\n250 yes\r\n", b"250-no\r\n250 yes\r\n"),
        (b"220-a\r\n521\r\n", b"521-a\r\n521 \r\n"),
        (b"250-Ok\r\nqueued as X\r\n250 done\r\n", b"250-Ok\r\n250-queued as X\r\n250 done\r\n"),
        (b"250ok" + b"a" * LINE_LIMIT + b"\r\n", b"250 ok" + b"a" * (LINE_LIMIT - 7) + b"\r\n"),
    ],
)
def test_where_misreading_does_harm_the_last_line_decides(sent: bytes, wire: bytes) -> None:
    for chunks in ([sent], bytewise(sent)):
        reader = ReplyReader()
        replies = []
        for chunk in chunks:
            reader.feed(chunk)
            if (reply := reader.next(tolerant=True)) is not None:
                replies.append(reply)
        assert [(reply.wire, reply.code) for reply in replies] == [(wire, int(wire[:3]))]
        assert len(reader) == 0


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        *((line, "not a reply line") for line in (b"ok\n", b"25\n", b"2500 ok\n", b"150 ok\n", b" 250 ok\n", b"\0\n")),
        (b"250-a\r\n" * LINES_LIMIT + b"250 b\r\n", "lines"),
        (b"250 " + b"a" * TOTAL_LIMIT + b"\r\n", "reply line"),
        (b"\r\n" * (LINES_LIMIT + 1), "blank lines"),
    ],
)
def test_what_is_no_reply_even_there(sent: bytes, why: str) -> None:
    reader = ReplyReader()
    reader.feed(sent)
    with pytest.raises(ReplyError, match=why):
        reader.next(tolerant=True)


def test_limits_hold_for_the_longest_reply_that_is_taken() -> None:
    lines = [b"250-" + b"a" * (LINE_LIMIT - 6) + b"\r\n"] * (TOTAL_LIMIT // LINE_LIMIT)
    sent = b"".join([*lines, b"250 end\r\n"])
    assert read([sent])[0] == [Reply(250, sent)]
    many = b"250-a\r\n" * (LINES_LIMIT - 1) + b"250 a\r\n"
    assert read([many])[0] == [Reply(250, many)]


def test_what_is_buffered_is_counted() -> None:
    reader = ReplyReader()
    reader.feed(b"250-a\r\n250 b\r\n354")
    assert len(reader) == 17
    assert reader.next() is not None
    assert len(reader) == 3
    assert reader.next() is None
    reader.feed(b"-x\r\n")
    assert reader.next() is None
    assert len(reader) == 7
    reader.feed(b"354 y\r\n")
    assert reader.next() is not None
    assert len(reader) == 0


def test_a_bad_line_is_shown_in_part_and_printable() -> None:
    fault = read([b"\xff\0" + b"a" * 1000 + b"\n"])[1]
    assert fault is not None
    assert fault.isascii()
    assert fault.isprintable()
    assert len(fault) < 150


@given(chunked(LINES | st.binary()))
@PROPERTY
def test_any_bytes_in_any_chunks(stream: tuple[bytes, Chunks]) -> None:
    data, chunks = stream
    replies, fault = read(chunks)
    assert (replies, fault) == read([data])
    for reply in replies:
        assert read([reply.wire]) == ([reply], None)
