"""The milter dialogue: negotiation, events, macros."""

from __future__ import annotations

import pytest

from proxsmtp_tp.filters.protocols import milter
from proxsmtp_tp.filters.protocols.errors import ProtocolError
from proxsmtp_tp.filters.protocols.milter import FIELD_TOO_LONG
from proxsmtp_tp.filters.protocols.milter_message import Decision, Event, Outcome
from proxsmtp_tp.filters.protocols.milter_options import OFFER, Steps
from proxsmtp_tp.smtp.envelope import Envelope
from tests.unit.filters.protocols.milter_dialogue import (
    ALL_EVENTS,
    INDEX,
    SILENT,
    dialogue,
    judged,
)
from tests.unit.filters.protocols.milter_peer import Peer, options, packet


def test_offer() -> None:
    assert bytes.fromhex("0000000d 4f 00000006 000001ff 001ff7ff") == OFFER


def test_events_in_order() -> None:
    peer = Peer()
    outcome = judged(peer)
    assert outcome == Outcome(Decision.PASS, Event.END)
    assert peer.names() == ALL_EVENTS
    said = [payload for code, payload in peer.events if code not in b"DO"]
    assert said == [
        b"[192.0.2.7]\0004\x12\x67192.0.2.7\0",
        b"client.example\0",
        b"<a@example>\0SIZE=10\0BODY=8BITMIME\0",
        b"<b@example>\0",
        b"<c@example>\0NOTIFY=NEVER\0",
        b"",
        b"Subject\0one\n two\0",
        b"X\0y\0",
        b"Subject\0\tthree \0",
        b"",
        b"Hello\r\n",
        b"",
    ]


def test_ipv6_client() -> None:
    peer = Peer()
    judged(peer, client="2001:db8::1", name=b"mx.example")
    assert peer.events[2][1] == b"mx.example\0006\x12\x67IPv6:2001:db8::1\0"


def test_client_without_an_address() -> None:
    peer = Peer()
    judged(peer, client="", name=b"localhost")
    assert peer.events[2][1] == b"localhost\0U"


def test_leading_space_is_shown_if_the_filter_wants_it() -> None:
    peer = Peer(negotiated=options(steps=Steps.LEADING_SPACE))
    judged(peer, fields=[(b"A", b" b"), (b"C", b"d")])
    assert [payload for code, payload in peer.events if code == b"L"] == [b"A\0 b\0", b"C\0d\0"]


@pytest.mark.parametrize(
    ("steps", "left"),
    [
        (Steps.NO_CONNECT, b"OHMRRTLLLNBE"),
        (Steps.NO_HELO, b"OCMRRTLLLNBE"),
        (Steps.NO_MAIL, b"OCHRRTLLLNBE"),
        (Steps.NO_RCPT, b"OCHMTLLLNBE"),
        (Steps.NO_DATA, b"OCHMRRLLLNBE"),
        (Steps.NO_HEADERS, b"OCHMRRTNBE"),
        (Steps.NO_END_OF_HEADER, b"OCHMRRTLLLBE"),
        (Steps.NO_BODY, b"OCHMRRTLLLNE"),
        (Steps.REJECTED_RECIPIENTS, ALL_EVENTS),
        (0x7F, b"OTE"),
    ],
)
def test_events_that_are_not_wanted(steps: int, left: bytes) -> None:
    peer = Peer(negotiated=options(steps=steps))
    assert judged(peer).decision is Decision.PASS
    assert peer.names() == left
    assert peer.macros(b"C")[b"j"] == b"gw.example"  # macros come also without their event


@pytest.mark.parametrize("bit", [0x80, 0x1000, 0x2000, 0x4000, 0x8000, 0x10000, 0x40000, 0x80000, SILENT])
def test_events_without_an_answer(bit: int) -> None:
    codes = {0x80: b"L", 0x1000: b"C", 0x2000: b"H", 0x4000: b"M", 0x8000: b"R", 0x10000: b"T", 0x40000: b"N"}
    silent = codes.get(bit, b"B" if bit == 0x80000 else b"LCHMRTNB")
    peer = Peer({silent[at : at + 1]: [b""] for at in range(len(silent))}, options(steps=bit))
    assert judged(peer, b"x" * 200_000, 100_000).decision is Decision.PASS


