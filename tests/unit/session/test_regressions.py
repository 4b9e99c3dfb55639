"""Every bug report begins as a transcript here; each failed before its fix."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.session import effects, events
from proxsmtp_tp.session.dialogue import OUTSTANDING_LIMIT
from proxsmtp_tp.session.options import Options
from proxsmtp_tp.session.state import Wait
from proxsmtp_tp.session.verbs import RECIPIENTS_KEPT
from proxsmtp_tp.smtp import answers
from tests.unit.session.playbook import C, S, addressed, client, fed, greeted, introduced, server

if TYPE_CHECKING:
    from proxsmtp_tp.smtp.replies import Reply

GONE = events.ClientClosed(half=True)
FILTERED = Options(filtered=True)


# A client that has sent all it will ever send, before its DATA was acted on.


def test_half_a_message_after_data_and_the_client_is_gone() -> None:
    """`printf 'DATA\\r\\nhalf' | nc`: waited for TimeOut, since the end of the client's bytes had come before."""
    play = addressed()
    assert (
        play
        >> C(b"DATA\r\nhalf") << server("DATA")
        >> GONE
        >> S("354 go") << client("354 go") << server(b"half")
        << effects.CloseServer(abort=True) << effects.CloseClient()
    )  # fmt: skip


def test_half_a_filtered_message_and_the_client_is_gone() -> None:
    play = introduced(FILTERED)
    play.session.feed(C(b"MAIL FROM:<a@c.example>\r\nRCPT TO:<b@mx.example>\r\nDATA\r\nhalf"))
    play.session.feed(GONE)
    play.session.feed(S("250 ok"))
    given = play.session.feed(S("250 ok"))
    assert [effect for effect in given if isinstance(effect, effects.FilterAbort | effects.CloseClient)] == [
        effects.FilterAbort(),
        effects.CloseClient(),
    ]
    assert play.session.ended
    assert play


def test_a_whole_message_after_data_and_the_client_only_finished_sending() -> None:
    assert (
        addressed()
        >> C(b"DATA\r\nwhole\r\n.\r\nQUIT\r\n") << server("DATA")
        >> GONE
        >> S("354 go") << client("354 go") << server(b"whole\r\n.\r\n")
        >> S("250 queued") << client("250 queued") << server("QUIT")
        >> S("221 bye") << effects.CloseServer() << client("221 bye") << effects.CloseClient()
    )  # fmt: skip


def test_half_a_chunk_and_the_client_is_gone() -> None:
    play = greeted()
    assert (
        play
        >> C(b"NOOP\r\nBDAT 10\r\nhalf") << server("NOOP")
        >> GONE
        >> S("250 ok") << client(b"250 ok\r\n" + answers.USE_DATA.wire) << server("QUIT")
        << effects.CloseServer() << effects.CloseClient()
    )  # fmt: skip


def test_a_client_that_is_gone_for_good_gets_no_second_message_delivered() -> None:
    """It pipelined two, and reset the connection after the first: what waits behind that one is not acted on."""
    assert (
        addressed()
        >> C("DATA") << server("DATA")
        >> S("354 go") << client("354 go")
        >> C("one\n.\nMAIL FROM:<a@c.example>\nRCPT TO:<b@mx.example>") << server("one\n.")
        >> events.ClientClosed(half=False)
        >> S("250 queued") << client("250 queued") << server("QUIT")
        << effects.CloseServer() << effects.CloseClient()
    )  # fmt: skip


# Limits that had none.


def test_a_server_that_never_answers_is_not_asked_for_ever() -> None:
    """RSET after RSET in one group, of a client whose server reads and is silent: each one took memory."""
    play = introduced(None, "PIPELINING")
    given = fed(play.session, C("\n".join(["RSET"] * (2 * OUTSTANDING_LIMIT))))
    sent = b"".join(effect.data for effect in given if isinstance(effect, effects.SendServer))
    assert sent.count(b"RSET\r\n") == OUTSTANDING_LIMIT
    given = play.session.feed(S("250 ok"))
    assert effects.SendServer(b"RSET\r\n") in given
    assert play


def test_a_client_does_not_recharge_the_servers_deadline() -> None:
    play = introduced(None, "PIPELINING", strict=True)
    assert (
        play
        >> C("RSET") << server("RSET") << effects.Deadline(Wait.REPLY)
        >> C("RSET") << server("RSET")
        >> S("250 ok") << client("250 ok") << effects.Deadline(Wait.REPLY)
    )  # fmt: skip


def test_recipients_are_kept_in_bounded_memory() -> None:
    """Also where nobody judges, and where it is their parameters that are long."""
    for options in (None, FILTERED):
        play = introduced(options)
        play.session.feed(C("MAIL FROM:<a@c.example>"))
        play.session.feed(S("250 ok"))
        accepted = 0
        while True:
            given = play.session.feed(C(f"RCPT TO:<{accepted}@mx.example> ORCPT=rfc822;{'x' * 1900}"))
            if effects.SendClient(answers.TOO_MANY_RECIPIENTS.wire) in given:
                break
            play.session.feed(S("250 ok"))
            accepted += 1
        assert 100 < accepted * 1900 < RECIPIENTS_KEPT < 4 * accepted * 1900
        assert play


