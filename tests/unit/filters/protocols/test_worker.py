"""The protocol of a worker: heads, answers, percent-encoding."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.filters.edits import (
    AddHeader,
    AddRecipient,
    ChangeHeader,
    ChangeSender,
    DeleteRecipient,
    InsertHeader,
    Quarantine,
)
from proxsmtp_tp.filters.protocols.errors import ProtocolError
from proxsmtp_tp.filters.protocols.worker import (
    HEAD_LIMIT,
    LINES_LIMIT,
    HeadReader,
    WorkerAnswer,
    check_ready,
    decode,
    encode,
    parse_answer,
    request_head,
)
from proxsmtp_tp.filters.verdict import Action


def answer(*lines: bytes) -> WorkerAnswer:
    reader = HeadReader()
    reader.feed(b"".join(line + b"\n" for line in lines) + b"\n")
    assert reader.lines is not None
    return parse_answer(reader.lines)


def test_request() -> None:
    lines = [(b"sender", b""), (b"recipient", b"a b%\xe9@x"), (b"size", b"3")]
    assert request_head(lines) == b"sender=\nrecipient=a b%25%E9@x\nsize=3\n\n"


@given(st.binary())
def test_values_come_back(value: bytes) -> None:
    assert decode(encode(value)) == value
    assert b"\n" not in encode(value)


def test_a_percent_sign_alone_is_itself() -> None:
    assert decode(b"100% off %0a %zz %") == b"100% off \n %zz %"


@pytest.mark.parametrize("size", [1, 3, 100])
def test_heads_in_pieces(size: int) -> None:
    octets = b"action=pass\r\nsize=3\n\nabc"
    reader = HeadReader()
    for at in range(0, len(octets), size):
        if reader.lines is None:
            reader.feed(octets[at : at + size])
    assert reader.lines == ((b"action", b"pass"), (b"size", b"3"))


def test_a_long_head_octet_by_octet() -> None:
    """Each octet is looked at once: with the whole head each time this takes minutes."""
    reader = HeadReader()
    before = time.process_time()
    for octet in b"reason=" + b"x" * 100_000 + b"\n\r\n":
        reader.feed(bytes((octet,)))
    assert reader.lines == ((b"reason", b"x" * 100_000),)
    assert time.process_time() - before < 20


@pytest.mark.parametrize("size", [1, 1000, 1 << 20])
def test_the_lines_of_a_head_are_few_and_those_of_the_message_are_not_counted(size: int) -> None:
    """A line costs time in the event loop, which other connections need."""
    head, reader = b"a=\n" * LINES_LIMIT + b"\n" + b"\n" * 2 * LINES_LIMIT, HeadReader()
    while reader.lines is None:
        reader.feed(head[:size])
        head = head[size:]
    assert len(reader.lines) == LINES_LIMIT
    reader = HeadReader()
    for _ in range(LINES_LIMIT):
        reader.feed(b"a=\n")
    with pytest.raises(ProtocolError, match="lines"):
        reader.feed(b"a=\n")


def test_ready() -> None:
    check_ready([(b"proxsmtp-worker", b"1"), (b"name", b"x")])
    for wrong in ([], [(b"proxsmtp-worker", b"2")], [(b"proxsmtp-worker", b"1")] * 2):
        with pytest.raises(ProtocolError):
            check_ready(wrong)


def test_all_edits() -> None:
    assert answer(
        b"action=pass",
        b"addheader=A b c%0A d",
        b"insheader=1 B x",
        b"chgheader=2 C y z",
        b"delheader=3 D",
        b"addrcpt=a@x",
        b"delrcpt=b@x",
        b"chgfrom=",
        b"size=0",
    ) == WorkerAnswer(
        Action.PASS,
        None,
        (
            AddHeader(b"A", b"b c\n d"),
            InsertHeader(1, b"B", b"x"),
            ChangeHeader(b"C", 2, b"y z"),
            ChangeHeader(b"D", 3, b""),
            AddRecipient(b"a@x"),
            DeleteRecipient(b"b@x"),
            ChangeSender(b""),
        ),
        0,
    )


@pytest.mark.parametrize(
    ("lines", "action", "wire"),
    [
        ([b"action=reject", b"reply=550 5.7.1 100% no"], Action.REJECT, b"550 5.7.1 100% no\r\n"),
        ([b"action=reject"], Action.REJECT, None),
        ([b"action=tempfail", b"reply=421 4.3.0 x%0D%0Ay"], Action.TEMPFAIL, b"451 4.3.0 x  y\r\n"),
        ([b"action=discard", b"reply=250 2.0.0 ok"], Action.DISCARD, b"250 2.0.0 ok\r\n"),
    ],
)
def test_refusals(lines: list[bytes], action: Action, wire: bytes | None) -> None:
    said = answer(*lines)
    assert said.action is action
    assert (said.reply.wire if said.reply else None) == wire


def test_quarantine() -> None:
    assert answer(b"action=quarantine", b"reason=bad", b"addheader=A b").edits == (
        AddHeader(b"A", b"b"),
        Quarantine("bad"),
    )


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [b"action=maybe"],
        [b"action=pass", b"action=pass"],
        [b"action=pass", b"unknown=x"],
        [b"action=pass", b"no line"],
        [b"action=pass", b" x=y"],
        [b"action=pass", b"size=-1"],
        [b"action=pass", b"size=x"],
        [b"action=pass", b"reply=550 x"],
        [b"action=reject", b"reply=450 x"],
        [b"action=reject", b"reply=no"],
        [b"action=reject", b"addheader=A b"],
        [b"action=reject", b"size=3"],
        [b"action=pass", b"addheader=A"],
        [b"action=pass", b"insheader=x A b"],
        [b"action=pass", b"delheader=1"],
        [b"action=pass", *[b"addrcpt=a@x"] * 1001],
    ],
)
def test_what_is_no_answer(lines: list[bytes]) -> None:
    with pytest.raises(ProtocolError):
        answer(*lines)


def test_a_head_without_end() -> None:
    reader = HeadReader()
    with pytest.raises(ProtocolError):
        reader.feed(b"x" * (HEAD_LIMIT + 1))


@given(
    st.lists(
        st.one_of(st.binary(max_size=20), st.sampled_from([b"action=pass\n", b"\n", b"size=1\n", b"addheader=A b\n"]))
    )
)
def test_anything_gives_an_answer_or_an_error(pieces: list[bytes]) -> None:
    reader = HeadReader()
    try:
        for piece in pieces:
            if reader.lines is None:
                reader.feed(piece)
        if reader.lines is not None:
            parse_answer(reader.lines)
    except ProtocolError:
        return
