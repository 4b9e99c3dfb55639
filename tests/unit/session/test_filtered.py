"""Messages through a filter."""

from __future__ import annotations

from base64 import b64encode

import pytest

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
    FilterVerdict,
    KeepAlive,
    MessageChunk,
    MessageEnd,
)
from proxsmtp_tp.session.options import Options
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.smtp.envelope import Envelope
from proxsmtp_tp.smtp.login import Login
from tests.attributes import attributes
from tests.unit.session.message_playbook import DISCARD, FILTERED, PASS, REJECT, STARTED, TEXT, judging, sending
from tests.unit.session.playbook import DATE, C, S, addressed, client, introduced, server

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
    def test_354_without_a_recipient_ends_the_session(self, before: list[str]) -> None:
        """A lone dot would be an empty message, to whomever that server counts as a recipient."""
        play = introduced(FILTERED)
        for command in before:
            play = play >> C(command) << server(command) >> S("250 ok") << client("250 ok")
        play = play >> C("DATA") << server("DATA") >> S("354 go") << CloseServer(abort=True)
        assert play << client(answers.OUT_OF_STEP.wire) << CloseClient()

    def test_354_after_a_refused_recipient_ends_the_session(self) -> None:
        play = introduced(FILTERED)
        for command, answer in (("MAIL FROM:<a@client.example>", "250 ok"), ("RCPT TO:<b@mx.example>", "550 no")):
            play = play >> C(command) << server(command) >> S(answer) << client(answer)
        play = play >> C("DATA") << server("DATA") >> S("354 go") << CloseServer(abort=True)
        assert play << client(answers.OUT_OF_STEP.wire) << CloseClient()

    def test_354_without_a_sender_ends_the_session(self) -> None:
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
    def test_the_filter_learns_the_login(self, dialogue: str, login: Login) -> None:
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
