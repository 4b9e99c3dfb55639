"""Commands and replies: who gets what, in which order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.session.effects import CloseClient, CloseServer, Log, SendClient, SendServer, StartFilter
from proxsmtp_tp.session.events import Connected, ConnectFailed, DeadlinePassed, ServerClosed, Shutdown
from proxsmtp_tp.session.options import Options
from proxsmtp_tp.session.session import Session
from proxsmtp_tp.session.state import Wait
from proxsmtp_tp.session.verbs import RECIPIENTS_LIMIT
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.smtp.capabilities import REFUSED_VERBS
from proxsmtp_tp.smtp.lines import COMMAND_LIMIT
from tests.unit.session.playbook import SERVER, C, Playbook, S, client, greeted, introduced, server

if TYPE_CHECKING:
    from proxsmtp_tp.session.events import Event

ENVELOPE = ("MAIL FROM:<a@a.example>", "RCPT TO:<b@mx.example>")


def started(play: Playbook) -> StartFilter:
    """What the filter is told when the client says DATA."""
    assert play
    (start,) = (effect for effect in play.session.feed(C("DATA")) if isinstance(effect, StartFilter))
    return start


def test_greeting_passes() -> None:
    assert Playbook() >> Connected(SERVER) >> S("220 mx.example ESMTP") << client("220 mx.example ESMTP")


def test_greeting_in_pieces_and_lines() -> None:
    assert (
        Playbook()
        >> Connected(SERVER)
        >> S(b"220-mx.exam")
        >> S(b"ple\r\n220 ESMTP")
        >> S(b"\r\n")
        << client("220-mx.example\n220 ESMTP")
    )


def test_greeting_hides_the_name_where_mtas_look_for_loops() -> None:
    play = Playbook(Options(hidden_name=b"smtp.passthru"))
    play.session.feed(Connected(SERVER))
    (sent, *_) = play.session.feed(S("220 mx.example ESMTP Postfix"))
    assert b"mx.example" not in sent.data  # type: ignore[union-attr]
    assert sent.data.startswith(b"220 smtp.passthru")  # type: ignore[union-attr]
    assert play


def test_refusing_greeting_passes() -> None:
    assert (
        Playbook()
        >> Connected(SERVER)
        >> S("554 no")
        << client("554 no")
        >> C("QUIT")
        << server("QUIT")
        >> S("221 bye")
        << CloseServer()
        << client("221 bye")
        << CloseClient()
    )


def test_unreachable_server_is_reported() -> None:
    play = Playbook()
    gone = answers.unreachable("198.51.100.25:25: Connection refused")
    assert play >> ConnectFailed("198.51.100.25:25: Connection refused") << client(gone.wire) << CloseClient()
    assert gone.code == 421
    assert "Connection refused" in play.logged[0]


UNSERVED = {
    "no connection": ([ConnectFailed("198.51.100.25:25: Connection refused")], "Connection refused"),
    "closed at once": ([Connected(SERVER), ServerClosed()], "the server closed the connection before its greeting"),
    "closed in the middle of the greeting": ([Connected(SERVER), S(b"220-mx"), ServerClosed()], "before its greeting"),
    "silent": ([Connected(SERVER), DeadlinePassed(Wait.GREETING)], "timed out waiting for the server's greeting"),
}


@pytest.mark.parametrize(("happening", "reason"), UNSERVED.values(), ids=UNSERVED)
@pytest.mark.parametrize("early", [b"", b"EHLO early\r\n"])
@pytest.mark.parametrize("resets", [True, False])
def test_a_server_that_does_not_come_to_greet(happening: list[Event], reason: str, early: bytes, resets: bool) -> None:
    """Nothing was said yet: the client is reset, or told why. Either way the log says why."""
    session = Session(Options(reset_unreachable=resets), client_ip="192.0.2.10", local_ip="192.0.2.1", clock=str)
    found = session.feed(C(early)) if early else []
    for event in happening:
        found += session.feed(event)
    said = [effect.data for effect in found if isinstance(effect, SendClient)]
    assert [line[:4] for line in said] == ([] if resets else [b"421 "])
    assert [effect for effect in found if isinstance(effect, CloseClient)] == [CloseClient(reset=resets)]
    assert not any(isinstance(effect, SendServer) for effect in found)
    (line,) = [effect.text for effect in found if isinstance(effect, Log)]
    assert reason in line


WITH_A_WORD = {
    "its own 421": S("421 mx too busy"),
    "no SMTP": S("SSH-2.0-OpenSSH"),
    "we end": Shutdown(),
}


@pytest.mark.parametrize("event", WITH_A_WORD.values(), ids=WITH_A_WORD)
def test_what_is_no_failure_to_connect_is_reported(event: Event) -> None:
    """A server that says something, and a daemon that ends, are no dead address."""
    session = Session(Options(reset_unreachable=True), client_ip="192.0.2.10", local_ip="192.0.2.1", clock=str)
    found = session.feed(Connected(SERVER)) + session.feed(event)
    assert [effect.data[:4] for effect in found if isinstance(effect, SendClient)] == [b"421 "]
    assert [effect for effect in found if isinstance(effect, CloseClient)] == [CloseClient()]


def test_a_server_that_was_there_is_missed_with_a_word() -> None:
    play = greeted(Options(reset_unreachable=True))
    assert play >> ServerClosed() << client(answers.SERVER_LOST.wire) << CloseClient()


def test_client_that_talks_first_waits() -> None:
    assert Playbook() >> C("EHLO early") >> Connected(SERVER) >> S("220 mx") << client("220 mx") << server("EHLO early")


def test_verbs_nobody_knows_pass_verbatim() -> None:
    assert greeted() >> C("xFrob  a b") << server("xFrob  a b") >> S("500 what") << client("500 what")


def test_quit_ends_both_sides() -> None:
    assert (
        greeted()
        >> C("QUIT")
        << server("QUIT")
        >> S("221 bye")
        << CloseServer()
        << client("221 bye")
        << CloseClient()
        >> C("NOOP")
    )


class TestPipelining:
    GROUP = "MAIL FROM:<a@x.example>\nRCPT TO:<b@y.example>\nRCPT TO:<c@y.example>\nDATA"

    def test_a_group_costs_one_round_trip(self) -> None:
        assert (
            introduced(None, "PIPELINING")
            >> C(self.GROUP)
            << server(self.GROUP)
            >> S("250 1\n250 2\n550 3\n354 go")
            << client("250 1\n250 2\n550 3\n354 go")
        )

    def test_without_it_one_at_a_time(self) -> None:
        one, two, three, data = self.GROUP.split("\n")
        assert (
            introduced(None, "SIZE 100")
            >> C(self.GROUP)
            << server(one)
            >> S("250 1")
            << client("250 1")
            << server(two)
            >> S("250 2")
            << client("250 2")
            << server(three)
            >> S("550 3")
            << client("550 3")
            << server(data)
            >> S("354 go")
            << client("354 go")
        )

    def test_nothing_follows_a_command_that_ends_a_group(self) -> None:
        assert (
            introduced(None, "PIPELINING")
            >> C("NOOP\nNOOP")
            << server("NOOP")
            >> S("250 1")
            << client("250 1")
            << server("NOOP")
        )

    def test_our_own_reply_waits_for_its_turn(self) -> None:
        assert (
            introduced(None, "PIPELINING")
            >> C("MAIL FROM:<a@x.example>\nSTARTTLS\nRCPT TO:<b@y.example>")
            << server("MAIL FROM:<a@x.example>\nRCPT TO:<b@y.example>")
            >> S("250 1")
            << client(b"250 1\r\n" + answers.NO_TLS.wire)
            >> S("250 2")
            << client("250 2")
        )


class TestInStep:
    @pytest.mark.parametrize("reply", ["250 hello again", "354 go", "221 bye", "535 auth"])
    def test_a_reply_to_nothing_ends_it(self, reply: str) -> None:
        play = greeted() >> S(reply) << CloseServer(abort=True)
        assert play << client(answers.OUT_OF_STEP.wire) << CloseClient()

    @pytest.mark.parametrize("command", ["NOOP", "MAIL FROM:<a@x.example>", "RSET", "EHLO x", "XFROB"])
    def test_354_answers_only_data(self, command: str) -> None:
        play = greeted() >> C(command) << server(command) >> S("354 go")
        assert play << CloseServer(abort=True) << client(answers.OUT_OF_STEP.wire) << CloseClient()

    def test_2xx_does_not_answer_data(self) -> None:
        play = introduced() >> C("DATA") << server("DATA") >> S("250 ok")
        assert play << CloseServer(abort=True) << client(answers.OUT_OF_STEP.wire) << CloseClient()

    def test_multi_line_replies_count_once(self) -> None:
        assert (
            greeted()
            >> C("RSET")
            << server("RSET")
            >> S("250-one\n250-two\n250 three")
            << client("250-one\n250-two\n250 three")
            >> C("NOOP")
            << server("NOOP")
            >> S("250 ok")
            << client("250 ok")
        )

    def test_two_replies_to_one_command(self) -> None:
        play = greeted() >> C("NOOP") << server("NOOP") >> S("250 ok\n250 ok again")
        assert play << client("250 ok") << CloseServer(abort=True) << client(answers.OUT_OF_STEP.wire) << CloseClient()

    @pytest.mark.parametrize("noise", [b"hello\r\n", b"2500 x\r\n", b"250-a\r\n251 b\r\n", b"999 x\r\n"])
    def test_what_is_no_reply(self, noise: bytes) -> None:
        play = greeted() >> C("NOOP") << server("NOOP") >> S(noise)
        assert play << CloseServer(abort=True) << client(answers.OUT_OF_STEP.wire) << CloseClient()

    def test_421_closes(self) -> None:
        assert (
            greeted()
            >> C("NOOP")
            << server("NOOP")
            >> S("421 busy")
            << CloseServer(abort=True)
            << client("421 busy")
            << CloseClient()
        )

    def test_421_unasked(self) -> None:
        assert greeted() >> S("421 idle") << CloseServer(abort=True) << client("421 idle") << CloseClient()


class TestRefusals:
    @pytest.mark.parametrize(
        "command",
        [
            *(
                "XEXCH50 1 2",
                "X-LINK2STATE LAST CHUNK={00000001} x",
            ),
            *("VERB", "verb on", "XVRB", "TURN", "ATRN a.example", "XTRN", "XREMOTEIP 127.0.0.1", "XSETCONTEXT a b"),
            *("XPROXY SID=1 IP=127.0.0.1", "XPROXYFROM SID=1", "XPROXYTO SID=1"),
        ],
    )
    def test_what_we_do_not_offer(self, command: str) -> None:
        play = greeted() >> C(command) << client(answers.NOT_OFFERED.wire)
        assert play >> C(command) << client(answers.NOT_OFFERED.wire)
        assert answers.NOT_OFFERED.code == 502
        assert len(play.logged) == 1

    @pytest.mark.parametrize("command", ["STARTTLS", "X-AnonymousTLS"])
    def test_there_is_no_tls(self, command: str) -> None:
        play = greeted() >> C(command) << client(answers.NO_TLS.wire) >> C(command) << client(answers.NO_TLS.wire)
        assert play
        assert answers.NO_TLS.code == 502
        assert b"mail filter" in answers.NO_TLS.wire
        assert len(play.logged) == 1

    def test_nothing_of_what_goes_reaches_the_server(self) -> None:
        """Each verb that the table names, without its keyword having been offered."""
        for verb in sorted(REFUSED_VERBS):
            play = greeted()
            given = play.session.feed(C(verb + b" 0\r\n"))
            assert not any(isinstance(effect, SendServer) for effect in given), verb
            assert any(isinstance(effect, SendClient) for effect in given), verb
            assert play

    @pytest.mark.parametrize("options", [None, Options(xclient=True), Options(filtered=True)])
    def test_lmtp_is_not_carried(self, options: Options | None) -> None:
        """One reply for each recipient: the second would be a reply to nothing, and the mail sent again."""
        play = greeted(options) >> C("LHLO client.example") << client(answers.LMTP_REFUSED.wire)
        assert play >> C("lhlo client.example") << client(answers.LMTP_REFUSED.wire)
        assert answers.LMTP_REFUSED.code == 500
        assert b"LMTP" in answers.LMTP_REFUSED.wire
        assert len(play.logged) == 1
        assert "LMTP" in play.logged[0]

    def test_a_client_that_speaks_only_lmtp_is_not_listened_to_for_ever(self) -> None:
        play = greeted()
        for _ in range(20):
            play.session.feed(C("LHLO client.example"))
        assert play.session.ended
        assert play

    def test_xclient_is_not_for_clients(self) -> None:
        assert greeted() >> C("XCLIENT ADDR=1.2.3.4") << client(answers.XCLIENT_REFUSED.wire)
        assert answers.XCLIENT_REFUSED.code == 554

    @pytest.mark.parametrize("said", ["REQUIRETLS", "size=1 requiretls", "REQUIRETLS=YES"])
    def test_requiretls_is_never_dropped(self, said: str) -> None:
        play = greeted() >> C(f"MAIL FROM:<a@x.example> {said}") << client(answers.NO_REQUIRETLS.wire)
        assert play >> C(f"MAIL FROM:<> {said}") << client(answers.NO_REQUIRETLS.wire)
        assert len(play.logged) == 1

    @pytest.mark.parametrize("parameter", ["BODY=BINARYMIME", "prdr", "TRANSID=<1@x>"])
    def test_mail_with_what_we_do_not_offer(self, parameter: str) -> None:
        play = greeted() >> C(f"MAIL FROM:<a@x.example> {parameter}") << client(answers.PARAMETER_NOT_OFFERED.wire)
        assert play >> C(f"MAIL FROM:<> SIZE=1 {parameter}") << client(answers.PARAMETER_NOT_OFFERED.wire)
        assert answers.PARAMETER_NOT_OFFERED.code == 455
        assert len(play.logged) == 1

    def test_a_second_address_of_a_recipient_is_none_that_a_filter_is_told_of(self) -> None:
        play = introduced() >> C("MAIL FROM:<a@a.example>") << server("MAIL FROM:<a@a.example>")
        play = play >> S("250 ok") << client("250 ok")
        play = play >> C("RCPT TO:<b@mx.example> NOTIFY=NEVER") << server("RCPT TO:<b@mx.example> NOTIFY=NEVER")
        play = play >> S("250 ok") << client("250 ok")
        assert (
            play >> C("RCPT TO:<b@mx.example> ALT-ADDRESS=c@mx.example") << client(answers.PARAMETER_NOT_OFFERED.wire)
        )
        assert "RCPT with ALT-ADDRESS" in play.logged[-1]

    def test_the_keywords_that_are_taken_out_are_logged_once_for_those_who_debug(self) -> None:
        for trace in (True, False):
            play = greeted(Options(trace=trace))
            for _ in range(2):
                play >> C("EHLO client.example") << server("EHLO client.example")
                play >> S("250-mx\n250-StartTLS\n250-SIZE\n250 CHUNKING") << client("250-mx\n250-SIZE\n250 XFILTERED")
            assert play
            told = [text for text in play.logged if "is not offered" in text]
            assert len(told) == (2 if trace else 0)
            assert all("STARTTLS" in text or "CHUNKING" in text for text in told)

    @pytest.mark.parametrize(
        "line",
        [
            b"NOOP\n",
            b"NO\0OP\r\n",
            b"NOOP\rMAIL FROM:<>\r\n",
            b"NOOP a\nRSET\r\n",
            b"\r\n",
            b"x" * 20000 + b"\r\n",
        ],
    )
    def test_lines_that_hide_something(self, line: bytes) -> None:
        play = greeted()
        given = play.session.feed(C(line))
        told = b"".join(effect.data for effect in given if isinstance(effect, SendClient))
        asked = b"".join(effect.data for effect in given if isinstance(effect, SendServer))
        assert told.startswith(b"500 5.5.")
        assert asked in {b"", b"QUIT\r\n"}
        assert play

    def test_only_so_many_mistakes(self) -> None:
        play = greeted()
        for _ in range(19):
            play.session.feed(C("STARTTL\0S"))
        assert not play.session.ended
        play.session.feed(C("STARTTL\0S"))
        assert play.session.ended
        assert play

    def test_a_bdat_chunk_is_not_read_as_commands(self) -> None:
        assert (
            greeted()
            >> C(b"BDAT 11 LAST\r\nMAIL ")
            << client(answers.USE_DATA.wire)
            >> C(b"FROM:<NOOP\r\n")
            << server("NOOP")
        )

    @pytest.mark.parametrize("command", ["BDAT 0 LAST", "BURL imap://x LAST"])
    def test_a_message_that_comes_as_it_once_could_is_not_bounced(self, command: str) -> None:
        """A client that remembers CHUNKING from before us tries again, and reads EHLO anew."""
        play = greeted() >> C(command) << client(answers.USE_DATA.wire) >> C("RSET") << server("RSET")
        assert play
        assert answers.USE_DATA.code == 451
        assert len(play.logged) == 1

    def test_exim_with_a_cache_from_before(self) -> None:
        """PIPECONNECT: all at once, before the greeting, by what the server offered when we were not there."""
        play = Playbook() >> C(
            b"EHLO c.example\r\nMAIL FROM:<a@c.example> SIZE=1\r\nRCPT TO:<b@mx>\r\nBDAT 12 LAST\r\nQUIT\r\nRSET\r\n"
        )
        play = play >> Connected(SERVER) >> S("220 mx") << client("220 mx") << server("EHLO c.example")
        play = play >> S("250-mx\n250-CHUNKING\n250-PIPELINING\n250-PIPECONNECT\n250 SIZE")
        play = play << client("250-mx\n250-PIPELINING\n250 SIZE")
        play = play << server("MAIL FROM:<a@c.example> SIZE=1\nRCPT TO:<b@mx>") >> S("250 1\n250 2")
        assert play << client(b"250 1\r\n250 2\r\n" + answers.USE_DATA.wire) >> C("QUIT") << server("QUIT")

    def test_chunks_are_mistakes(self) -> None:
        play = greeted()
        for _ in range(20):
            play.session.feed(C("BDAT 0"))
        assert play.session.ended
        assert play

    def test_a_bdat_size_that_is_none(self) -> None:
        play = greeted() >> C("BDAT many") << client(answers.BAD_CHUNK_SIZE.wire + answers.CLOSING_OUT_OF_STEP.wire)
        assert play << server("QUIT") << CloseServer() << CloseClient()

    def test_reject_answers_mail_rcpt_and_data(self) -> None:
        refuse = answers.BARE_NEWLINE_IN_TEXT
        play = introduced(Options(reject=refuse)) >> C("MAIL FROM:<a@x.example>") << client(refuse.wire)
        play = play >> C("RCPT TO:<a@x.example>") << client(refuse.wire)
        assert play >> C("DATA") << client(refuse.wire) >> C("RSET") << server("RSET")


class TestAuth:
    @pytest.mark.parametrize("verb", ["AUTH", "X-EXPS"])
    def test_continuation_lines_are_opaque(self, verb: str) -> None:
        """X-EXPS is Exchange's AUTH among its own."""
        assert (
            introduced(None, f"{verb} LOGIN")
            >> C(f"{verb} LOGIN")
            << server(f"{verb} LOGIN")
            >> S("334 VXNlcg==")
            << client("334 VXNlcg==")
            >> C("DATA")
            << server("DATA")
            >> S("334 UGFzcw==")
            << client("334 UGFzcw==")
            >> C("QUIT")
            << server("QUIT")
            >> S("235 ok")
            << client("235 ok")
            >> C("NOOP")
            << server("NOOP")
        )

    @pytest.mark.parametrize("verb", ["AUTH", "X-EXPS"])
    def test_no_secret_in_the_log(self, verb: str) -> None:
        play = introduced(Options(trace=True), f"{verb} PLAIN")
        play = play >> C(f"{verb} PLAIN c2VjcmV0") << server(f"{verb} PLAIN c2VjcmV0")
        assert play >> S("535 no") << client("535 no")
        assert any(f"CLIENT < {verb} ..." in line for line in play.logged)
        assert not any("c2VjcmV0" in line for line in play.logged)

    LONG = "A" * (COMMAND_LIMIT - 2)

    @pytest.mark.parametrize("rest", ["", "=", "==", "DATA", "+/"])
    @pytest.mark.parametrize("verb", ["AUTH", "X-EXPS"])
    def test_a_long_line_of_base64_passes(self, verb: str, rest: str) -> None:
        """12288 octets (RFC 4954 section 4): a Kerberos ticket."""
        line = f"{verb} GSSAPI {self.LONG}{rest}"
        play = introduced(None, "AUTH GSSAPI") >> C(line) << server(line) >> S("334 x") << client("334 x")
        assert play >> C(self.LONG + self.LONG + rest) << server(self.LONG + self.LONG + rest)

    @pytest.mark.parametrize("rest", [" ", "MAIL FROM:<evil@c.example>", "XCLIENT ADDR=127.0.0.1", "=A", "BDAT 9 LAST"])
    @pytest.mark.parametrize("verb", ["AUTH", "X-EXPS"])
    def test_a_long_line_is_no_two_commands_for_a_server_that_cuts_it(self, verb: str, rest: str) -> None:
        play = introduced(None, "AUTH GSSAPI")
        play = play >> C(f"{verb} GSSAPI {self.LONG}{rest}") << client(answers.LONG_AUTH_SYNTAX.wire)
        play = play >> C(f"{verb} GSSAPI") << server(f"{verb} GSSAPI") >> S("334 x") << client("334 x")
        assert play >> C(self.LONG + rest + "=") << server("*")
        assert any("two commands" in line for line in play.logged)

    def test_no_long_line_in_a_transaction(self) -> None:
        """Its rest could be DATA."""
        line = f"AUTH GSSAPI {self.LONG}DATA"
        play = introduced(None, "AUTH GSSAPI", "PIPELINING")
        play = play >> C("MAIL FROM:<a@c.example>") << server("MAIL FROM:<a@c.example>")
        play.session.feed(C(line))
        play = play >> S("250 ok") << client(b"250 ok\r\n" + answers.LONG_AUTH_SYNTAX.wire)
        assert play >> C(line) << client(answers.LONG_AUTH_SYNTAX.wire)

    def test_a_bad_continuation_cancels(self) -> None:
        assert (
            introduced(None, "AUTH LOGIN")
            >> C("AUTH LOGIN")
            << server("AUTH LOGIN")
            >> S("334 x")
            << client("334 x")
            >> C(b"ab\0c\r\n")
            << server("*")
            >> S("501 cancelled")
            << client("501 cancelled")
            >> C("NOOP")
            << server("NOOP")
        )


