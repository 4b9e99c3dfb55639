"""The filters want another envelope: what the server is told after the verdict, and what its answers mean."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.filters.verdict import Action, Verdict
from proxsmtp_tp.session.changed_envelope import GROUP
from proxsmtp_tp.session.effects import CloseClient, CloseServer, FilterAbort, ReadMessage, SendClient, SendServer
from proxsmtp_tp.session.events import (
    AnswerLate,
    ClientClosed,
    Event,
    FilterVerdict,
    MessageChunk,
    MessageEnd,
    MessageUnreadable,
    ServerClosed,
    ServerData,
)
from proxsmtp_tp.session.options import Options
from proxsmtp_tp.smtp.envelope import Envelope
from proxsmtp_tp.telemetry.facts import FilterJudged
from tests.unit.session.playbook import C, Playbook, S, client, fed, introduced, logged, server

FILTERED = Options(filtered=True)
TEXT = b"Subject: x\r\n\r\nbody\r\n"
NEW = Envelope(b"a@client.example", b"", [b"b@mx.example", b"new@mx.example"], [b"", b""])
OTHER = Envelope(b"other@client.example", b"SIZE=7 BODY=8BITMIME RET=HDRS", [b"c@mx.example"], [b"NOTIFY=NEVER"])


def judging(*keywords: str, forwarded: str = "") -> Playbook:
    """A message has been sent to the filter; the verdict is awaited."""
    play = introduced(FILTERED, *keywords)
    commands = [forwarded] if forwarded else []
    for command in (*commands, "MAIL FROM:<a@client.example>", "RCPT TO:<b@mx.example>"):
        play.session.feed(C(command))
        play.session.feed(S("250 ok"))
    play.session.feed(C("DATA"))
    play.session.feed(C(TEXT + b".\r\n"))
    return play


def passed(envelope: Envelope | None) -> FilterVerdict:
    return FilterVerdict(Verdict(Action.PASS, None, "passed", size=len(TEXT), envelope=envelope))


def delivered(play: Playbook) -> Playbook:
    """From our DATA to the final reply."""
    return (
        play
        >> S("354 go")
        << ReadMessage()
        >> MessageChunk(TEXT)
        << server(TEXT)
        >> MessageEnd()
        << server(b".\r\n")
        << FilterAbort()
        >> S("250 queued")
        << client("250 queued")
    )


def test_the_same_envelope_is_no_change() -> None:
    same = Envelope(b"a@client.example", b"", [b"b@mx.example"], [b""])
    assert delivered(judging() >> passed(same) << server("DATA"))


def test_one_more_recipient_is_one_more_rcpt() -> None:
    play = judging() >> passed(NEW) << server("RCPT TO:<new@mx.example>") >> S("250 ok") << server("DATA")
    assert delivered(play)


def test_another_sender_begins_the_transaction_again() -> None:
    play = (
        judging("DSN", "SIZE 1000000")
        >> passed(OTHER)
        << server("RSET")
        >> S("250 ok")
        << server(f"MAIL FROM:<other@client.example> SIZE={len(TEXT)} BODY=8BITMIME RET=HDRS")
        >> S("250 ok")
        << server("RCPT TO:<c@mx.example> NOTIFY=NEVER")
        >> S("250 ok")
        << server("DATA")
    )
    assert delivered(play)


@pytest.mark.parametrize(
    ("parameters", "of_recipient", "mail", "rcpt"),
    [(b"RET=HDRS", b"", " RET=HDRS", ""), (b"", b"NOTIFY=NEVER", "", " NOTIFY=NEVER")],
)
def test_other_parameters_are_another_envelope(parameters: bytes, of_recipient: bytes, mail: str, rcpt: str) -> None:
    wanted = Envelope(b"a@client.example", parameters, [b"b@mx.example"], [of_recipient])
    play = judging("DSN", "PIPELINING") >> passed(wanted)
    play = play << server(f"RSET\nMAIL FROM:<a@client.example>{mail}\nRCPT TO:<b@mx.example>{rcpt}")
    assert delivered(play >> S("250 ok\n250 ok\n250 ok") << server("DATA"))


def test_size_includes_our_header_field() -> None:
    play = introduced(Options(filtered=True, header="X-Filtered: yes"), "PIPELINING", "SIZE 1000000")
    for command in ("MAIL FROM:<a@client.example> SIZE=1", "RCPT TO:<b@mx.example>"):
        play.session.feed(C(command))
        play.session.feed(S("250 ok"))
    play.session.feed(C("DATA"))
    play.session.feed(C(TEXT + b".\r\n"))
    size = len(TEXT) + len(b"X-Filtered: yes\r\n")
    wanted = Envelope(b"", b"SIZE=1", [b"b@mx.example"], [b""])
    assert play >> passed(wanted) << server(f"RSET\nMAIL FROM:<> SIZE={size}\nRCPT TO:<b@mx.example>")


def test_with_pipelining_it_is_one_group() -> None:
    play = (
        judging("PIPELINING")
        >> passed(OTHER)
        << server(
            f"RSET\nMAIL FROM:<other@client.example> SIZE={len(TEXT)} BODY=8BITMIME\nRCPT TO:<c@mx.example>"
        )  # without DSN no RET and no NOTIFY
        >> S("250 ok\n250 ok\n250 ok")
        << server("DATA")
    )
    assert delivered(play)


@pytest.mark.parametrize("keywords", [(), ("PIPELINING",)])
def test_many_recipients_are_sent_in_groups(keywords: tuple[str, ...]) -> None:
    """A client may name 10,000: one event sends so many commands, and other connections are served before the rest."""
    play = judging(*keywords)
    many = [b"r%d@mx.example" % number for number in range(3 * GROUP)]
    got = [play.session.feed(passed(Envelope(b"other@x.example", b"", many, [b""] * len(many))))]
    commands = 2 + len(many)
    got += [play.session.feed(S("250 ok")) for _ in range(commands)]
    sent = [b"".join(each.data for each in given if isinstance(each, SendServer)) for given in got]
    assert max(each.count(b"\r\n") for each in sent) == (GROUP if keywords else 1)
    wanted = [b"RSET", b"MAIL FROM:<other@x.example>", *(b"RCPT TO:<%s>" % address for address in many), b"DATA", b""]
    assert b"".join(sent) == b"\r\n".join(wanted)
    assert play


def test_a_refusal_among_many_recipients() -> None:
    """Nothing more is sent; the client hears of it when the server has answered what it got."""
    play = judging("PIPELINING")
    many = [b"r%d@mx.example" % number for number in range(3 * GROUP)]
    play.session.feed(passed(Envelope(b"other@x.example", b"", many, [b""] * len(many))))
    for reply in ("250 ok", "250 ok", "550 no"):
        given = fed(play.session, S(reply))
    for _ in range(GROUP - 1):
        assert not [each for each in given if isinstance(each, SendServer | SendClient)]
        given = fed(play.session, S("250 ok"))
    assert [each.data[:4] for each in given if isinstance(each, SendServer | SendClient)] == [b"451 ", b"RSET"]
    assert play


def test_xforward_is_sent_again() -> None:
    play = (
        judging("XFORWARD NAME ADDR", forwarded="XFORWARD NAME=x.example ADDR=192.0.2.77")
        >> passed(OTHER)
        << server("RSET")
        >> S("250 ok")
        << server("XFORWARD NAME=x.example ADDR=192.0.2.77")
        >> S("250 ok")
        << server(f"MAIL FROM:<other@client.example> SIZE={len(TEXT)} BODY=8BITMIME")
        >> S("250 ok")
        << server("RCPT TO:<c@mx.example>")
        >> S("250 ok")
        << server("DATA")
    )
    assert delivered(play)


def test_a_refused_recipient_is_451_and_nothing_is_sent() -> None:
    play = judging() >> passed(NEW) << server("RCPT TO:<new@mx.example>") >> S("550 5.1.1 unknown")
    words = "451 4.3.0 The server refuses the changed envelope: 550 5.1.1 unknown"
    assert (
        play << FilterAbort() << client(words) << server("RSET") >> S("250 ok") >> C("NOOP") << server("NOOP")
    )  # the session goes on
    assert any("to=new@mx.example" in line and "refused=RCPT" in line for line in play.logged)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_refusal_without_pipelining_stops_the_rest(at: int) -> None:
    play = judging() >> passed(OTHER) << server("RSET")
    sent = [f"MAIL FROM:<other@client.example> SIZE={len(TEXT)} BODY=8BITMIME", "RCPT TO:<c@mx.example>"]
    for command in sent[:at]:
        play = play >> S("250 ok") << server(command)
    words = "451 4.3.0 The server refuses the changed envelope: 450 4.2.0 later"
    assert play >> S("450 4.2.0 later") << FilterAbort() << client(words) << server("RSET")


def test_a_refusal_in_a_group_waits_for_all_replies() -> None:
    play = judging("PIPELINING") >> passed(Envelope(b"", b"", [b"c@mx.example", b"d@mx.example"], [b"", b""]))
    words = "451 4.3.0 The server refuses the changed envelope: 550 5.1.8 no such sender"
    assert (
        play
        << server("RSET\nMAIL FROM:<>\nRCPT TO:<c@mx.example>\nRCPT TO:<d@mx.example>")
        >> S("250 ok\n550 5.1.8 no such sender\n503 no")
        >> S("503 no")
        << FilterAbort()
        << client(words)
        << server("RSET")
    )
    assert any("refused=MAIL" in line and "from=<>" in line for line in play.logged)


def test_the_server_leaves_in_between() -> None:
    play = judging() >> passed(NEW) << server("RCPT TO:<new@mx.example>") >> S("421 4.3.2 bye")
    assert play << CloseServer(abort=True) << client("421 4.3.2 bye") << FilterAbort() << CloseClient()
    play = judging() >> passed(NEW) << server("RCPT TO:<new@mx.example>") >> ServerClosed()
    assert play << client("421 4.4.2 Lost connection with the server") << FilterAbort() << CloseClient()


def test_the_client_leaves_in_between() -> None:
    play = judging() >> passed(NEW) << server("RCPT TO:<new@mx.example>") >> ClientClosed(half=False)
    assert play << CloseServer(abort=True) << FilterAbort() << CloseClient()


def test_a_reply_that_cannot_answer_ends_the_session() -> None:
    play = judging() >> passed(NEW) << server("RCPT TO:<new@mx.example>") >> S("354 go")
    words = "421 4.3.0 The server's replies do not fit the commands, closing"
    assert play << CloseServer(abort=True) << client(words) << FilterAbort() << CloseClient()


def test_the_next_message_has_its_own_envelope() -> None:
    play = delivered(judging() >> passed(NEW) << server("RCPT TO:<new@mx.example>") >> S("250 ok") << server("DATA"))
    assert (
        play
        >> C("MAIL FROM:<next@client.example>")
        << server("MAIL FROM:<next@client.example>")
        >> S("250 ok")
        << client("250 ok")
    )
    assert play.session.envelope == [b"next@client.example"]


# AnswerWithin: the client will give up soon.

LATE = "451 4.4.7 The message could not be checked and sent in time, try again later"
GONE = "421 4.4.2 Lost connection with the server"


def test_late_while_the_filter_judges() -> None:
    play = judging() >> AnswerLate() << FilterAbort() << client(LATE) << server("RSET")
    assert play >> passed(None) >> S("250 ok") >> C("NOOP") << server("NOOP")


def test_late_while_the_server_answers_a_command() -> None:
    play = judging() >> passed(NEW) << server("RCPT TO:<new@mx.example>") >> AnswerLate()
    assert play << CloseServer(abort=True) << FilterAbort() << client(f"{LATE}\n{GONE}") << CloseClient()


def test_late_while_the_server_answers_data() -> None:
    """It may answer 354, and would wait for the text."""
    play = judging() >> passed(None) << server("DATA") >> AnswerLate()
    assert play << CloseServer(abort=True) << FilterAbort() << client(f"{LATE}\n{GONE}") << CloseClient()


def test_late_while_the_message_is_sent() -> None:
    play = judging() >> passed(None) << server("DATA") >> S("354 go") << ReadMessage() >> MessageChunk(TEXT)
    play = play << server(TEXT) >> AnswerLate()
    assert play << CloseServer(abort=True) << FilterAbort() << client(f"{LATE}\n{GONE}") << CloseClient()


def test_late_after_the_end_of_data_only_the_server_counts() -> None:
    play = judging() >> passed(None) << server("DATA") >> S("354 go") << ReadMessage() >> MessageChunk(TEXT)
    play = play << server(TEXT) >> MessageEnd() << server(b".\r\n") << FilterAbort() >> AnswerLate()
    assert play >> S("250 queued") << client("250 queued")


# Whatever happens after the verdict.

JUDGED = Verdict(Action.PASS, None, "passed", len(TEXT), envelope=NEW, judged=(FilterJudged("f", "edit", 0.25, ""),))


@pytest.mark.parametrize(
    "then",
    [
        [S("550 5.1.1 unknown")],
        [S("250 ok"), S("450 4.2.0 later")],
        [S("250 ok"), AnswerLate()],
        [S("250 ok"), S("354 go"), MessageChunk(b"Subject: "), AnswerLate()],
        [S("250 ok"), S("354 go"), MessageChunk(b"Subject: "), MessageUnreadable("lost")],
        [S("250 ok"), S("354 go"), MessageChunk(b"Subject: "), S("550 5.7.1 no")],
        [S("250 ok"), S("354 go"), MessageChunk(TEXT), MessageEnd(), S("550 5.7.1 no")],
    ],
)
def test_the_line_of_the_message_has_the_verdict_of_each_filter(then: list[Event]) -> None:
    play = judging()
    assert play
    lines = [line for event in (FilterVerdict(JUDGED), *then) for line in logged(fed(play.session, event))]
    (line,) = [line for line in lines if "status=" in line and "refused=" not in line.partition("status=")[0]]
    assert "filters=f:edit:0.250" in line
    assert ("changed=no" in line) == (MessageEnd() in then)  # a part of it says nothing


# Whatever the filters want, the server has exactly that before DATA, or gets nothing.

ADDRESSES = st.sampled_from([b"b@mx.example", b"c@mx.example", b"d@mx.example", b"refuse@mx.example"])


class Server:
    """Keeps the envelope that the commands make."""

    def __init__(self) -> None:
        self.sender: bytes | None = None
        self.recipients: list[bytes] = []
        self.at_data: tuple[bytes | None, list[bytes]] | None = None
        self.text = b""

    def answer(self, line: bytes) -> bytes:
        address = line[line.find(b"<") + 1 : line.find(b">")]
        if b"refuse" in address:
            return b"550 no\r\n"
        if line.startswith(b"MAIL"):
            self.sender, self.recipients = address, []
        elif line.startswith(b"RCPT"):
            if self.sender is None:
                return b"503 MAIL first\r\n"
            self.recipients.append(address)
        elif line == b"RSET":
            self.sender, self.recipients = None, []
        elif line == b"DATA":
            self.at_data = (self.sender, list(self.recipients))
            return b"354 go\r\n"
        return b"250 ok\r\n"


@given(
    st.booleans(),
    st.sampled_from([b"a@client.example", b"x@client.example", b"", b"refuse@client.example"]),
    st.lists(ADDRESSES, min_size=1, max_size=4, unique=True),
)
def test_the_server_has_the_wanted_envelope_or_nothing(
    pipelining: bool, sender: bytes, recipients: list[bytes]
) -> None:
    play, model = judging(*(["PIPELINING"] if pipelining else [])), Server()
    assert play
    session = play.session
    model.sender, model.recipients = b"a@client.example", [b"b@mx.example"]
    effects = fed(session, passed(Envelope(sender, b"", recipients, [b""] * len(recipients))))
    heard = b""
    while effects:
        sent = b"".join(effect.data for effect in effects if isinstance(effect, SendServer))
        heard += b"".join(effect.data for effect in effects if isinstance(effect, SendClient))
        answers = b"".join(model.answer(line) for line in sent.splitlines())
        effects = fed(session, ServerData(answers)) if answers else []
    refused = b"refuse" in sender or any(b"refuse" in each for each in recipients)
    if refused:
        assert model.at_data is None
        assert heard.startswith(b"451 4.3.0 The server refuses the changed envelope: 550 no")
        assert model.sender is None  # our RSET
    else:
        assert model.at_data is not None
        assert model.at_data[0] == sender
        assert sorted(model.at_data[1]) == sorted(recipients)


def test_our_trace_id_is_sent_again_and_its_refusal_does_not_matter() -> None:
    play = judging("PIPELINING", "XFORWARD ADDR IDENT")
    play.session._d.trace_id = "01JD8Q3K7C2VA"
    play = play >> passed(Envelope(b"", b"", [b"c@mx.example"], [b""]))
    play = play << server("RSET\nXFORWARD IDENT=01JD8Q3K7C2VA\nMAIL FROM:<>\nRCPT TO:<c@mx.example>")
    assert delivered(play >> S("250 ok\n501 no\n250 ok\n250 ok") << server("DATA"))