def test_a_refused_chunk_has_a_total_limit() -> None:
    """BDAT of a terabyte, an octet at a time: each one recharged the idle limit."""
    play = greeted(strict=True)
    assert (
        play
        >> C(b"BDAT 1000000\r\n") << effects.Log(20, "client=192.0.2.10: BDAT is not offered through this proxy")
        << effects.MessageClock(running=True) << client(answers.USE_DATA.wire) << effects.Deadline(Wait.TEXT)
        >> C(b"x") << effects.Deadline(Wait.TEXT)
    )  # fmt: skip
    given = play.session.feed(events.MessageTimedOut())
    assert effects.SendClient(answers.MESSAGE_TIMED_OUT.wire) in given
    assert play.session.ended


def test_a_chunk_that_ends_stops_its_clock() -> None:
    play = greeted(strict=True)
    given = play.session.feed(C(b"BDAT 3 LAST\r\n"))
    assert effects.MessageClock(running=True) in given
    given = play.session.feed(C(b"abcNOOP\r\n"))
    assert effects.MessageClock(running=False) in given
    assert effects.SendServer(b"NOOP\r\n") in given
    assert play


# One line of the client is one command with one reply, whatever is in it.


REFUSED = answers.COMMAND_BARE_LF.wire + answers.CLOSING_BARE_LF.wire
GOODBYE = (server("QUIT"), effects.CloseServer(), effects.CloseClient())


@pytest.mark.parametrize("behind", [b"", b"MAIL FROM:<evil@c>\nQUIT\r\n", b"MAIL FROM:<evil@c>\r\nNOOP\r\n", b"\r\n"])
def test_octets_after_a_bare_lf_are_no_command(behind: bytes) -> None:
    """Its sender sent one line, or ends all of them like that: only the end of the connection is right in both cases.

    A second command would be smuggled, a second reply out of step, and no reply at all is what `nc` got until TimeOut.
    """
    play = greeted() >> C(b"NOOP\n" + behind) << client(REFUSED)
    for effect in GOODBYE:
        play = play << effect
    assert play >> C("MAIL FROM:<evil@c>")
    assert any("bare LF" in line for line in play.logged)


def test_a_line_of_nc_that_comes_in_two_pieces() -> None:
    play = greeted() >> C(b"EHLO nc.exam") >> C(b"ple\n") << client(REFUSED)
    for effect in GOODBYE:
        play = play << effect
    assert play


def test_what_came_before_a_bare_lf_is_answered_first() -> None:
    play = introduced(None, "PIPELINING") >> C(b"RSET\r\nRSET\nMAIL FROM:<evil@c>\r\n") << server("RSET")
    play = play >> S("250 ok") << client(b"250 ok\r\n" + REFUSED)
    for effect in GOODBYE:
        play = play << effect
    assert play


@pytest.mark.parametrize(("length", "reply"), [(3000, answers.COMMAND_BARE_LF), (20000, answers.LINE_TOO_LONG)])
def test_octets_after_the_bare_lf_of_a_long_line_are_no_command(length: int, reply: Reply) -> None:
    play = greeted() >> C(b"x" * length) >> C(b"x\r") >> C(b"\n")
    play = play << client(answers.LINE_TOO_LONG.wire)  # with its CRLF it is a line like any other
    play = play >> C("NOOP") << server("NOOP") >> S("250 ok") << client("250 ok")
    play = play >> C(b"x" * length + b"\nMAIL FROM:<evil@c>\r\n")
    play = play << client(reply.wire + answers.CLOSING_BARE_LF.wire)
    for effect in GOODBYE:
        play = play << effect
    assert play


def test_octets_after_a_bare_lf_in_auth_are_no_command() -> None:
    play = introduced(None, "AUTH LOGIN")
    play.session.feed(C("AUTH LOGIN"))
    play.session.feed(S("334 VXNlcm5hbWU6"))
    play = play >> C(b"abc\nMAIL FROM:<evil@c>\r\nNOOP\r\n") << server("*")
    play = play >> S("501 cancelled") << client(b"501 cancelled\r\n" + answers.CLOSING_BARE_LF.wire)
    for effect in GOODBYE:
        play = play << effect
    assert play


def test_no_empty_message_for_a_server_that_wants_no_sender() -> None:
    """It took RCPT without MAIL, and says 354: a lone dot would be a message that nobody judged."""
    play = introduced(FILTERED)
    play.session.feed(C("RCPT TO:<b@mx>"))
    play.session.feed(S("250 ok"))
    assert (
        play
        >> C("DATA") << server("DATA")
        >> S("354 go") << effects.CloseServer(abort=True) << client(answers.OUT_OF_STEP.wire) << effects.CloseClient()
    )  # fmt: skip


# AUTH: what its exchange takes for a line.


@pytest.mark.parametrize("reply", ["354 go", "300 x"])
def test_only_334_continues_auth(reply: str) -> None:
    play = introduced(None, "AUTH LOGIN") >> C("AUTH LOGIN") << server("AUTH LOGIN") >> S(reply)
    assert play << effects.CloseServer(abort=True) << client(answers.OUT_OF_STEP.wire) << effects.CloseClient()


def test_a_drop_inside_auth_says_no_quit_in_place_of_a_password() -> None:
    play = introduced(None, "AUTH LOGIN") >> C("AUTH LOGIN") << server("AUTH LOGIN")
    play = play >> S("334 VXNlcg==") << client("334 VXNlcg==")
    assert play >> events.ClientClosed(half=False) << effects.CloseServer(abort=True) << effects.CloseClient()
