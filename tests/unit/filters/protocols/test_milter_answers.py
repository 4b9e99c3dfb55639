"""The milter dialogue: answers, edits, replies, limits; any octets end with an answer or an error."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.filters import edits
from proxsmtp_tp.filters.protocols.errors import ProtocolError
from proxsmtp_tp.filters.protocols.milter_message import Decision, Event
from proxsmtp_tp.filters.protocols.milter_options import Steps
from proxsmtp_tp.filters.protocols.milter_packets import RECEIVED_LIMIT, PacketReader
from proxsmtp_tp.filters.protocols.milter_reply import parse_reply
from proxsmtp_tp.smtp.replies import LINES_LIMIT
from tests.unit.filters.protocols.milter_dialogue import (
    ACCEPT,
    DISCARD,
    INDEX,
    PROGRESS,
    REJECT,
    SKIP,
    TEMPFAIL,
    at_end,
    dialogue,
    judged,
)
from tests.unit.filters.protocols.milter_peer import CONTINUE, Peer, options, packet


@pytest.mark.parametrize("code", [b"C", b"H", b"M", b"T", b"L", b"N", b"B", b"E"])
def test_refusals_at_each_event(code: bytes) -> None:
    for answer, number in ((REJECT, 550), (TEMPFAIL, 451), (packet(b"4"), 451), (packet(b"y", b"554 5.7.1 no\0"), 554)):
        peer = Peer({code: [answer]})
        outcome = judged(peer)
        assert outcome.decision is Decision.REFUSE
        assert outcome.reply is not None
        assert outcome.reply.code == number
        assert peer.names().endswith(code)


@pytest.mark.parametrize("code", [b"C", b"H", b"M", b"R", b"T", b"L", b"N", b"B", b"E"])
def test_acceptance_at_each_event(code: bytes) -> None:
    peer = Peer({code: [ACCEPT]})
    assert judged(peer).decision is Decision.PASS
    assert peer.names().endswith(code)


@pytest.mark.parametrize("code", [b"M", b"R", b"T", b"L", b"N", b"B", b"E"])
def test_discard_at_each_event(code: bytes) -> None:
    assert judged(Peer({code: [DISCARD]})).decision is Decision.DISCARD


@pytest.mark.parametrize("code", [b"C", b"H"])
def test_no_discard_before_a_message(code: bytes) -> None:
    with pytest.raises(ProtocolError, match="no answer to"):
        judged(Peer({code: [DISCARD]}))


@pytest.mark.parametrize(
    ("answers", "number"),
    [
        ([REJECT, packet(CONTINUE)], 550),
        ([packet(CONTINUE), TEMPFAIL], 451),
        ([REJECT, TEMPFAIL], 451),
        ([TEMPFAIL, REJECT], 451),
        ([packet(b"y", b"553 one\0"), REJECT], 553),
        ([REJECT, ACCEPT], 550),
    ],
)
def test_a_refused_recipient_refuses_the_message(answers: list[bytes], number: int) -> None:
    peer = Peer({b"R": answers})
    outcome = judged(peer)
    assert (outcome.decision, outcome.event) == (Decision.REFUSE, Event.RCPT)
    assert outcome.reply is not None
    assert outcome.reply.code == number
    assert peer.names() == b"OCHMRR"


@pytest.mark.parametrize(
    ("code", "left"), [(b"R", b"OCHMRTLLLNBBBE"), (b"L", b"OCHMRRTLNBBBE"), (b"B", b"OCHMRRTLLLNBE")]
)
def test_skip(code: bytes, left: bytes) -> None:
    peer = Peer({code: [SKIP]})
    assert judged(peer, b"abc", 1).decision is Decision.PASS
    assert peer.names() == left


def test_skip_in_the_middle_of_a_chunk() -> None:
    peer = Peer({b"B": [SKIP]})
    judged(peer, b"x" * 300_000, 300_000)
    assert peer.names() == b"OCHMRRTLLLNBE"


def test_progress_at_any_time() -> None:
    peer = Peer({code: [PROGRESS * 3 + packet(CONTINUE)] for code in (b"C", b"B", b"E")})
    assert judged(peer).decision is Decision.PASS


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({b"C": [packet(CONTINUE) * 2]}, "an answer to no question"),
        ({b"H": [packet(b"?")]}, "no answer to helo"),
        ({b"M": [packet(b"f")]}, "its own connection failed"),
        ({b"M": [packet(b"h", b"a\0b\0")]}, "no answer to mail"),
        ({b"B": [packet(b"b", b"early")]}, "no answer to body"),
        ({b"E": [SKIP]}, "no answer to end of message"),
        ({b"E": [packet(CONTINUE) * 2]}, "more after the final answer"),
        ({b"E": [packet(b"l", b"x")]}, "no answer to end of message"),
        ({b"E": [struct.pack(">I", 0) + b"c"]}, "a packet without a code"),
        ({b"E": [struct.pack(">I", 0xFFFFFFFF) + b"h"]}, "a packet of 4294967295 octets"),
        ({b"E": [packet(b"y", b"250 ok\0")]}, "not a reply that refuses"),
        ({b"E": [packet(b"y", b"5501 no\0")]}, "not a reply that refuses"),
        ({b"E": [packet(b"h", b"a")]}, "a string without its end"),
        ({b"E": [packet(b"h", b"a\0b\0c\0")]}, "a header field of 3 strings"),
        ({b"E": [packet(b"i", b"\0\0")]}, "a header field without its number"),
        ({b"E": [packet(b"+", b"")]}, "an address of 0 strings"),
        ({b"E": [packet(b"+", b"a\0b\0c\0")]}, "an address of 3 strings"),
        ({b"E": [packet(b"h", b"a\0" + b"b" * RECEIVED_LIMIT + b"\0")]}, "a packet of"),
        ({b"E": [packet(b"h", b"a\0b\0") * 1001]}, "more than 1000 edits"),
        ({b"E": [packet(b"h", b"a\0" + b"b" * 60_000 + b"\0") * 20]}, "edits of more than 1048576 octets"),
        ({b"E": [b""]}, "closed the connection at end of message"),
        ({b"N": [packet(CONTINUE)[:3]]}, "closed the connection in the middle of a packet"),
    ],
)
def test_what_is_no_answer(answers: dict[bytes, list[bytes]], words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        judged(Peer(answers))


def test_an_answer_to_a_silent_event() -> None:
    with pytest.raises(ProtocolError, match="an answer to no question"):
        judged(Peer({b"L": [packet(CONTINUE)]}, options(steps=Steps.SILENT_HEADERS)))


# Edits.


def test_every_edit() -> None:
    outcome = at_end(
        packet(b"h", b"A\0b\0"),
        packet(b"i", INDEX(1) + b"C\0d\n e\0"),
        packet(b"m", INDEX(2) + b"Subject\0\0"),
        packet(b"e", b"<s@x>\0RET=HDRS\0"),
        packet(b"e", b"<>\0"),
        packet(b"+", b"<r@x>\0"),
        packet(b"2", b"q@x\0NOTIFY=NEVER\0"),
        packet(b"-", b"<b@example>\0"),
        packet(b"q", b"bad\0"),
        PROGRESS,
        packet(CONTINUE),
    )
    assert outcome.edits == (
        edits.AddHeader(b"A", b"b"),
        edits.InsertHeader(1, b"C", b"d\n e"),
        edits.ChangeHeader(b"Subject", 2, b""),
        edits.ChangeSender(b"s@x", b"RET=HDRS"),
        edits.ChangeSender(b""),
        edits.AddRecipient(b"r@x"),
        edits.AddRecipient(b"q@x", b"NOTIFY=NEVER"),
        edits.DeleteRecipient(b"b@example"),
        edits.Quarantine("bad"),
    )
    assert not outcome.body_replaced


def test_values_with_leading_space_are_verbatim() -> None:
    said = packet(b"h", b"A\0 b\0") + packet(b"i", INDEX(1) + b"A\0b\0") + packet(b"m", INDEX(1) + b"A\0\tb\0")
    peer = Peer({b"E": [said + ACCEPT]}, options(steps=Steps.LEADING_SPACE))
    assert judged(peer).edits == (
        edits.AddHeader(b"A", b" b", verbatim=True),
        edits.InsertHeader(1, b"A", b"b", verbatim=True),
        edits.ChangeHeader(b"A", 1, b"\tb", verbatim=True),
    )


@pytest.mark.parametrize("cut", [0, 1, 7])
@pytest.mark.parametrize(
    ("said", "body"),
    [
        (packet(b"b", b"one\ntwo\r") + packet(b"b", b"\nthree"), b"one\ntwo\r\nthree"),
        (packet(b"b"), b""),
        (packet(b"b", b"y" * 200_000), b"y" * 200_000),
    ],
)
def test_a_new_body(said: bytes, body: bytes, cut: int) -> None:
    if cut == 1 and len(body) == 200_000:
        cut = 1000
    peer = Peer({b"E": [said + packet(CONTINUE)]}, cut=cut)
    assert judged(peer).body_replaced
    assert peer.new_body == body


def test_goodbye() -> None:
    talk = dialogue()
    assert talk.goodbye() == b""
    Peer({b"E": [ACCEPT]}).run(talk)
    assert talk.goodbye() == packet(b"Q")
    talk = dialogue()
    Peer({b"M": [REJECT]}).run(talk)
    assert talk.goodbye() == packet(b"A") + packet(b"Q")


# Replies.


@pytest.mark.parametrize(
    ("payload", "wire"),
    [
        (b"550 5.7.1 100%% no\0", b"550 5.7.1 100% no\r\n"),
        (b"554 5.7.1 a % b\0", b"554 5.7.1 a % b\r\n"),
        (b"550-5.7.1 one\r\n550 5.7.1 two\0", b"550-5.7.1 one\r\n550 5.7.1 two\r\n"),
        (b"550-5.7.1 one\n550-two\n\0", b"550-5.7.1 one\r\n550 two\r\n"),
        (b"550 one\rRSET\0", b"550-one\r\n550 RSET\r\n"),
        (b"450 4.7.1 \x01bell\x07\0rest\0", b"450 4.7.1 ?bell?\r\n"),
        (b"421 4.7.0 go away\0", b"451 4.7.0 go away\r\n"),
        (b"550\0", b"550 \r\n"),
        (b"550 " + b"x" * 2000 + b"\0", b"550 " + b"x" * 506 + b"\r\n"),
    ],
)
def test_replies(payload: bytes, wire: bytes) -> None:
    assert parse_reply(payload).wire == wire


def test_a_reply_has_a_limited_number_of_lines() -> None:
    """RFC 5321 sets no limit, but every client has one."""
    assert len(parse_reply(b"550 x\r\n" * 1000 + b"\0").texts) == LINES_LIMIT


# Any octets.

_CODES = b"+-24abcdefhilmpqrstyO?"
_PACKETS = st.builds(
    lambda code, payload: packet(bytes([code]), payload),
    st.sampled_from(list(_CODES)),
    st.one_of(st.binary(max_size=40), st.sampled_from([b"a\0b\0", b"550 5.7.1 x\0", INDEX(1) + b"A\0b\0"])),
)
_NOISE = st.one_of(_PACKETS, _PACKETS, st.binary(max_size=20), st.just(packet(CONTINUE)))


@given(
    negotiated=st.one_of(
        st.builds(
            options, st.integers(0, 8), st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF), st.binary(max_size=9)
        ),
        st.binary(max_size=30),
    ),
    answers=st.dictionaries(
        st.sampled_from([bytes([code]) for code in b"CHMRTLNBE"]), st.lists(_NOISE, min_size=1, max_size=4)
    ),
    cut=st.integers(0, 5),
)
def test_anything_gives_an_answer_or_an_error(negotiated: bytes, answers: dict[bytes, list[bytes]], cut: int) -> None:
    peer = Peer(answers, negotiated, cut=cut)
    try:
        outcome = judged(peer, b"abc", 1)
    except ProtocolError:
        return
    assert (outcome.reply is not None) is (outcome.decision is Decision.REFUSE)


@given(octets=st.lists(_NOISE, max_size=8).map(b"".join), cuts=st.lists(st.integers(1, 9), min_size=1))
def test_any_segmentation_gives_the_same(octets: bytes, cuts: list[int]) -> None:
    def read(pieces: list[bytes]) -> object:
        reader, seen = PacketReader(), list[object]()
        body = b""
        try:
            for piece in pieces:
                reader.feed(piece)
                while (found := reader.next()) is not None:
                    if found.code != b"b":
                        seen.append(found)
                    body += found.payload if found.code == b"b" else b""
        except ProtocolError as error:
            seen.append(str(error))
        return seen, body

    pieces, rest, at = [], octets, 0
    while rest:
        size = cuts[at % len(cuts)]
        pieces.append(rest[:size])
        rest = rest[size:]
        at += 1
    assert read(pieces) == read([octets])
