"""Commands and parameters that the session refuses by itself."""

from __future__ import annotations

import pytest

from proxsmtp_tp.session.effects import CloseClient, CloseServer, Log, SendClient, SendServer
from proxsmtp_tp.session.events import Connected
from proxsmtp_tp.session.options import Options
from proxsmtp_tp.session.verbs import RECIPIENTS_LIMIT
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.smtp.capabilities import REFUSED_VERBS
from tests.unit.session.playbook import (
    MAIL_AND_RCPT,
    SERVER,
    C,
    Playbook,
    S,
    client,
    greeted,
    introduced,
    server,
)


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

    def test_no_refused_verb_reaches_the_server(self) -> None:
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

    def test_rcpt_with_a_second_address_is_refused(self) -> None:
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


class TestTooManyRecipients:
    def test_those_of_one_transaction_count(self) -> None:
        """A filter is told of 100,000 octets of recipients at most; the next message may have as many."""
        play = introduced(Options(filtered=True))
        refusals = []
        for _message in range(2):
            for event in (C(MAIL_AND_RCPT[0]), S("250 ok")):
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
