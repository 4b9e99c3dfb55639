"""Messages: through a filter, without one, and every way in which one may end early."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.filters.verdict import Action, Verdict
from proxsmtp_tp.session import effects
from proxsmtp_tp.session.effects import (
    CloseClient,
    CloseServer,
    FilterAbort,
    FilterData,
    FilterFinish,
    ReadMessage,
    StartFilter,
)
from proxsmtp_tp.session.events import (
    ClientClosed,
    Connected,
    DeadlinePassed,
    FilterVerdict,
    KeepAlive,
    MessageChunk,
    MessageEnd,
    MessageTimedOut,
    MessageUnreadable,
    ServerClosed,
    Shutdown,
)
from proxsmtp_tp.session.options import Options
from proxsmtp_tp.session.state import Wait
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.smtp.envelope import Envelope
from proxsmtp_tp.smtp.login import Login
from proxsmtp_tp.smtp.replies import LINE_LIMIT, Reply
from proxsmtp_tp.telemetry.counters import Counter
from tests.attributes import attributes
from tests.unit.session.playbook import DATE, SERVER, C, Playbook, S, addressed, client, introduced, logged, server

if TYPE_CHECKING:
    from proxsmtp_tp.session.events import Event

FILTERED = Options(filtered=True)
TEXT = b"Subject: x\r\n\r\nbody\r\n"
PASS = FilterVerdict(Verdict(Action.PASS, None, "exit 0", size=len(TEXT)))
REJECT = FilterVerdict(Verdict(Action.REJECT, Reply.of(550, "Content Rejected; spam"), "exit 1"))
DISCARD = FilterVerdict(Verdict(Action.DISCARD, Reply.of(250, "taken"), "exit 1"))

SECRET = b"open sesame"
_NAME, _PASSWORD, _PLAIN = (b64encode(text).decode() for text in (b"ann", SECRET, b"boss\0ann\0" + SECRET))
ANN_PLAIN, ANN_LOGIN = Login(b"PLAIN", b"ann"), Login(b"LOGIN", b"ann")
LOGINS = [
    (f">AUTH PLAIN {_PLAIN}|<235 ok", ANN_PLAIN),
    (f">auth plain|<334 |>{_PLAIN}|<235 ok", ANN_PLAIN),
    (f">X-EXPS LOGIN|<334 VXNlcm5hbWU6|>{_NAME}|<334 UGFzc3dvcmQ6|>{_PASSWORD}|<235 ok", ANN_LOGIN),
    (f">AUTH LOGIN {_NAME}|<334 UGFzc3dvcmQ6|>{_PASSWORD}|<235 ok", ANN_LOGIN),
    # A server that asks for the password first: it is no name.
    (f">AUTH LOGIN|<334 UGFzc3dvcmQ6|>{_PASSWORD}|<334 VXNlcm5hbWU6|>{_NAME}|<235 ok", ANN_LOGIN),
    (f">AUTH LOGIN|<334 |>{_PASSWORD}|<235 ok", Login(b"LOGIN")),
    (f">AUTH CRAM-MD5|<334 PDE+|>{_NAME}|<235 ok", Login(b"CRAM-MD5")),
    (">AUTH PLAIN no-base64|<235 ok", Login(b"PLAIN")),
    (f">AUTH PLAIN {b64encode(b'ann' + bytes(1) + SECRET).decode()}|<235 ok", Login(b"PLAIN")),
    # Refused, cancelled, and another one after it.
    (f">AUTH PLAIN {_PLAIN}|<535 no", Login()),
    (">AUTH PLAIN|<334 |>*|<501 cancelled", Login()),
    (f">AUTH PLAIN {_PLAIN}|<535 no|>AUTH EXTERNAL =|<235 ok", Login(b"EXTERNAL")),
    (f">AUTH PLAIN {_PLAIN}|<235 ok|>AUTH LOGIN|<503 once", ANN_PLAIN),
]

STARTED = StartFilter(Envelope(b"a@client.example", b"", [b"b@mx.example"], [b""]), b"client.example")


def judging(options: Options = FILTERED) -> Playbook:
    """A message has been sent to the filter; the verdict is awaited."""
    play = addressed(options)
    play.session.feed(C(b"DATA\r\n"))
    play.session.feed(C(TEXT + b".\r\n"))
    return play


def sending(options: Options = FILTERED) -> Playbook:
    """The filter has passed it, and the server has said 354."""
    play = judging(options)
    play.session.feed(PASS)
    play.session.feed(S("354 go"))
    return play


class TestFiltered:
    def test_the_server_gets_data_only_after_the_verdict(self) -> None:
        play = addressed(FILTERED) >> C("DATA") << STARTED << client(answers.START_DATA.wire)
        play = play >> C(TEXT[:5]) << FilterData(TEXT[:5])
        play = play >> C(TEXT[5:] + b".\r\n") << FilterData(TEXT[5:]) << FilterFinish()
        play = play >> PASS << server("DATA") >> S("354 go") << ReadMessage()
        play = play >> MessageChunk(TEXT) << server(TEXT) >> MessageEnd() << server(b".\r\n") << FilterAbort()
        assert play >> S("250 2.0.0 queued as 1") << client("250 2.0.0 queued as 1") >> C("QUIT") << server("QUIT")

    def test_dots_are_unstuffed_for_the_filter_and_stuffed_for_the_server(self) -> None:
        play = addressed(FILTERED)
        play.session.feed(C("DATA"))
        play = play >> C(b"..a\r\n...\r\n.\r\n") << FilterData(b".a\r\n..\r\n") << FilterFinish()
        play.session.feed(PASS)
        play.session.feed(S("354 go"))
        play = play >> MessageChunk(b".\r\n.b") << server(b"..\r\n..b")
        assert play >> MessageEnd() << server(b"\r\n.\r\n") << FilterAbort()

    def test_the_end_goes_with_the_last_chunk(self) -> None:
        play = sending() >> MessageChunk(b".\r\n.b") << server(b"..\r\n..b")
        play = play >> MessageChunk(b"\r\nc", last=True) << server(b"\r\nc\r\n.\r\n") << FilterAbort()
        assert play >> MessageEnd() >> S("250 2.0.0 queued as 1") << client("250 2.0.0 queued as 1")

    def test_a_group_is_answered_in_order(self) -> None:
        group = "MAIL FROM:<a@x.example>\nRCPT TO:<b@y.example>\nRCPT TO:<c@y.example>"
        play = introduced(FILTERED, "PIPELINING") >> C(group + "\nDATA") << server(group)
        started = StartFilter(Envelope(b"a@x.example", b"", [b"b@y.example"], [b""]), b"client.example")
        play = play >> S("250 1\n250 2") << client("250 1\n250 2")
        assert play >> S("550 3") << client("550 3") << started << client(answers.START_DATA.wire)

    @pytest.mark.parametrize(("verdict", "reply"), [(REJECT, "550 Content Rejected; spam"), (DISCARD, "250 taken")])
    def test_a_message_that_does_not_pass(self, verdict: FilterVerdict, reply: str) -> None:
        play = judging() >> verdict << FilterAbort() << client(reply) << server("RSET")
        assert play >> S("250 reset") >> C("MAIL FROM:<c@x.example>") << server("MAIL FROM:<c@x.example>")

    def test_the_next_group_may_follow_our_rset(self) -> None:
        play = addressed(FILTERED, "PIPELINING")
        play.session.feed(C(b"DATA\r\n"))
        play.session.feed(C(TEXT + b".\r\nMAIL FROM:<c@x.example>\r\n"))
        play = play >> REJECT << FilterAbort() << client("550 Content Rejected; spam")
        assert play << server("RSET\nMAIL FROM:<c@x.example>") >> S("250 reset\n250 c") << client("250 c")

    def test_a_refused_rset_leaves_no_old_envelope(self) -> None:
        play = judging()
        play.session.feed(REJECT)
        play = play >> S("503 no") << CloseServer(abort=True) >> C("MAIL FROM:<c@x.example>")
        assert play << client(answers.server_leaves("503 no").wire) << CloseClient()

    def test_an_early_verdict_waits_for_the_end_of_the_message(self) -> None:
        play = addressed(FILTERED)
        play.session.feed(C("DATA"))
        play = play >> C(b"Subject: x\r\n") << FilterData(b"Subject: x\r\n") >> REJECT << FilterAbort()
        play = play >> C(b"much more\r\n")
        assert play >> C(b".\r\n") << client("550 Content Rejected; spam") << server("RSET")

    def test_an_early_pass_judged_only_half(self) -> None:
        play = addressed(FILTERED)
        play.session.feed(C("DATA"))
        play = play >> PASS << FilterAbort()
        assert play >> C(b".\r\n") << client(answers.FILTER_FAILED.wire) << server("RSET")

    def test_the_server_refuses_data(self) -> None:
        play = judging() >> PASS << server("DATA") >> S("452 full") << FilterAbort() << client("452 full")
        assert play << server("RSET") >> S("250 ok")

    def test_the_server_refuses_the_message(self) -> None:
        play = sending()
        play.session.feed(MessageChunk(TEXT))
        play.session.feed(MessageEnd())
        assert play >> S("554 no") << client("554 no") >> C("NOOP") << server("NOOP")

    @pytest.mark.parametrize("before", [[], ["MAIL FROM:<a@client.example>"]])
    def test_without_recipients_the_server_is_asked(self, before: list[str]) -> None:
        play = introduced(FILTERED)
        for command in before:
            play = play >> C(command) << server(command) >> S("250 ok") << client("250 ok")
        play = play >> C("DATA") << server("DATA") >> S("503 RCPT first") << client("503 RCPT first")
        assert play

    @pytest.mark.parametrize("before", [[], ["MAIL FROM:<a@client.example>"], ["RSET"]])
    def test_a_server_that_wants_text_for_nobody_ends_the_session(self, before: list[str]) -> None:
        """A lone dot would be an empty message, to whomever that server counts as a recipient."""
        play = introduced(FILTERED)
        for command in before:
            play = play >> C(command) << server(command) >> S("250 ok") << client("250 ok")
        play = play >> C("DATA") << server("DATA") >> S("354 go") << CloseServer(abort=True)
        assert play << client(answers.OUT_OF_STEP.wire) << CloseClient()

    def test_a_server_that_wants_text_for_a_recipient_that_it_refused_ends_the_session(self) -> None:
        play = introduced(FILTERED)
        for command, answer in (("MAIL FROM:<a@client.example>", "250 ok"), ("RCPT TO:<b@mx.example>", "550 no")):
            play = play >> C(command) << server(command) >> S(answer) << client(answer)
        play = play >> C("DATA") << server("DATA") >> S("354 go") << CloseServer(abort=True)
        assert play << client(answers.OUT_OF_STEP.wire) << CloseClient()

    def test_a_server_that_wants_text_without_a_sender_ends_the_session(self) -> None:
        play = introduced(FILTERED)
        play = (
            play >> C("RCPT TO:<b@mx.example>") << server("RCPT TO:<b@mx.example>") >> S("250 ok") << client("250 ok")
        )
        play = play >> C("DATA") << server("DATA") >> S("354 go") << CloseServer(abort=True)
        assert play << client(answers.OUT_OF_STEP.wire) << CloseClient()

    def test_the_envelope_is_what_the_server_accepted(self) -> None:
        play = introduced(FILTERED)
        for command, reply in (
            ("MAIL FROM:<a@x.example> SIZE=10", "250 ok"),
            ("RCPT TO:<no@y.example>", "550 no"),
            ("RCPT TO:<@relay.example:b@y.example> NOTIFY=NEVER", "251 ok"),
        ):
            play.session.feed(C(command))
            play.session.feed(S(reply))
        envelope = Envelope(b"a@x.example", b"SIZE=10", [b"b@y.example"], [b"NOTIFY=NEVER"])
        play = play >> C("DATA") << StartFilter(envelope, b"client.example")
        assert play << client(answers.START_DATA.wire)

    def test_skip_for_authenticated_clients(self) -> None:
        play = introduced(Options(filtered=True, skip_authenticated=True), "AUTH PLAIN")
        for line, reply in (
            ("AUTH PLAIN AAAA", "235 ok"),
            ("MAIL FROM:<a@x.example>", "250 ok"),
            ("RCPT TO:<b@y.example>", "250 ok"),
        ):
            play.session.feed(C(line))
            play.session.feed(S(reply))
        play = play >> C("DATA") << server("DATA") >> S("354 go") << client("354 go")
        assert play >> C(TEXT) << server(TEXT)

    @pytest.mark.parametrize(("dialogue", "login"), LOGINS)
    def test_the_filter_is_told_of_the_login(self, dialogue: str, login: Login) -> None:
        play = introduced(FILTERED, "AUTH PLAIN LOGIN")
        for line in dialogue.split("|"):
            play.session.feed(C(line[1:]) if line[0] == ">" else S(line[1:]))
        for line in ("MAIL FROM:<a@x.example>", "RCPT TO:<b@y.example>"):
            play.session.feed(C(line))
            play.session.feed(S("250 ok"))
        started = StartFilter(
            Envelope(b"a@x.example", b"", [b"b@y.example"], [b""]),
            b"client.example",
            authenticated="<235" in dialogue,
            login=login,
        )
        assert play >> C("DATA") << started << client(answers.START_DATA.wire)
        exchange = play.session._d.login_exchange
        kept = repr(attributes(exchange)).encode()
        assert SECRET not in kept
        assert _PASSWORD.encode() not in kept

    @pytest.mark.parametrize(
        ("template", "line"),
        [
            ("X-Filter: %i %l %d %%", f"X-Filter: 192.0.2.10 192.0.2.1 {DATE} %"),
            ("Received: from %i", "Received: from 192.0.2.10"),
            (r"X-A: a\r\n\tb\\n\x\"", 'X-A: a\r\n\tb\\nx"'),
            (r"X-A: \%i %\n %q 100%", "X-A: %i n  100%"),
            ("X-A: a\\", "X-A: a\\"),
        ],
    )
    def test_header(self, template: str, line: str) -> None:
        play = sending(Options(filtered=True, header=template))
        sent = play.session.feed(MessageChunk(TEXT)) + play.session.feed(MessageEnd())
        wire = b"".join(effect.data for effect in sent if isinstance(effect, effects.SendServer))
        if template.startswith("Received"):
            assert wire == f"{line}\r\n".encode() + TEXT + b".\r\n"
        else:
            assert wire == TEXT.replace(b"\r\n\r\n", f"\r\n{line}\r\n\r\n".encode()) + b".\r\n"
        assert play

    def test_keep_alives_while_the_filter_works(self) -> None:
        play = judging() >> KeepAlive() << server("NOOP") >> KeepAlive() >> S("250 ok") >> KeepAlive() << server("NOOP")
        play = play >> PASS  # the NOOP is answered first
        assert play >> S("250 ok") << server("DATA") >> S("354 go") << ReadMessage() >> KeepAlive()


class TestStreamed:
    def test_through_as_it_comes(self) -> None:
        play = addressed() >> C("DATA") << server("DATA") >> S("354 go") << client("354 go")
        play = play >> C(b"a\r\n..b\r\n") << server(b"a\r\n..b\r\n") >> C(b".\r\nRSET\r\n") << server(b".\r\n")
        assert play >> S("250 ok") << client("250 ok") << server("RSET")

    def test_refused_before_its_end(self) -> None:
        play = addressed()
        play.session.feed(C("DATA"))
        play.session.feed(S("354 go"))
        play = play >> C(b"a\r\n") << server(b"a\r\n") >> S("552 too big") << CloseServer(abort=True)
        play = play >> C(b"more\r\n")
        assert play >> C(b".\r\n") << client(b"552 too big\r\n" + answers.SERVER_LOST.wire) << CloseClient()

    def test_accepted_before_its_end_is_no_acceptance(self) -> None:
        play = addressed()
        play.session.feed(C("DATA"))
        play.session.feed(S("354 go"))
        play = play >> S("250 queued") << CloseServer(abort=True)
        assert play >> C(b"a\r\n.\r\n") << client(answers.OUT_OF_STEP.wire) << CloseClient()

    def test_bare_newlines_reject(self) -> None:
        play = addressed(Options(refuse_bare_newlines=True))
        play.session.feed(C("DATA"))
        play.session.feed(S("354 go"))
        play = play >> C(b"a\nb\r\n") << CloseServer(abort=True)
        assert (
            play >> C(b".\r\n") << client(answers.BARE_NEWLINE_IN_TEXT.wire + answers.SERVER_LOST.wire) << CloseClient()
        )


class TestBareNewlines:
    def test_filtered_and_rejected(self) -> None:
        play = addressed(Options(filtered=True, refuse_bare_newlines=True))
        play.session.feed(C("DATA"))
        play = play >> C(b"a\nb\r\n.\r\n") << FilterAbort() << client(answers.BARE_NEWLINE_IN_TEXT.wire)
        assert play << server("RSET")
        assert answers.BARE_NEWLINE_IN_TEXT.wire.startswith(b"550 5.5.2 ")

    def test_the_first_reason_is_the_one_that_is_reported(self) -> None:
        play = addressed(Options(filtered=True, refuse_bare_newlines=True))
        play.session.feed(C("DATA"))
        play = play >> C(b"a\nb\r\n") << FilterAbort() >> ServerClosed()
        assert (
            play >> C(b".\r\n") << client(answers.BARE_NEWLINE_IN_TEXT.wire + answers.SERVER_LOST.wire) << CloseClient()
        )

    def test_normalised(self) -> None:
        play = addressed(FILTERED)
        play.session.feed(C("DATA"))
        assert play >> C(b"a\n.\nb\r\n.\r\n") << FilterData(b"a\r\n.\r\nb\r\n") << FilterFinish()


class TestUntidyFinalReplies:
    """The server accepted the message with an untidy reply: any other reply than 2xx to the client would cause a
    duplicate."""

    @pytest.mark.parametrize("filtered", [True, False])
    @pytest.mark.parametrize(
        ("said", "told"),
        [
            (b"\r\n250 Ok\r\n", b"250 Ok\r\n"),
            (b"250-Ok\r\n251 queued\r\n", b"251-Ok\r\n251 queued\r\n"),
            (b"250ok\r\n", b"250 ok\r\n"),
            (b"250, ok\r\n", b"250 , ok\r\n"),
            (b"250\n", b"250\r\n"),
            (b"250-Ok\r\nqueued\r\n250 done\r\n", b"250-Ok\r\n250-queued\r\n250 done\r\n"),
            (b"250 " + b"x" * 9000 + b"\r\n", b"250 " + b"x" * (LINE_LIMIT - 6) + b"\r\n"),
            (b"550-no\r\n250 yes\r\n", b"250-no\r\n250 yes\r\n"),
            (b"250-yes\r\n550 no\r\n", b"550-yes\r\n550 no\r\n"),
            (b"452full\r\n", b"452 full\r\n"),
        ],
    )
    def test_the_last_line_decides(self, said: bytes, told: bytes, filtered: bool) -> None:
        play = self.sent(filtered)
        for octet in said[:-1]:
            play = play >> S(bytes([octet]))
        play = play >> S(said[-1:]) << client(told)
        assert play >> C("NOOP") << server("NOOP") >> S("250 ok") << client("250 ok")
        assert self.duplicates(play) == 0

    def test_a_blank_line_after_it(self) -> None:
        play = self.sent() >> S(b"250 Ok\r\n\r\n") << client("250 Ok")
        assert play >> C("NOOP") << server("NOOP") >> S("250 ok") << client("250 ok")

    @pytest.mark.parametrize("filtered", [True, False])
    @pytest.mark.parametrize("said", [b"hello\r\n", b"2500 ok\r\n", b"354 go on\r\n", b"25\r\n"])
    def test_what_is_no_reply_is_logged_and_counted(self, said: bytes, filtered: bool) -> None:
        play = self.sent(filtered) >> S(said) << CloseServer(abort=True) << client(answers.OUT_OF_STEP.wire)
        assert play << CloseClient()
        assert self.duplicates(play) == 1

    @pytest.mark.parametrize("event", [ServerClosed(), DeadlinePassed(Wait.FINAL), Shutdown()])
    def test_no_reply_at_all_is_logged_and_counted(self, event: Event) -> None:
        play = self.sent()
        given = play.session.feed(event)
        assert effects.Count(Counter.POSSIBLE_DUPLICATES) in given
        assert any("twice" in effect.text for effect in given if isinstance(effect, effects.Log))
        assert play.session.ended
        assert play

    def test_421_is_an_answer(self) -> None:
        play = self.sent() >> S("421 shutting down") << CloseServer(abort=True) << client("421 shutting down")
        assert play << CloseClient()
        assert self.duplicates(play) == 0

    @staticmethod
    def sent(filtered: bool = True) -> Playbook:
        """The server has the final dot."""
        if filtered:
            play = sending()
            play.session.feed(MessageChunk(TEXT))
            play.session.feed(MessageEnd())
            return play
        play = addressed()
        play.session.feed(C("DATA"))
        play.session.feed(S("354 go"))
        play.session.feed(C(TEXT + b".\r\n"))
        return play

    @staticmethod
    def duplicates(play: Playbook) -> int:
        """How many were logged, which is how many were counted."""
        assert play.counted[Counter.POSSIBLE_DUPLICATES] == sum("twice" in line for line in play.logged)
        return play.counted[Counter.POSSIBLE_DUPLICATES]


class TestSomebodyLeaves:
    def test_client_in_the_middle_of_a_filtered_message(self) -> None:
        play = addressed(FILTERED)
        play.session.feed(C("DATA"))
        play.session.feed(C(TEXT))
        assert play >> ClientClosed(half=True) << server("QUIT") << CloseServer() << FilterAbort() << CloseClient()

    def test_client_in_the_middle_of_a_streamed_message(self) -> None:
        play = addressed()
        play.session.feed(C("DATA"))
        play.session.feed(S("354 go"))
        play.session.feed(C(TEXT))
        assert play >> ClientClosed(half=True) << CloseServer(abort=True) << CloseClient()

    def test_client_while_the_filter_works(self) -> None:
        play = judging() >> ClientClosed(half=False) << server("QUIT") << CloseServer() << FilterAbort()
        assert play << CloseClient() >> PASS

    def test_client_that_only_closed_its_sending_half(self) -> None:
        play = judging() >> ClientClosed(half=True) >> PASS << server("DATA") >> S("354 go") << ReadMessage()
        play = play >> MessageChunk(TEXT) << server(TEXT) >> MessageEnd() << server(b".\r\n") << FilterAbort()
        assert play >> S("250 ok") << client("250 ok") << server("QUIT") << CloseServer() << CloseClient()

    def test_client_that_only_closed_its_sending_half_and_is_refused(self) -> None:
        play = judging() >> ClientClosed(half=True) >> REJECT << FilterAbort()
        play = play << client("550 Content Rejected; spam") << server("RSET")
        assert play >> S("250 ok") << server("QUIT") << CloseServer() << CloseClient()

    def test_client_that_closed_its_sending_half_and_then_is_gone(self) -> None:
        play = judging() >> ClientClosed(half=True) >> ClientClosed(half=False)
        assert play << server("QUIT") << CloseServer() << FilterAbort() << CloseClient()

    def test_client_that_only_has_no_more_to_say(self) -> None:
        play = addressed(FILTERED)
        play.session.feed(C("DATA"))
        play.session.feed(C(TEXT + b".\r\nQUIT\r\n"))
        play = play >> ClientClosed(half=True) >> PASS << server("DATA") >> S("354 go") << ReadMessage()
        play = play >> MessageChunk(TEXT) << server(TEXT) >> MessageEnd() << server(b".\r\n") << FilterAbort()
        play = play >> S("250 ok") << client("250 ok") << server("QUIT")
        assert play >> S("221 bye") << CloseServer() << client("221 bye") << CloseClient()

    def test_client_while_the_server_takes_the_message(self) -> None:
        play = sending()
        play.session.feed(MessageChunk(TEXT))
        assert play >> ClientClosed(half=False) << CloseServer(abort=True) << FilterAbort() << CloseClient()

    def test_client_after_the_final_dot(self) -> None:
        play = sending()
        play.session.feed(MessageChunk(TEXT))
        play.session.feed(MessageEnd())
        play = play >> ClientClosed(half=False) >> S("250 ok") << client("250 ok")
        assert play << server("QUIT") << CloseServer() << CloseClient()
        assert any("status=FILTERED" in line for line in play.logged)

    def test_server_while_idle(self) -> None:
        assert introduced() >> ServerClosed() << client(answers.SERVER_LOST.wire) << CloseClient()

    def test_server_instead_of_a_reply_to_quit(self) -> None:
        play = introduced() >> C("QUIT") << server("QUIT") >> ServerClosed() << client(answers.BYE.wire)
        assert play << CloseClient()

    def test_server_before_its_greeting(self) -> None:
        play = Playbook()
        play.session.feed(Connected(SERVER))
        assert play >> ServerClosed() << client(answers.SERVER_LOST.wire) << CloseClient()

    def test_server_while_the_client_sends(self) -> None:
        play = addressed(FILTERED)
        play.session.feed(C("DATA"))
        play = play >> C(b"a\r\n") << FilterData(b"a\r\n") >> ServerClosed() << FilterAbort()
        assert play >> C(b"b\r\n.\r\n") << client(answers.SERVER_LOST.wire) << CloseClient()
        assert any("the server closed the connection during a message" in line for line in play.logged)

    def test_server_while_the_client_sends_what_nobody_filters(self) -> None:
        play = addressed()
        play.session.feed(C("DATA"))
        play.session.feed(S("354 go"))
        play = play >> C(b"a\r\n") << server(b"a\r\n") >> ServerClosed()
        assert play >> C(b"b\r\n.\r\n") << client(answers.SERVER_LOST.wire) << CloseClient()
        assert any("the server closed the connection during a message" in line for line in play.logged)

    def test_server_while_the_filter_works(self) -> None:
        play = judging() >> ServerClosed() << client(answers.SERVER_LOST.wire) << FilterAbort() << CloseClient()
        assert play >> PASS

    def test_server_after_the_final_dot(self) -> None:
        play = sending()
        play.session.feed(MessageChunk(TEXT))
        play.session.feed(MessageEnd())
        assert play >> ServerClosed() << client(answers.SERVER_LOST.wire) << CloseClient()

    def test_server_says_421_while_the_client_sends(self) -> None:
        play = addressed(FILTERED)
        play.session.feed(C("DATA"))
        play = play >> S("421 timeout") << CloseServer(abort=True) << FilterAbort()
        assert play >> C(b"b\r\n.\r\n") << client("421 timeout") << CloseClient()

    def test_the_disk(self) -> None:
        play = sending() >> MessageUnreadable("Input/output error") << CloseServer(abort=True) << FilterAbort()
        assert play << client(answers.SPOOL_FAILED.wire + answers.SERVER_LOST.wire) << CloseClient()

    def test_the_message_clock(self) -> None:
        play = addressed(FILTERED)
        play.session.feed(C("DATA"))
        play = play >> MessageTimedOut() << client(answers.MESSAGE_TIMED_OUT.wire) << server("QUIT")
        assert play << CloseServer() << FilterAbort() << CloseClient()

    @pytest.mark.parametrize("late", [PASS, REJECT])
    def test_a_verdict_that_comes_too_late(self, late: FilterVerdict) -> None:
        play = addressed(FILTERED)
        play.session.feed(C("DATA"))
        play = play >> S("421 timeout") << CloseServer(abort=True) << FilterAbort() >> late
        assert play >> C(b"b\r\n.\r\n") << client("421 timeout") << CloseClient()

    def test_the_message_clock_when_the_server_has_it_all(self) -> None:
        """Whether it has taken it decides the server: a 421 of ours would have the client send it twice."""
        play = sending()
        for event in (MessageChunk(TEXT), MessageEnd()):
            play.session.feed(event)
        assert play >> MessageTimedOut() >> S("250 ok") << client("250 ok") >> MessageTimedOut()

    def test_the_client_while_a_noop_keeps_the_server(self) -> None:
        """Its text is what is waited for, not the answer to the NOOP."""
        play = addressed(FILTERED)
        play.session.feed(C("DATA"))
        play = play >> KeepAlive() << server("NOOP") >> DeadlinePassed(Wait.REPLY) >> DeadlinePassed(Wait.TEXT)
        play = play << client(answers.CLIENT_TIMED_OUT.wire) << CloseServer(abort=True) << FilterAbort()
        assert play << CloseClient()

    def test_the_daemon(self) -> None:
        play = sending() >> Shutdown() << client(answers.SHUTTING_DOWN.wire) << CloseServer(abort=True)
        assert play << FilterAbort() << CloseClient()


class TestBypassed:
    """The command bypass: the filter is bypassed from one DATA to the next."""

    def play(self, options: Options = FILTERED, *keywords: str, now: list[bool] | None = None) -> Playbook:
        play = addressed(options, *keywords)
        play.session.use_bypass(lambda: now is None or now[0])
        return play

    def test_the_message_is_streamed_logged_and_counted(self) -> None:
        play = self.play() >> C("DATA") << server("DATA") >> S("354 go") << client("354 go")
        play = play >> C("Subject: x\n\nbody\n.") << server("Subject: x\n\nbody\n.")
        given = play.session.feed(S("250 queued"))
        assert play
        (line,) = [text for text in logged(given) if "status=" in text]
        assert "status=BYPASSED" in line
        assert effects.Count(Counter.BYPASSED) in given

    def test_no_header_says_that_it_was_judged(self) -> None:
        play = self.play(Options(filtered=True, header="X-Filtered: yes")) >> C("DATA") << server("DATA")
        assert play >> S("354 go") << client("354 go") >> C("a\n\nb\n.") << server("a\n\nb\n.")

    def test_the_envelope_is_read_as_strictly_as_for_the_filter(self) -> None:
        play = introduced(FILTERED)
        play.session.use_bypass(lambda: True)
        assert play >> C("MAIL FROM:joe (x) <a@x.example>") << client(answers.SENDER_SYNTAX.wire)

    def test_each_message_for_itself(self) -> None:
        now = [True]
        play = self.play(now=now) >> C("DATA") << server("DATA") >> S("354 go") << client("354 go")
        now[0] = False  # it ends while a message is on its way
        play = play >> C("a\n.") << server("a\n.") >> S("250 queued") << client("250 queued")
        for command in ("MAIL FROM:<a@client.example>", "RCPT TO:<b@mx.example>"):
            play = play >> C(command) << server(command) >> S("250 ok") << client("250 ok")
        play = play >> C("DATA") << STARTED << client(answers.START_DATA.wire)
        now[0] = True
        assert play >> C(TEXT + b".\r\n") << FilterData(TEXT) << FilterFinish()

    def test_a_group(self) -> None:
        play = introduced(FILTERED, "PIPELINING")
        play.session.use_bypass(lambda: True)
        group = "MAIL FROM:<a@x.example>\nRCPT TO:<b@y.example>\nDATA"
        play = play >> C(group) << server(group) >> S("250 1\n250 2\n354 go") << client("250 1\n250 2\n354 go")
        assert play >> C("a\n.") << server("a\n.")

    @pytest.mark.parametrize("options", [Options(), Options(filtered=True, skip_authenticated=True)])
    def test_nothing_changes_where_nothing_is_judged(self, options: Options) -> None:
        play = introduced(options)
        play.session.use_bypass(lambda: True)
        if options.skip_authenticated:
            play = play >> C("AUTH EXTERNAL =") << server("AUTH EXTERNAL =") >> S("235 ok") << client("235 ok")
        for command in ("MAIL FROM:<a@client.example>", "RCPT TO:<b@mx.example>"):
            play = play >> C(command) << server(command) >> S("250 ok") << client("250 ok")
        play = play >> C("DATA") << server("DATA") >> S("354 go") << client("354 go")
        play = play >> C("a\n.") << server("a\n.")
        given = play.session.feed(S("250 queued"))
        assert play
        assert not [text for text in logged(given) if "BYPASSED" in text]
        assert effects.Count(Counter.BYPASSED) not in given