class TestXclient:
    OPTIONS = Options(xclient=True)

    def test_sent_before_the_client_is_answered(self) -> None:
        play = greeted(self.OPTIONS) >> C("EHLO client.example") << server("EHLO client.example")
        play = play >> S("250-mx\n250-PIPELINING\n250 XCLIENT ADDR HELO")
        play = play << server("XCLIENT ADDR=192.0.2.10 HELO=client.example")
        play = play >> S("220 mx again") << server("EHLO client.example")
        assert play >> S("250-mx\n250 PIPELINING") << client("250-mx\n250 PIPELINING")

    def test_sent_once(self) -> None:
        """The client's address does not change, however often it introduces itself."""
        play = greeted(self.OPTIONS)
        for event in (C("EHLO a.example"), S("250-mx\n250 XCLIENT ADDR"), S("220 mx"), S("250-mx\n250 XCLIENT ADDR")):
            play.session.feed(event)
        play = play >> C("EHLO a.example") << server("EHLO a.example")
        assert play >> S("250-mx\n250 XCLIENT ADDR") << client("250-mx\n250 XFILTERED")

    def test_an_ipv6_address_has_its_prefix(self) -> None:
        session = Session(self.OPTIONS, client_ip="2001:db8::7", local_ip="2001:db8::1", clock=str)
        for event in (Connected(SERVER), S("220 mx"), C("EHLO client.example")):
            session.feed(event)
        given = session.feed(S("250-mx\n250 XCLIENT NAME ADDR PORT"))
        assert server("XCLIENT NAME=[UNAVAILABLE] ADDR=IPV6:2001:db8::7") in given

    @pytest.mark.parametrize("letter", ["x", "=", "\xfc"])
    def test_no_name_is_too_long_for_the_servers_command_line(self, letter: str) -> None:
        """A server that refuses the line would not learn the address: the client would choose whether it does."""
        play = greeted(self.OPTIONS)
        play.session.feed(C(f"EHLO {letter * 900}"))
        given = play.session.feed(S("250-mx\n250 XCLIENT ADDR HELO"))
        (sent,) = (effect.data for effect in given if isinstance(effect, SendServer))
        assert play
        assert sent.startswith(b"XCLIENT ADDR=192.0.2.10")
        assert len(sent) <= 512

    def test_the_server_forgets_the_login(self) -> None:
        """XCLIENT resets it to the state before any command: who had logged in has to do so again."""
        play = greeted(Options(xclient=True, xclient_required=False, filtered=True, skip_authenticated=True))
        for event in (C("EHLO a.example"), S("250-mx\n250 AUTH PLAIN"), C("AUTH PLAIN AGEAYg=="), S("235 ok")):
            play.session.feed(event)
        play = play >> C("EHLO a.example") << server("EHLO a.example")
        play = play >> S("250-mx\n250 XCLIENT ADDR") << server("XCLIENT ADDR=192.0.2.10")
        play = play >> S("220 mx") << server("EHLO a.example") >> S("250-mx\n250 SIZE") << client("250-mx\n250 SIZE")
        for command in ("MAIL FROM:<a@a.example>", "RCPT TO:<b@mx.example>"):
            play = play >> C(command) << server(command) >> S("250 ok") << client("250 ok")
        assert play
        assert any(isinstance(effect, StartFilter) for effect in play.session.feed(C("DATA")))


