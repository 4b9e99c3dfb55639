"""What is said to a scanner, and what its answers mean: transcripts, without a socket."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxsmtp_tp.filters import scanner_endings
from proxsmtp_tp.filters.scanner_dialogue import XFORWARD_LIMIT, ScannerDialogue
from proxsmtp_tp.filters.scanner_endings import REPLIES, ScannerEnding
from proxsmtp_tp.filters.verdict import Action, Verdict
from proxsmtp_tp.smtp.envelope import Envelope
from proxsmtp_tp.smtp.replies import Reply
from tests.unit.filters.filter_harness import request

PLAIN = b"250 scanner\r\n"
GROUP = b"MAIL FROM:<alice@example.com>\r\nRCPT TO:<bob@example.net>\r\nRCPT TO:<carol@example.org>\r\nDATA\r\n"


def dialogue(**known: Any) -> ScannerDialogue:
    return ScannerDialogue(request(**known), b"gateway.example")


def offering(*keywords: str) -> bytes:
    return b"250-scanner\r\n" + b"".join(b"250-%s\r\n" % word.encode() for word in keywords) + b"250 HELP\r\n"


def introduced(*keywords: str, **known: Any) -> tuple[ScannerDialogue, bytes]:
    """Past EHLO: the dialogue, and what it says first of the message."""
    talk = dialogue(**known)
    assert talk.feed(b"220 scanner\r\n") == b"EHLO gateway.example\r\n"
    return talk, talk.feed(offering(*keywords))


def ended(talk: ScannerDialogue) -> Verdict:
    assert talk.verdict is not None
    assert talk.verdict.detail.isprintable()
    return talk.verdict


# The way through.


def test_one_command_at_a_time() -> None:
    talk = dialogue()
    heard = [talk.feed(reply) for reply in (b"220 hi\r\n", PLAIN, b"250 a\r\n", b"250 b\r\n", b"251 c\r\n")]
    assert heard == [b"EHLO gateway.example\r\n", *GROUP.splitlines(keepends=True)]
    assert not talk.flowing
    assert talk.feed(b"354 go\r\n") == b""
    assert talk.flowing
    assert talk.text(b".a\r\n") + talk.text(b"b") + talk.finish() == b"..a\r\nb\r\n.\r\n"
    assert not talk.flowing
    assert talk.feed(b"250 2.0.0 clean\r\n") == b""
    assert ended(talk) == Verdict(Action.PASS, None, "passed by the scanner: 250 2.0.0 clean")
    assert talk.between_commands


def test_all_at_once_where_the_scanner_offers_it() -> None:
    talk, said = introduced("PIPELINING")
    assert said == GROUP
    assert talk.feed(b"250 a\r\n250 b\r\n250 c\r\n354 go\r\n") == b""
    assert talk.flowing


@pytest.mark.parametrize("keywords", [(), ("PIPELINING", "XFORWARD ADDR HELO")])
def test_replies_cut_anywhere(keywords: tuple[str, ...]) -> None:
    replies = [b"220-a\r\n220 b\r\n", offering(*keywords)]
    replies += [b"250 ok\r\n"] * (5 if keywords else 3) + [b"354-go\r\n354 on\r\n"]
    whole = b"".join(replies)

    def said(cuts: list[bytes]) -> bytes:
        talk = dialogue()
        heard = b"".join(map(talk.feed, cuts))
        assert talk.flowing
        assert talk.finish() == b".\r\n"
        for octet in b"250 clean\r\n":
            assert talk.verdict is None
            talk.feed(bytes([octet]))
        assert ended(talk).action is Action.PASS
        return heard

    expected = said(replies)
    assert expected.endswith(b"DATA\r\n")
    assert said([bytes([octet]) for octet in whole]) == expected
    for at in range(1, len(whole)):
        # A reply that comes before its command is out of step, so nothing may be ahead: a cut within each reply.
        pieces, left = [], at
        for reply in replies:
            pieces += [reply[:left], reply[left:]] if 0 < left < len(reply) else [reply]
            left -= len(reply)
        assert said(pieces) == expected


def test_helo_for_who_knows_no_ehlo() -> None:
    talk = dialogue(envelope=Envelope(b"a@b.example", b"BODY=8BITMIME SMTPUTF8", [b"c@d.example"], [b""]))
    talk.feed(b"220 old\r\n")
    assert talk.feed(b"502 what?\r\n") == b"HELO gateway.example\r\n"
    assert talk.feed(b"250-old\r\n250 PIPELINING\r\n") == b"MAIL FROM:<a@b.example>\r\n"


# The envelope.


@pytest.mark.parametrize(
    ("envelope", "offered", "line"),
    [
        (Envelope(b"", b"", [b"x@y.example"], [b""]), (), b"MAIL FROM:<>"),
        (Envelope(b"", b"BODY=8BITMIME", [b"x@y.example"], [b""]), ("8BITMIME",), b"MAIL FROM:<> BODY=8BITMIME"),
        (Envelope(b"", b"body=8bitmime", [b"x@y.example"], [b""]), ("8bitmime",), b"MAIL FROM:<> BODY=8BITMIME"),
        (Envelope(b"", b"BODY=7BIT", [b"x@y.example"], [b""]), ("8BITMIME",), b"MAIL FROM:<>"),
        (Envelope(b"", b"BODY=8BITMIME SMTPUTF8", [b"x@y.example"], [b""]), (), b"MAIL FROM:<>"),
        (Envelope("ü@y.example".encode(), b"SIZE=9 SMTPUTF8 RET=HDRS ENVID=1 AUTH=<>", [b"x@y.example"], [b""]),
         ("SMTPUTF8", "SIZE", "DSN", "AUTH PLAIN"), "MAIL FROM:<ü@y.example> SMTPUTF8".encode()),
        (Envelope(b'"a>b <c"@y.example', b"", [b"x@y.example"], [b""]), (), b'MAIL FROM:<"a>b <c"@y.example>'),
    ],
)  # fmt: skip
def test_sender_and_parameters(envelope: Envelope, offered: tuple[str, ...], line: bytes) -> None:
    assert introduced(*offered, envelope=envelope)[1] == line + b"\r\n"


def test_parameters_of_recipients_are_dropped() -> None:
    envelope = Envelope(b"", b"", [b"x@y.example", b"z@y.example"], [b"NOTIFY=NEVER", b"ORCPT=rfc822;q@y.example"])
    said = introduced("PIPELINING", "DSN", envelope=envelope)[1]
    assert said == b"MAIL FROM:<>\r\nRCPT TO:<x@y.example>\r\nRCPT TO:<z@y.example>\r\nDATA\r\n"


@pytest.mark.parametrize("octet", [b"\r", b"\n", b"\0"])
@pytest.mark.parametrize("who", ["sender", "recipient"])
def test_an_address_never_becomes_a_second_command(octet: bytes, who: str) -> None:
    bad, good = b"a" + octet + b"DATA@y.example", b"b@y.example"
    envelope = Envelope(bad if who == "sender" else good, b"", [good, good if who == "sender" else bad], [b"", b""])
    talk, said = introduced("PIPELINING", envelope=envelope)
    assert said == b""
    assert ended(talk).reply == REPLIES[ScannerEnding.NOT_SENDABLE]
    assert talk.between_commands


# XFORWARD.


@pytest.mark.parametrize(
    ("known", "offered", "lines"),
    [
        ({}, "ADDR HELO", [b"ADDR=192.0.2.7", b"HELO=client.example"]),
        ({}, "NAME ADDR PROTO", [b"ADDR=192.0.2.7"]),
        ({}, "helo", [b"HELO=client.example"]),
        ({}, "NAME", []),
        ({"client": "2001:db8::7"}, "ADDR", [b"ADDR=IPV6:2001:db8::7"]),
        ({"client": "", "helo": b""}, "ADDR HELO", []),
        ({"helo": b"a b+c=d\r\nDATA"}, "HELO", [b"HELO=a+20b+2Bc+3Dd+0D+0ADATA"]),
        ({"helo": b"h" * XFORWARD_LIMIT}, "HELO", [b"HELO=" + b"h" * XFORWARD_LIMIT]),
        ({"trace_id": "01JD8Q3K7C2VA"}, "IDENT", [b"IDENT=01JD8Q3K7C2VA"]),
        ({"trace_id": ""}, "IDENT", []),
        ({"helo": b"h" * (XFORWARD_LIMIT + 1)}, "HELO", []),
        ({"remote": b"198.51.100.9", "remote_helo": b"far.example"}, "ADDR HELO",
         [b"ADDR=198.51.100.9", b"HELO=far.example"]),
        ({"remote": b"2001:db8::9"}, "ADDR HELO", [b"ADDR=IPV6:2001:db8::9"]),
    ],
)  # fmt: skip
def test_who_the_client_is(known: dict[str, Any], offered: str, lines: list[bytes]) -> None:
    said = introduced("PIPELINING", f"XFORWARD {offered}", **known)[1]
    assert said == b"".join(b"XFORWARD %s\r\n" % line for line in lines) + GROUP
    assert all(len(line) <= 512 for line in said.splitlines(keepends=True))


def test_xforward_is_not_sent_where_it_is_not_offered() -> None:
    assert introduced("PIPELINING", "XCLIENT ADDR")[1] == GROUP


@pytest.mark.parametrize("code", [450, 501, 550])
def test_a_scanner_that_refuses_xforward_still_judges(code: int) -> None:
    talk, said = introduced("XFORWARD ADDR HELO")
    assert said == b"XFORWARD ADDR=192.0.2.7\r\n"
    assert talk.feed(b"%d no\r\n" % code) == b"XFORWARD HELO=client.example\r\n"
    assert talk.feed(b"501 never\r\n") == b"MAIL FROM:<alice@example.com>\r\n"
    assert talk.verdict is None
    assert talk.remark == f"the scanner refuses XFORWARD, which it offers: {code} no"


# Refusals.

FAR = [b"220 hi\r\n", PLAIN, b"250 a\r\n", b"250 b\r\n", b"250 c\r\n", b"354 go\r\n"]
NAMES = ["the connection", "EHLO", "MAIL", "RCPT", "RCPT", "DATA"]


def at(step: int, *, pipelining: bool = False) -> ScannerDialogue:
    """The scanner has to answer NAMES[step]; 6: it reads the text; 7: it has to answer the message."""
    talk = dialogue()
    for number, reply in enumerate(FAR[:step]):
        talk.feed(offering("PIPELINING") if pipelining and number == 1 else reply)
    if step > 5:
        talk.text(b"hello\r\n")
    if step > 6:
        talk.finish()
    assert talk.verdict is None
    return talk


@pytest.mark.parametrize("pipelining", [False, True])
@pytest.mark.parametrize("step", [2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize(
    ("said", "action", "told"),
    [
        (b"550 5.7.1 Virus", Action.REJECT, b"550 5.7.1 Virus"),
        (b"554", Action.REJECT, b"554 Content Rejected"),
        (b"451 4.7.1 later", Action.TEMPFAIL, b"451 4.7.1 later"),
        (b"421 4.3.2 going down", Action.TEMPFAIL, b"451 4.3.2 going down"),
        (b"530 Email Rejected", Action.REJECT, b"530 Email Rejected"),
        (b"501 5.1.7 address", Action.REJECT, b"501 5.1.7 address"),
    ],
)
def test_a_refusal_is_the_verdict(step: int, said: bytes, action: Action, told: bytes, pipelining: bool) -> None:
    talk = at(step, pipelining=pipelining)
    assert talk.feed(said + b"\r\n") == b""
    verdict = ended(talk)
    assert verdict.action is action
    assert verdict.reply is not None
    assert verdict.reply.wire == told + b"\r\n"
    assert told.decode().startswith(verdict.said)
    where = [*NAMES, "a part of the message", "the message"][step]
    assert verdict.detail == f"refused by the scanner: {where}"
    # In the middle of a group or of the text, a QUIT would be read as something else.
    assert talk.between_commands == (step == 7 or (step < 6 and not pipelining) or (step == 5 and pipelining))


def test_the_first_refusal_of_a_group_counts() -> None:
    talk = at(2, pipelining=True)
    talk.feed(b"250 a\r\n452 4.5.3 too many\r\n550 no such\r\n354 go\r\n250 queued\r\n")
    assert ended(talk).said == "452 4.5.3 too many"
    talk.closed("end of file")
    assert ended(talk).said == "452 4.5.3 too many"


@pytest.mark.parametrize("step", [2, 3, 4, 5])
@pytest.mark.parametrize("code", [500, 502, 503, 504])
def test_a_scanner_that_does_not_understand_us_bounces_no_mail(step: int, code: int) -> None:
    talk = at(step)
    talk.feed(b"%d 5.5.1 what\r\n" % code)
    assert ended(talk).reply == REPLIES[ScannerEnding.OUT_OF_STEP]
    assert ended(talk).said == ""
    assert ended(talk).detail.endswith(f"{NAMES[step]} was answered with: {code} 5.5.1 what")


@pytest.mark.parametrize("code", [500, 502, 503, 504])
def test_of_the_whole_message_any_refusal_is_a_judgement(code: int) -> None:
    talk = at(7)
    talk.feed(b"%d no\r\n" % code)
    assert ended(talk).action is Action.REJECT


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("code", [421, 450])
def test_a_scanner_that_does_not_serve_now(step: int, code: int) -> None:
    talk = at(step)
    assert talk.feed(b"%d 4.3.2 busy\r\n" % code) == b""
    assert ended(talk).reply == REPLIES[ScannerEnding.UNWILLING]
    assert ended(talk).detail.endswith(f"{NAMES[step]} was answered with: {code} 4.3.2 busy")


def test_a_scanner_that_never_serves_bounces_no_mail() -> None:
    talk = at(0)
    talk.feed(b"554 5.3.2 no\r\n")
    assert ended(talk).reply == REPLIES[ScannerEnding.UNWILLING]
    talk = at(1)
    assert talk.feed(b"550 no\r\n") == b"HELO gateway.example\r\n"
    talk.feed(b"550 really no\r\n")
    assert ended(talk).reply == REPLIES[ScannerEnding.UNWILLING]
    assert "HELO was answered with: 550 really no" in ended(talk).detail


# Out of step.


@pytest.mark.parametrize(
    ("step", "said"),
    [
        *[(step, b"354 go") for step in (0, 1, 2, 3, 4, 6, 7)],
        *[(step, b"250 ok") for step in (5, 6)],
        *[(step, b"hello") for step in range(8)],
        *[(step, b"199 hm") for step in range(8)],
        *[(step, b"600 hm") for step in range(8)],
        *[(step, b"250-a\r\n550 b") for step in range(8)],
        (0, b"220 hi\r\n250 too early"),
        (4, b"250 c\r\n354 go"),
        (5, b"354 go\r\n250 queued"),
        (5, b"354 go\r\n354 go"),
    ],
)
def test_what_answers_nothing_is_no_verdict(step: int, said: bytes) -> None:
    talk = at(step)
    talk.feed(said + b"\r\n")
    assert ended(talk).reply == REPLIES[ScannerEnding.OUT_OF_STEP]
    assert ended(talk).said == ""
    assert not talk.between_commands


def test_an_intermediate_reply_to_xforward_is_out_of_step() -> None:
    talk, _ = introduced("XFORWARD ADDR")
    talk.feed(b"334 \r\n")
    assert ended(talk).reply == REPLIES[ScannerEnding.OUT_OF_STEP]


@pytest.mark.parametrize("step", range(8))
def test_the_end_of_a_scanner_is_no_verdict(step: int) -> None:
    talk = at(step)
    talk.closed("end of file")
    assert ended(talk).reply == REPLIES[ScannerEnding.LOST]
    waited = [*NAMES, "space for the message", "the message"][step]
    assert ended(talk).detail.endswith(f"end of file, while waiting for: {waited}")


def test_what_follows_the_verdict_is_ignored() -> None:
    talk = at(7)
    talk.feed(b"250 clean\r\n421 bye\r\nrubbish\r\n")
    assert talk.feed(b"550 no\r\n") == b""
    talk.closed("reset")
    assert ended(talk).action is Action.PASS


# Words.


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (b"550-5.7.1 Virus\r\n550-5.7.1 found:\r\n550 5.7.1 EICAR\r\n", b"550 5.7.1 Virus found: EICAR\r\n"),
        (b"550-Virus\r\n550-\r\n550  5.7.1 found \r\n", b"550 Virus 5.7.1 found\r\n"),
        (b"550-\r\n550 last\r\n", b"550 last\r\n"),
        (b"550-\r\n550\r\n", b"550 Content Rejected\r\n"),
        (b"450\r\n", b"450 Content Not Accepted Now\r\n"),
        (b"550 a\rb\x1b[31mc\x7f\xc3\xbc\x00\r\n", b"550 a b?[31mc????\r\n"),
        (b"550 " + b"x" * 2000 + b"\r\n", b"550 " + b"x" * 506 + b"\r\n"),
        (b"550 ok\n", b"550 ok\r\n"),
    ],
)
def test_words_become_one_printable_line(lines: bytes, told: bytes) -> None:
    talk = at(7)
    talk.feed(lines)
    reply = ended(talk).reply
    assert reply is not None
    assert reply.wire == told
    assert ended(talk).said.isprintable()


def test_a_long_reply_is_bounded_in_the_log() -> None:
    reply = Reply.joined(550, [b"y" * 500] * 100)
    assert len(scanner_endings.refused(reply, "DATA").said) <= 1030
    assert len(scanner_endings.shown(reply)) <= 512


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from([b"220 a\r\n", b"250 a\r\n", b"354 a\r\n", b"550 a\r\n", b"421 a\r\n", b"250-", b"END"]),
            st.binary(max_size=20),
        ),
        max_size=15,
    )
)
def test_whatever_a_scanner_says(said: list[bytes]) -> None:
    """No exception; PASS only for a message that was finished; commands are whole lines."""
    talk = dialogue()
    finished = False
    for piece in said:
        if piece == b"END":
            if talk.flowing and talk.verdict is None:
                talk.finish()
                finished = True
            continue
        answer = talk.feed(piece)
        assert answer == b"" or answer.endswith(b"\r\n")
        if talk.verdict is not None and talk.verdict.action is Action.PASS:
            assert finished
