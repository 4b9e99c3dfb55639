"""The greeting, EHLO and HELO, and the end of the session by QUIT."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.session.effects import CloseClient, CloseServer, Log, SendClient, SendServer
from proxsmtp_tp.session.events import Connected, ConnectFailed, DeadlinePassed, ServerClosed, Shutdown
from proxsmtp_tp.session.options import Options
from proxsmtp_tp.session.session import Session
from proxsmtp_tp.session.state import Wait
from proxsmtp_tp.smtp import answers
from tests.unit.session.playbook import (
    MAIL_AND_RCPT,
    SERVER,
    C,
    Playbook,
    S,
    client,
    filter_start,
    greeted,
    introduced,
    server,
)

if TYPE_CHECKING:
    from proxsmtp_tp.session.events import Event


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
def test_a_server_without_a_greeting(happening: list[Event], reason: str, early: bytes, resets: bool) -> None:
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


def test_a_server_that_closes_after_its_greeting_is_reported_by_421() -> None:
    play = greeted(Options(reset_unreachable=True))
    assert play >> ServerClosed() << client(answers.SERVER_LOST.wire) << CloseClient()


def test_client_that_talks_first_waits() -> None:
    assert Playbook() >> C("EHLO early") >> Connected(SERVER) >> S("220 mx") << client("220 mx") << server("EHLO early")


def test_unknown_verbs_pass_verbatim() -> None:
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


class TestIntroduction:
    def test_a_name_that_the_server_refuses_is_not_the_clients(self) -> None:
        play = introduced(Options(filtered=True))
        play = (
            play >> C("EHLO bad") << server("EHLO bad") >> S("501-no\n501 such name") << client("501-no\n501 such name")
        )
        for command in MAIL_AND_RCPT:
            play.session.feed(C(command))
            play.session.feed(S("250 ok"))
        assert filter_start(play).helo == b"client.example"

    def test_helo_takes_the_extensions_back(self) -> None:
        play = introduced(None, "PIPELINING")
        play = play >> C("HELO client.example") << server("HELO client.example") >> S("250 mx") << client("250 mx")
        assert play >> C("MAIL FROM:<a@a.example>\nRCPT TO:<b@mx.example>") << server("MAIL FROM:<a@a.example>")

    def test_helo_hides_the_name_as_the_greeting_does(self) -> None:
        play = greeted(Options(hidden_name=b"smtp.passthru"))
        play = play >> C("HELO client.example") << server("HELO client.example")
        assert play >> S("250 mx.example") << client("250 smtp.passthru")
