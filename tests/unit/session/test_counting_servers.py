"""Servers count what is no mail (Exim: smtp_accept_max_nonmail, Postfix: smtpd_junk_command_limit), and disconnect. Our
own commands must not be more than a client without us would have sent; if the server still disconnects, the client gets
the reason, and may try again.
"""

from __future__ import annotations

import logging

import pytest

from proxsmtp_tp.filters.verdict import Action, Verdict
from proxsmtp_tp.session.effects import CloseClient, CloseServer, FilterAbort, FilterFinish, Log, SendServer
from proxsmtp_tp.session.events import DeadlinePassed, FilterVerdict, KeepAlive, ServerClosed
from proxsmtp_tp.session.options import Options
from proxsmtp_tp.session.state import Wait
from proxsmtp_tp.session.timing import NOOPS_LIMIT
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.smtp.replies import Reply
from tests.unit.session.playbook import C, Playbook, S, addressed, client, server

FILTERED = Options(filtered=True)
PASS = FilterVerdict(Verdict(Action.PASS, None, "exit 0", size=7))
REJECT = FilterVerdict(Verdict(Action.REJECT, Reply.of(550, "5.7.1 spam"), "exit 1"))
TOO_MANY = "554 Too many nonmail commands"
LEAVES = answers.server_leaves(TOO_MANY)
MAIL = "MAIL FROM:<c@client.example>"
RESET = client(answers.RESET.wire)


def judging(*keywords: str) -> Playbook:
    """A playbook whose message is at the filter."""
    play = addressed(FILTERED, *keywords)
    play.session.feed(C("DATA"))
    assert FilterFinish() in play.session.feed(C("text\n."))
    return play


def refused(*keywords: str) -> Playbook:
    """A playbook past a refused message; the server has been sent RSET, and has not answered it."""
    play = judging(*keywords)
    assert SendServer(b"RSET\r\n") in play.session.feed(REJECT)
    return play


# RSET.


def test_our_rset_replaces_the_clients() -> None:
    play = refused() >> S("250 reset") >> C("RSET") << RESET
    assert play >> C(MAIL) << server(MAIL) >> S("250 ok") << client("250 ok")
    assert answers.RESET.code == 250


def test_it_does_so_while_it_is_on_its_way() -> None:
    play = refused("PIPELINING") >> C("RSET") >> S("250 reset") << RESET
    assert play >> C(MAIL) << server(MAIL)


def test_what_is_pipelined_after_it_goes_on() -> None:
    play = refused("PIPELINING") >> C(f"RSET\n{MAIL}\nRCPT TO:<b@mx.example>")
    play = play << server(f"{MAIL}\nRCPT TO:<b@mx.example>") >> S("250 reset") << RESET
    assert play >> S("250 ok\n250 ok") << client("250 ok\n250 ok")


def test_each_rset_of_ours_replaces_one() -> None:
    play = refused() >> S("250 reset") >> C("RSET") << RESET
    assert play >> C("RSET") << server("RSET") >> S("250 again") << client("250 again") >> C("RSET") << server("RSET")


@pytest.mark.parametrize("command", [MAIL, "NOOP", "EHLO client.example", "XFORWARD ADDR=192.0.2.7", "VRFY b"])
def test_our_rset_replaces_no_later_one(command: str) -> None:
    play = refused() >> S("250 reset") >> C(command) << server(command) >> S("250 ok") << client("250 ok")
    assert play >> C("RSET") << server("RSET")


def test_without_a_refusal_each_rset_passes() -> None:
    play = addressed() >> C("RSET") << server("RSET") >> S("250 ok") << client("250 ok")
    assert play >> C("RSET") << server("RSET")


# The server leaves at our RSET.


@pytest.mark.parametrize("said", [TOO_MANY, "450 4.7.0 later", "503 no"])
def test_a_server_that_refuses_our_rset_leaves_and_the_next_command_gets_the_reason(said: str) -> None:
    play = refused() >> S(said) << CloseServer(abort=True) >> ServerClosed()
    assert play >> C(MAIL) << client(answers.server_leaves(said).wire) << CloseClient()
    assert any("the server refuses RSET" in line and said in line for line in play.logged)
    assert sum("the server closed the connection" in line for line in play.logged) == 0


