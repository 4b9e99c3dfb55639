"""XCLIENT to the server, and XFORWARD from a client."""

from __future__ import annotations

import pytest

from proxsmtp_tp.session.effects import SendServer, StartFilter
from proxsmtp_tp.session.events import Connected
from proxsmtp_tp.session.options import Options
from proxsmtp_tp.session.session import Session
from tests.unit.session.playbook import (
    MAIL_AND_RCPT,
    SERVER,
    C,
    S,
    client,
    filter_start,
    greeted,
    introduced,
    server,
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
        start = filter_start(play)
        assert (start.remote, start.remote_helo) == (address, helo)

    @pytest.mark.parametrize("ending", ["RSET", "EHLO client.example"])
    def test_the_next_transaction_has_its_own(self, ending: str) -> None:
        """What XFORWARD said is for one transaction (Postfix XFORWARD_README)."""
        play = introduced(Options(filtered=True), "XFORWARD ADDR HELO")
        for command in ("XFORWARD ADDR=198.51.100.7 HELO=a.example", ending, *MAIL_AND_RCPT):
            play.session.feed(C(command))
            play.session.feed(S("250 ok"))
        start = filter_start(play)
        assert (start.remote, start.remote_helo) == (b"", b"")

    def test_an_rset_that_the_server_refuses_ends_no_transaction(self) -> None:
        play = introduced(Options(filtered=True), "XFORWARD ADDR HELO")
        for command in ("XFORWARD ADDR=198.51.100.7", *MAIL_AND_RCPT, "RSET"):
            play.session.feed(C(command))
            play.session.feed(S("500 no" if command == "RSET" else "250 ok"))
        assert filter_start(play).remote == b"198.51.100.7"