@pytest.mark.parametrize("version", [2, 3, 4, 5, 6])
def test_older_versions_get_no_newer_event(version: int) -> None:
    peer = Peer(negotiated=options(version, steps=SILENT if version < 6 else 0))
    assert judged(peer).decision is Decision.PASS
    assert peer.names() == (ALL_EVENTS if version > 3 else b"OCHMRRLLLNBE")
    assert bool(peer.macros(b"T")) is (version > 3)


def test_no_helo_no_event() -> None:
    peer = Peer()
    judged(peer, helo=b"")
    assert b"H" not in peer.names()


def test_the_null_sender() -> None:
    peer = Peer()
    judged(peer, envelope=Envelope(b"", b"", [b"b@example"], [b""]))
    assert (b"M", b"<>\0") in peer.events


@pytest.mark.parametrize("chunk", [1, 65_535, 65_536, 200_000])
def test_body_in_chunks_that_libmilter_takes(chunk: int) -> None:
    body = b"x" * 150_000 if chunk > 1 else b"x" * 30
    peer = Peer()
    judged(peer, body, chunk)
    pieces = [payload for code, payload in peer.events if code == b"B"]
    assert b"".join(pieces) == body
    assert max(map(len, pieces)) <= 65_535
    assert peer.events[-1] == (b"E", b"")


@pytest.mark.parametrize(("size", "decision"), [(65_528, Decision.PASS), (65_529, Decision.REFUSE)])
def test_a_field_that_no_packet_holds(size: int, decision: Decision) -> None:
    outcome = judged(Peer(), fields=[(b"Long-", b" " + b"x" * size)])
    assert outcome.decision is decision
    assert outcome.reply == (FIELD_TOO_LONG if decision is Decision.REFUSE else None)


# Macros.


def test_macros_of_each_stage() -> None:
    peer = Peer()
    judged(peer)
    assert peer.macros(b"C") == {b"j": b"gw.example", b"_": b"unknown [192.0.2.7]"}
    assert peer.macros(b"H") == {}
    assert peer.macros(b"M")[b"i"] == b"ID1"
    assert peer.macros(b"M")[b"{mail_addr}"] == b"a@example"
    assert peer.macros(b"R")[b"{rcpt_addr}"] == b"c@example"
    assert peer.macros(b"N") == peer.macros(b"E") == {b"i": b"ID1"}


def test_macros_that_the_filter_names() -> None:
    lists = INDEX(0) + b"{j} {xy}, _\0" + INDEX(3) + b"{rcpt_addr}\0" + INDEX(5) + b"\0"
    peer = Peer(negotiated=options(lists=lists))
    judged(peer, macros={b"j": b"1", b"{xy}": b"2", b"_": b"3", b"i": b"4"})
    assert peer.macros(b"C") == {b"j": b"1", b"{xy}": b"2", b"_": b"3"}
    assert peer.macros(b"R") == {b"{rcpt_addr}": b"c@example"}
    assert peer.macros(b"E") == {}
    assert peer.macros(b"N") == {b"i": b"4"}


def test_a_macro_that_no_packet_holds_is_left_out() -> None:
    """libmilter would close the connection."""
    peer = Peer()
    judged(peer, macros={b"j": b"gw.example", b"_": b"x" * 65_530, b"i": b"ID1"})
    assert peer.macros(b"C") == {b"j": b"gw.example"}


# Negotiation.


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        packet(b"c"),
        packet(b"O", b"\0" * 11),
        options(1),
        options(7),
        options(lists=b"\0"),
        options(lists=INDEX(0) + b"j"),
        options(lists=INDEX(7) + b"j\0"),
        options()[:-1],
        packet(b"t"),
    ],
)
def test_no_negotiation(answer: bytes) -> None:
    with pytest.raises(ProtocolError):
        judged(Peer(negotiated=answer))


def test_bits_that_were_not_offered_are_ignored() -> None:
    peer = Peer(negotiated=options(actions=0xFFFFFFFF, steps=0xFFE00000 | 0x800))
    assert judged(peer).decision is Decision.PASS
    assert peer.names() == ALL_EVENTS


def test_output_is_limited() -> None:
    fields = [(b"X", b" " + b"y" * 60_000)] * 20
    talk = dialogue(fields=fields)
    talk.output()
    talk.feed(options(steps=SILENT))
    while sent := talk.output():
        assert len(sent) < milter.OUTPUT + 65_540