def test_the_client_may_leave_first() -> None:
    play = refused() >> S(TOO_MANY) << CloseServer(abort=True) >> ServerClosed()
    assert play >> C("QUIT") << client(answers.BYE.wire) << CloseClient()


def test_it_is_not_waited_for_long() -> None:
    play = refused() >> S(TOO_MANY) << CloseServer(abort=True) >> ServerClosed()
    assert play >> DeadlinePassed(Wait.QUIT) << client(LEAVES.wire) << CloseClient()


def test_the_clients_rset_is_answered_and_what_follows_it_gets_the_reason() -> None:
    play = refused("PIPELINING") >> C("RSET") >> S(TOO_MANY) << CloseServer(abort=True) << RESET
    assert play >> C(MAIL) << client(LEAVES.wire) << CloseClient()


def test_commands_that_the_server_already_has_get_the_reason() -> None:
    play = refused("PIPELINING") >> C(f"RSET\n{MAIL}") << server(MAIL)
    play = play >> S(TOO_MANY) << CloseServer(abort=True) << client(answers.RESET.wire + LEAVES.wire)
    assert play << CloseClient()


def test_the_reply_is_a_reason_to_try_again() -> None:
    assert LEAVES.code == 421
    assert b"Too many nonmail commands" in LEAVES.wire


# NOOP.


def test_no_more_than_eight_noops_in_a_session() -> None:
    play = judging()
    for _ in range(NOOPS_LIMIT):
        play = play >> KeepAlive() << server("NOOP") >> S("250 ok")
    play = play >> KeepAlive() >> REJECT << FilterAbort() << client("550 5.7.1 spam") << server("RSET") >> S("250 ok")
    for command in (MAIL, "RCPT TO:<b@mx.example>"):
        play = play >> C(command) << server(command) >> S("250 ok") << client("250 ok")
    assert play
    play.session.feed(C("DATA"))
    assert play >> KeepAlive()
    assert NOOPS_LIMIT == 8


def test_a_server_that_refuses_noop_and_closes_is_reported_after_the_message() -> None:
    play = addressed(FILTERED)
    play.session.feed(C("DATA"))
    play = play >> KeepAlive() << server("NOOP") >> S(TOO_MANY) >> ServerClosed() << FilterAbort()
    assert play >> C("text\n.") << client(LEAVES.wire) << CloseClient()
    assert any("NOOP" in line and TOO_MANY in line for line in play.logged)


def test_or_at_once_where_the_message_is_complete() -> None:
    play = judging() >> KeepAlive() << server("NOOP") >> S(TOO_MANY) >> ServerClosed()
    assert play << client(LEAVES.wire) << FilterAbort() << CloseClient()


def test_or_where_the_message_has_just_passed() -> None:
    play = judging() >> KeepAlive() << server("NOOP") >> PASS >> S(TOO_MANY) << server("DATA") >> ServerClosed()
    assert play << client(LEAVES.wire) << FilterAbort() << CloseClient()


def test_a_server_that_only_knows_no_noop_gets_the_message_and_no_other_noop() -> None:
    play = judging() >> KeepAlive() << server("NOOP") >> S("502 what") >> KeepAlive()
    assert play >> PASS << server("DATA") >> S("452 full") << FilterAbort() << client("452 full") << server("RSET")


def test_the_reply_to_noop_is_no_reason_for_a_later_end() -> None:
    play = judging() >> KeepAlive() << server("NOOP") >> S("502 what") >> REJECT << FilterAbort()
    play = play << client("550 5.7.1 spam") << server("RSET") >> S("250 ok") >> ServerClosed()
    assert play << client(answers.SERVER_LOST.wire) << CloseClient()


def test_a_refused_noop_is_a_warning_once() -> None:
    play = addressed(FILTERED, strict=True)
    play.session.feed(C("DATA"))
    play.session.feed(KeepAlive())
    given = play.session.feed(S("502 what"))
    assert play
    assert [effect.level for effect in given if isinstance(effect, Log)] == [logging.WARNING]
