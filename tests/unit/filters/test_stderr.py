"""The last line of a standard error, and the reply that it becomes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxsmtp_tp.filters.stderr import LINE_LIMIT, LOGGED_LIMIT, TAIL_LIMIT, ErrorOutput, LastLine, parse
from proxsmtp_tp.filters.verdict import Action

ONE_REPLY_LINE = re.compile(rb"(250|[45][0-9][0-9]) [ -~]*\r\n")

REPLIES = [
    (b"550 Bad Email", b"550 Bad Email"),
    (b"550 5.7.1 Bad Email", b"550 5.7.1 Bad Email"),
    (b"550   Bad   Email", b"550 Bad   Email"),
    (b"550\tBad\tEmail", b"550 Bad Email"),
    (b"550-Bad Email", b"550 Bad Email"),
    (b"550-5.7.1 - Bad", b"550 5.7.1 - Bad"),
    (b"550", b"550 Content Rejected"),
    (b"550-", b"550 Content Rejected"),
    (b"571 Delivery not authorized", b"571 Delivery not authorized"),
    (b"599 x", b"599 x"),
    (b"451 later", b"451 later"),
    (b"451", b"451 Content Not Accepted Now"),
    (b"400 x", b"400 x"),
    (b"421 4.3.0 closing", b"451 4.3.0 closing"),
    (b"421", b"451 Content Not Accepted Now"),
    (b"250 Gone", b"250 Gone"),
    (b"250", b"250 OK"),
    (b"250-Gone", b"250 Gone"),
    (b"Bad Email", b"550 Content Rejected; Bad Email"),
    (b"", b"550 Content Rejected"),
    (b"251 will forward", b"550 Content Rejected; 251 will forward"),
    (b"200 x", b"550 Content Rejected; 200 x"),
    (b"354 go on", b"550 Content Rejected; 354 go on"),
    (b"120 x", b"550 Content Rejected; 120 x"),
    (b"999 x", b"550 Content Rejected; 999 x"),
    (b"600 x", b"550 Content Rejected; 600 x"),
    (b"5505 x", b"550 Content Rejected; 5505 x"),
    (b"550x", b"550 Content Rejected; 550x"),
    (b"550: x", b"550 Content Rejected; 550: x"),
    (b"55", b"550 Content Rejected; 55"),
    (b"-550 x", b"550 Content Rejected; -550 x"),
    (b"\xd9\xa5\xd9\xa5\xd9\xa0 x", b"550 Content Rejected; ?????? x"),  # Arabic digits are no digits
    (b"550 x\r550 y", b"550 x 550 y"),
    (b"550 x\0y\x1b[31m\x7f", b"550 x?y?[31m?"),
    ("554 f\u00fcr".encode(), b"554 f??r"),
]


# What a shell or an interpreter writes for its administrator: not for a sender, who would learn paths of this host.
INTERNAL = [
    b"sh: 1: Syntax error: Unterminated quoted string",
    b"sh: 0: cannot open missing.sh: No such file",
    b"bash: line 1: nothing: command not found",
    b"/etc/proxsmtp-tp/filters/judge: 3: nothing: not found",
    b"filters/judge: line 3: nothing: command not found",
    b"python3: can't open file '/missing.py': [Errno 2] No such file or directory",
    b'Can\'t open perl script "/missing.pl": No such file or directory',
    b"died at /etc/proxsmtp-tp/filters/judge line 7, <STDIN> line 3.",
    b"FileNotFoundError: [Errno 2] No such file or directory: '/var/lib/x'",
    b"ERROR: /run/clamav/clamd.ctl: Permission denied",
    b"config=/etc/judge.conf is unreadable",
]

# No paths: a sender may read them, as with 1.10.
FOR_THE_SENDER = [
    b"see https://mx.example/policy/spam",
    b"spam and/or virus, score 7.5/5.0, 3 / 4 of the tests",
    b"Rejected: 5: too high",
    b"ValueError: no such header",
    b"Fresh: fish",
    b"192.0.2.0/24 is listed",
]


@pytest.mark.parametrize("line", INTERNAL)
def test_a_message_for_the_administrator_is_for_the_log_only(line: bytes) -> None:
    said = parse(line)
    assert said.reply.wire == b"550 Content Rejected\r\n"
    assert said.shown == line.decode()
    assert parse(b"550 5.7.1 " + line).reply.wire == b"550 5.7.1 " + line + b"\r\n"  # the filter says it on purpose


@pytest.mark.parametrize("line", FOR_THE_SENDER)
def test_other_text_is_logged_as_by_1_10(line: bytes) -> None:
    assert parse(line).reply.wire == b"550 Content Rejected; " + line + b"\r\n"


@pytest.mark.parametrize(("line", "reply"), REPLIES)
def test_each_shape_of_a_line_has_one_meaning(line: bytes, reply: bytes) -> None:
    said = parse(line)
    assert said.reply.wire == reply + b"\r\n"
    action = {b"2": Action.DISCARD, b"4": Action.TEMPFAIL, b"5": Action.REJECT}[reply[:1]]
    assert said.action is action


def test_a_long_line_is_cut_to_one_reply_line() -> None:
    for line in (b"550 " + b"x" * 3000, b"y" * 3000):
        assert len(parse(line).reply.wire) == 512


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=700), st.from_regex(rb"[0-9]{3}[ \t-]?.{0,20}", fullmatch=True)))
def test_any_line_gives_one_printable_reply_line_with_a_code_of_a_verdict(line: bytes) -> None:
    said = parse(line)
    wire = said.reply.wire
    assert ONE_REPLY_LINE.fullmatch(wire)
    assert len(wire) <= 512
    assert not wire.startswith(b"421")
    assert said.shown.isascii()
    assert said.shown == "" or said.shown.isprintable()
    assert {Action.DISCARD: b"2", Action.TEMPFAIL: b"4", Action.REJECT: b"5"}[said.action] == wire[:1]


def last_line(*chunks: bytes) -> bytes:
    line = LastLine()
    for chunk in chunks:
        line.feed(chunk)
    return line.line


LINES = [
    (b"", b""),
    (b"\n", b""),
    (b" \n\t\r\n", b""),
    (b"one", b"one"),
    (b"one\n", b"one"),
    (b"one\r\n", b"one"),
    (b"one\ntwo", b"two"),
    (b"one\ntwo\n", b"two"),
    (b"one\n\n \n", b"one"),
    (b"one\n  two  \n\n", b"two"),
    (b"\n\none\n", b"one"),
    (b"one\n" + b" " * 5000 + b"two", b"two"),
    (b"x" * 5000 + b"\n", b"x" * LINE_LIMIT),
    (b"550 " + b"x" * 5000, b"550 " + b"x" * (LINE_LIMIT - 4)),
    (b"a\n" + b"b" * 5000 + b"\nc", b"c"),
]


@pytest.mark.parametrize(("text", "line"), LINES)
def test_the_last_line_that_is_not_empty(text: bytes, line: bytes) -> None:
    assert last_line(text) == line
    assert last_line(*[text[at : at + 1] for at in range(len(text))]) == line


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(st.binary(max_size=20), st.sampled_from([b"\n", b" ", b"\r\n", b"550 x", b"y" * 700])), max_size=12
    )
)
def test_chunks_do_not_matter(chunks: list[bytes]) -> None:
    text = b"".join(chunks)
    lines = [line.strip() for line in text.split(b"\n") if line.strip()]
    expected = lines[-1][:LINE_LIMIT].rstrip() if lines else b""
    assert last_line(*chunks) == last_line(text) == expected


def test_memory_is_bounded_whatever_comes() -> None:
    line = LastLine()
    for _ in range(100):
        line.feed(b"x" * 65536)
    line.feed(b"\n")
    for _ in range(100):
        line.feed(b" " * 65536)
    assert len(line.line) == LINE_LIMIT
    assert len(line._current) + len(line._line) <= 2 * LINE_LIMIT


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.builds(lambda piece, times: piece * times, st.binary(max_size=20), st.integers(1, 2000)), max_size=6)
)
def test_the_end_of_a_stream_is_kept_and_no_more(chunks: list[bytes]) -> None:
    output = ErrorOutput()
    for chunk in chunks:
        output.feed(chunk)
    text = b"".join(chunks)
    assert output.tail == text[-TAIL_LIMIT:]
    assert output.line == last_line(text)
    assert output.size == len(text)
    assert output.logged.isprintable()
    assert "\n" not in output.logged
    unescaped = output.logged.replace("\\\\", "")
    assert re.search(r'(?<!\\)"', unescaped) is None  # the quotes around it cannot be closed from inside


def test_a_flood_is_cut_at_its_beginning() -> None:
    output = ErrorOutput()
    for _ in range(100):
        output.feed(b"noise\n" * 10_000)
    output.feed(b"the reason\n")
    assert output.logged.startswith("... ")
    assert output.logged.endswith(" / noise / the reason")
    assert len(output.logged) <= LOGGED_LIMIT * 2
    assert len(output._tail) <= 2 * TAIL_LIMIT
