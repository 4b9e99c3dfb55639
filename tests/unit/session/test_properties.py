"""Whatever the chunking, the same dialogue; whatever the bytes, effects or a named refusal, never an exception."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.filters.verdict import Action, Verdict
from proxsmtp_tp.session import effects, events
from proxsmtp_tp.session.options import Options
from proxsmtp_tp.session.session import TRANSITIONS, Session
from proxsmtp_tp.session.state import EXPECTED, Expect, Phase, Reason, Wait
from proxsmtp_tp.smtp.replies import Reply
from tests.unit.session.models import ModelDialogue, ModelServer

CLIENT_STREAM = (
    b"EHLO client.example\r\n"
    b"MAIL FROM:<a@client.example> SIZE=10\r\nRCPT TO:<b@mx.example>\r\nRCPT TO:<refuse@mx.example>\r\nDATA\r\n"
    b"Subject: one\r\n\r\n..dot\r\n.\r.\r\n\r\n.\r\n"
    b"STARTTLS\r\nNOOP bare\rNOOP\r\n"
    b"MAIL FROM:<>\r\nRCPT TO:<c@mx.example>\r\nDATA\r\n"
    b"Subject: two\r\n\r\nSPAM\nand a bare newline\r\n.\r\n"
    b"BDAT 5 LAST\r\nhelloRSET\r\n"
    b"MAIL FROM:<d@client.example>\r\nRCPT TO:<e@mx.example>\r\nDATA\r\n.\r\n"
    b"xyzzy\r\n" + b"x" * 3000 + b"\r\n"
)
QUIT = b"QUIT\r\n"
BARE_LF = b"NOOP bare\nMAIL FROM:<evil@client.example>\r\nNOOP\r\n"
"""The two ways in which it ends."""

FILTERED = Options(filtered=True)
STREAMED = Options()
HEADED = Options(header="X-Gateway: %i")


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Data in pieces, cut at these places."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def played(
    options: Options, client: list[int], server: list[int], *keywords: bytes, end: bytes = QUIT
) -> ModelDialogue:
    """The whole stream, played in pieces."""
    dialogue = ModelDialogue(options, lambda data: cut(data, server), ModelServer(keywords))
    dialogue.send(cut(CLIENT_STREAM + end, client))
    return dialogue


@pytest.mark.parametrize("end", [QUIT, BARE_LF])
@pytest.mark.parametrize("keywords", [(b"PIPELINING",), (b"SIZE",)])
@pytest.mark.parametrize("options", [FILTERED, STREAMED, HEADED])
@given(client=st.lists(st.integers(0, 4000), max_size=30), server=st.lists(st.integers(0, 60), max_size=4))
def test_any_chunking_gives_the_same(
    options: Options, keywords: tuple[bytes, ...], end: bytes, client: list[int], server: list[int]
) -> None:
    whole = played(options, [], [], *keywords, end=end)
    pieces = played(options, client, server, *keywords, end=end)
    assert pieces.client_got == whole.client_got
    assert pieces.server.messages == whole.server.messages
    assert pieces.server.commands == whole.server.commands
    assert pieces.closed
    assert whole.closed


def test_octet_by_octet() -> None:
    every = list(range(len(CLIENT_STREAM)))
    pieces, whole = (played(FILTERED, client, server) for client, server in ((every, list(range(100))), ([], [])))
    assert pieces.client_got == whole.client_got


def test_what_the_stream_comes_to() -> None:
    dialogue = played(FILTERED, [], [])
    assert dialogue.server.messages == [b"Subject: one\r\n\r\n..dot\r\n\r\n..\r\n\r\n", b""]
    codes = [line[:3] for line in dialogue.client_got.split(b"\r\n") if line[3:4] == b" "]
    assert codes == (b"220 250 250 250 550 354 250 502 500 250 250 354 550 451 250 250 250 354 250 250 500 221".split())


REPLIES = st.sampled_from(
    [b"220 mx\r\n", b"250 ok\r\n",
     b"250-mx\r\n250 PIPELINING\r\n", b"354 go\r\n", b"550 no\r\n", b"421 x\r\n",
     b"334 a\r\n", b"451 x\r\n", b"235 x\r\n", b"250-", b"99", b"\r\n", b"\0", b"250 a\n"]
)  # fmt: skip
LINES = st.sampled_from(
    [b"EHLO x\r\n", b"MAIL FROM:<a@b>\r\n", b"RCPT TO:<c@d>\r\n", b"DATA\r\n", b".\r\n", b"text\r\n", b"QUIT\r\n",
     b"RSET\r\n", b"AUTH LOGIN\r\n", b"AUTH", b"BDAT 3\r\n", b"BDAT x\r\n", b"\r\n.\r\n", b"\n.\n", b"\r", b"\0",
     b"STARTTLS\r\n", b"XFORWARD ADDR=1.2.3.4\r\n", b"XFORWARD ADDR=+zz\r\n", b"XCLIENT\r\n", b"y" * 3000,
     b"HELO \xff\r\n"]
)  # fmt: skip
EVENTS = st.one_of(
    LINES.map(events.ClientData),
    st.binary(max_size=40).map(events.ClientData),
    REPLIES.map(events.ServerData),
    st.binary(max_size=10).map(events.ServerData),
    st.sampled_from(
        [
            events.Connected("198.51.100.25"),
            events.ConnectFailed("no route"),
            events.ClientClosed(half=True),
            events.ClientClosed(half=False),
            events.ServerClosed(),
            events.FilterVerdict(Verdict(Action.PASS, None, "exit 0")),
            events.FilterVerdict(Verdict(Action.REJECT, Reply.of(550, "no"), "exit 1")),
            events.MessageChunk(b"chunk\r\n.\r\n"),
            events.MessageChunk(b"chunk\r\n.\r\n", last=True),
            events.MessageEnd(),
            events.MessageUnreadable("disk"),
            events.MessageTimedOut(),
            events.KeepAlive(),
            *map(events.WindDown, Reason),
            events.Shutdown(),
            *(events.DeadlinePassed(wait) for wait in Wait),
        ]
    ),
)
OPTIONS = st.sampled_from([FILTERED, STREAMED, HEADED, Options(filtered=True, refuse_bare_newlines=True, xclient=True)])


@given(options=OPTIONS, scenario=st.lists(EVENTS, max_size=60))
def test_any_order_of_events_has_an_end(options: Options, scenario: list[events.Event]) -> None:
    session = Session(options, client_ip="192.0.2.10", local_ip="192.0.2.1", clock=lambda: "today")
    session.feed(events.Connected("198.51.100.25"))
    closed = False
    for event in scenario:
        if isinstance(event, events.Connected | events.ConnectFailed):
            continue  # happened already, and happens once
        for effect in session.feed(event):
            assert not closed, "effects after the end"
            closed = isinstance(effect, effects.CloseClient)
        assert session.ended == closed
    if not closed:
        assert isinstance(session.feed(events.Shutdown())[-1], effects.CloseClient)


def test_every_phase_knows_every_event() -> None:
    of_tls = {events.ClientHelloSeen, events.ClientHelloFailed, events.TlsStarted, events.TlsFailed}
    of_tls |= {events.PassingEnded}
    assert {phase for phase in Phase if events.TlsaFound in TRANSITIONS[phase]} == {Phase.COMMAND, Phase.ENDED}
    always = set(events.Event.__args__) - {events.Connected, events.ConnectFailed, events.TlsaFound} - of_tls
    for phase in set(Phase) - {Phase.STARTING_TLS, Phase.ENCRYPTING, Phase.PASSING, Phase.ENDED}:
        assert not of_tls & set(TRANSITIONS[phase]), phase
    assert of_tls <= set(TRANSITIONS[Phase.ENDED])
    for phase in Phase:
        missing = always - set(TRANSITIONS[phase])
        assert not missing, f"{phase}: {missing}"
    for once in (events.Connected, events.ConnectFailed):
        assert [phase for phase in Phase if once in TRANSITIONS[phase]] == [Phase.GREETING, Phase.ENDED]


def test_every_expectation_says_what_may_answer_it() -> None:
    assert set(EXPECTED) == set(Expect) - {Expect.LOCAL}
    for expect, digits in EXPECTED.items():
        may_go_on = {Expect.DATA, Expect.OUR_DATA, Expect.AUTH}
        assert (3 in digits) == (expect in may_go_on)
        assert (2 in digits) == (expect not in {Expect.DATA, Expect.OUR_DATA})