class TestXforward:
    @pytest.mark.parametrize(
        ("said", "address", "helo"),
        [
            ("ADDR=198.51.100.7 HELO=a.example", b"198.51.100.7", b"a.example"),
            ("addr=ipv6:2001:db8::1 helo=a+2Bb", b"2001:db8::1", b"a+b"),
            ("HELO=a+00b+0AREMOTE+3D1+0D+7F+1B", b"", b"a?b?REMOTE=1???"),
            ("ADDR=[TEMPUNAVAIL] HELO=[unavailable]", b"", b""),
            ("ADDR=1+0A2 HELO=no+xtext", b"1?2", b""),
            ("HELO", b"", b""),
            (f"HELO={'+41' * 400}", b"", b"A" * 255),
            (f"ADDR={'1' * 900}", b"1" * 255, b""),
        ],
    )
    def test_what_filters_learn(self, said: str, address: bytes, helo: bytes) -> None:
        play = introduced(Options(filtered=True), "XFORWARD ADDR HELO")
        for command in (f"XFORWARD {said}", "MAIL FROM:<a@a.example>", "RCPT TO:<b@mx.example>"):
            play = play >> C(command) << server(command) >> S("250 ok") << client("250 ok")
        start = started(play)
        assert (start.remote, start.remote_helo) == (address, helo)

    @pytest.mark.parametrize("ending", ["RSET", "EHLO client.example"])
    def test_the_next_transaction_has_its_own(self, ending: str) -> None:
        """What XFORWARD said is for one transaction (Postfix XFORWARD_README)."""
        play = introduced(Options(filtered=True), "XFORWARD ADDR HELO")
        for command in ("XFORWARD ADDR=198.51.100.7 HELO=a.example", ending, *ENVELOPE):
            play.session.feed(C(command))
            play.session.feed(S("250 ok"))
        start = started(play)
        assert (start.remote, start.remote_helo) == (b"", b"")

    def test_an_rset_that_the_server_refuses_ends_no_transaction(self) -> None:
        play = introduced(Options(filtered=True), "XFORWARD ADDR HELO")
        for command in ("XFORWARD ADDR=198.51.100.7", *ENVELOPE, "RSET"):
            play.session.feed(C(command))
            play.session.feed(S("500 no" if command == "RSET" else "250 ok"))
        assert started(play).remote == b"198.51.100.7"


class TestIntroduction:
    def test_a_name_that_the_server_refuses_is_not_the_clients(self) -> None:
        play = introduced(Options(filtered=True))
        play = (
            play >> C("EHLO bad") << server("EHLO bad") >> S("501-no\n501 such name") << client("501-no\n501 such name")
        )
        for command in ENVELOPE:
            play.session.feed(C(command))
            play.session.feed(S("250 ok"))
        assert started(play).helo == b"client.example"

    def test_helo_takes_the_extensions_back(self) -> None:
        play = introduced(None, "PIPELINING")
        play = play >> C("HELO client.example") << server("HELO client.example") >> S("250 mx") << client("250 mx")
        assert play >> C("MAIL FROM:<a@a.example>\nRCPT TO:<b@mx.example>") << server("MAIL FROM:<a@a.example>")

    def test_helo_hides_the_name_as_the_greeting_does(self) -> None:
        play = greeted(Options(hidden_name=b"smtp.passthru"))
        play = play >> C("HELO client.example") << server("HELO client.example")
        assert play >> S("250 mx.example") << client("250 smtp.passthru")


class TestTooManyRecipients:
    def test_those_of_one_transaction_count(self) -> None:
        """A filter is told of 100,000 octets of recipients at most; the next message may have as many."""
        play = introduced(Options(filtered=True))
        refusals = []
        for _message in range(2):
            for event in (C(ENVELOPE[0]), S("250 ok")):
                play.session.feed(event)
            for _recipient in range(RECIPIENTS_LIMIT // 1001):
                assert isinstance(play.session.feed(C(f"RCPT TO:<{'b' * 998}@x>"))[0], SendServer)
                play.session.feed(S("250 ok"))
            refusals += play.session.feed(C(f"RCPT TO:<{'b' * 998}@x>"))
            for event in (C("RSET"), S("250 ok")):
                play.session.feed(event)
        assert play
        assert refusals.count(SendClient(answers.TOO_MANY_RECIPIENTS.wire)) == 2
        assert (
            answers.TOO_MANY_RECIPIENTS.code == 452
        )  # the client sends another message to those (RFC 5321 4.5.3.1.10)
        logged = [effect.text for effect in refusals if isinstance(effect, Log)]
        assert sum("too many recipients in one transaction" in text for text in logged) == 1
