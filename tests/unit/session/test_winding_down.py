"""The end of a worker, and of a connection that lasts too long: what clients may still do.

After a reload, a connection accepted before it may finish one transaction and send QUIT. When the daemon stops, or the
connection is too old, only a running transaction may finish.
"""

from __future__ import annotations

import pytest

from proxsmtp_tp.filters.verdict import Action, Verdict
from proxsmtp_tp.session import effects, events
from proxsmtp_tp.session.events import Connected, DeadlinePassed, Shutdown, WindDown
from proxsmtp_tp.session.options import Options
from proxsmtp_tp.session.state import Reason, Wait
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.smtp.replies import Reply
from tests.unit.session.playbook import SERVER, C, Playbook, S, addressed, client, greeted, introduced, server

RELOAD = WindDown(Reason.RELOAD)
STOP = WindDown(Reason.STOP)
AGE = WindDown(Reason.AGE)
CLOSING = answers.SHUTTING_DOWN.wire


def ended(play: Playbook, last: bytes = CLOSING) -> Playbook:
    """The connection ends between two commands."""
    return play << client(last) << server("QUIT") << effects.CloseServer() << effects.CloseClient()


def parting(play: Playbook) -> Playbook:
    """The client has had its turn, and may leave as it likes: by QUIT, or by saying nothing more."""
    assert play.session.feed(DeadlinePassed(Wait.COMMAND)) == [], "the end waits for no QUIT"
    return ended(play >> DeadlinePassed(Wait.QUIT))


def one_transaction(play: Playbook) -> Playbook:
    """From MAIL to the end of data; the caller feeds the server's reply to the message."""
    return (
        play
        >> C("MAIL FROM:<a@c.example>") << server("MAIL FROM:<a@c.example>")
        >> S("250 ok") << client("250 ok")
        >> C("RCPT TO:<b@mx.example>") << server("RCPT TO:<b@mx.example>")
        >> S("250 ok") << client("250 ok")
        >> C("DATA") << server("DATA")
        >> S("354 go") << client("354 go")
        >> C("hello\n.") << server("hello\n.")
        >> S("250 queued")
    )  # fmt: skip


# A reload.


def test_a_reload_before_the_greeting_is_not_noticed_until_after_the_message() -> None:
    play = (
        Playbook()
        >> RELOAD
        >> Connected(SERVER)
        >> S("220 mx ESMTP") << client("220 mx ESMTP")
        >> C("EHLO c.example") << server("EHLO c.example")
        >> S("250 mx") << client("250 mx")
    )  # fmt: skip
    assert parting(one_transaction(play) << client("250 queued"))


def test_a_reload_between_the_connection_and_the_greeting() -> None:
    assert Playbook() >> Connected(SERVER) >> RELOAD >> S("220 mx ESMTP") << client("220 mx ESMTP")


@pytest.mark.parametrize("connected", [[], [Connected(SERVER)]], ids=["dialling", "connected"])
def test_a_second_notice_of_the_same_reload_changes_nothing(connected: list[events.Event]) -> None:
    play = Playbook()
    for event in [RELOAD, *connected, RELOAD]:
        play = play >> event
    if not connected:
        play = play >> Connected(SERVER)
    play = play >> S("220 mx ESMTP") << client("220 mx ESMTP") >> RELOAD
    play = play >> C("EHLO c.example") << server("EHLO c.example") >> S("250 mx") << client("250 mx") >> RELOAD
    assert parting(one_transaction(play) << client("250 queued"))


@pytest.mark.parametrize("first", [STOP, AGE])
def test_a_reload_after_a_stop_allows_nothing_more(first: WindDown) -> None:
    play = addressed() >> first >> RELOAD >> C("RSET") << server("RSET") >> S("250 ok")
    last = CLOSING if first is STOP else answers.SESSION_TOO_LONG.wire
    assert ended(play, b"250 ok\r\n" + last)


def test_a_reload_while_the_client_introduces_itself() -> None:
    play = greeted() >> RELOAD >> C("EHLO c.example") << server("EHLO c.example") >> S("250 mx") << client("250 mx")
    assert parting(one_transaction(play) << client("250 queued"))


def test_a_reload_in_auth_lets_the_message_come_after_it() -> None:
    play = introduced(None, "AUTH LOGIN") >> C("AUTH LOGIN") << server("AUTH LOGIN") >> S("334 VXNlcg==")
    play = play << client("334 VXNlcg==") >> RELOAD >> C("bmFtZQ==") << server("bmFtZQ==")
    play = play >> S("235 welcome") << client("235 welcome")
    assert parting(one_transaction(play) << client("250 queued"))


def test_a_reload_in_a_transaction_waits_for_its_end() -> None:
    play = addressed() >> RELOAD >> C("RSET") << server("RSET") >> S("250 ok")
    assert parting(play << client("250 ok"))


def test_a_reload_between_two_transactions_lets_the_client_quit() -> None:
    """The message was accepted: a 421 in place of the answer to QUIT looks like a refusal to some clients."""
    play = one_transaction(introduced()) << client("250 queued") >> RELOAD
    play = play >> C("QUIT") << server("QUIT") >> S("221 bye")
    assert play << effects.CloseServer() << client("221 bye") << effects.CloseClient()


def test_a_reload_between_two_transactions_waits_for_the_client_a_little() -> None:
    assert parting(one_transaction(introduced()) << client("250 queued") >> RELOAD)


def test_who_leaves_is_not_logged_as_late() -> None:
    play = one_transaction(introduced()) << client("250 queued") >> RELOAD
    assert ended(play >> DeadlinePassed(Wait.QUIT))
    assert not [line for line in play.logged if "timed out" in line]


@pytest.mark.parametrize("command", ["MAIL FROM:<a@c.example>", "RSET", "NOOP", "EHLO c.example"])
def test_a_reload_between_two_transactions_lets_no_other_begin(command: str) -> None:
    """Who keeps connections for later asks by RSET or NOOP whether this one is still good."""
    assert ended(one_transaction(introduced()) << client("250 queued") >> RELOAD >> C(command))


def test_a_reload_after_mail_lets_what_was_pipelined_with_it_come() -> None:
    """The transaction begins with the server's 250, but the client's part of it has begun with MAIL."""
    play = one_transaction(introduced(None, "PIPELINING")) << client("250 queued")
    play = play >> C("MAIL FROM:<a@c.example>") << server("MAIL FROM:<a@c.example>") >> RELOAD
    play = play >> C("RCPT TO:<b@mx.example>") << server("RCPT TO:<b@mx.example>")
    assert play >> S("250 ok\n250 ok") << client("250 ok\n250 ok")


def test_a_reload_in_auth_between_two_transactions_gives_the_client_its_time() -> None:
    """Passwords are typed by hand at times; only between commands is QUIT all that is waited for."""
    play = one_transaction(introduced(None, "AUTH LOGIN")) << client("250 queued")
    play = play >> C("AUTH LOGIN") << server("AUTH LOGIN") >> S("334 VXNlcg==") << client("334 VXNlcg==") >> RELOAD
    assert play.session.feed(DeadlinePassed(Wait.QUIT)) == []
    assert parting(play >> C("bmFtZQ==") << server("bmFtZQ==") >> S("235 welcome") << client("235 welcome"))


def test_a_second_message_in_the_same_group_is_told_421() -> None:
    """The client sent MAIL behind its final dot: the 421 is the answer to that, and it will come again."""
    play = addressed() >> RELOAD >> C("DATA") << server("DATA") >> S("354 go") << client("354 go")
    play = play >> C("hello\n.\nMAIL FROM:<a@c.example>") << server("hello\n.") >> S("250 queued")
    assert ended(play, b"250 queued\r\n" + CLOSING)


@pytest.mark.parametrize("reply", ["450 4.7.1 Greylisted", "550 5.7.1 No"])
def test_a_sender_that_the_server_refuses_was_the_turn_of_that_client(reply: str) -> None:
    play = introduced() >> RELOAD >> C("MAIL FROM:<a@c.example>") << server("MAIL FROM:<a@c.example>") >> S(reply)
    assert parting(play << client(reply))


def test_a_sender_that_we_refuse_was_the_turn_of_that_client() -> None:
    play = introduced(Options(reject=Reply.of(550, "No"))) >> RELOAD >> C("MAIL FROM:<a@c.example>")
    assert parting(play << client("550 No"))


def test_a_message_that_its_filter_refuses_was_the_turn_of_that_client() -> None:
    play = introduced(Options(filtered=True))
    for event in (RELOAD, C("MAIL FROM:<a@c>"), S("250 ok"), C("RCPT TO:<b@mx>"), S("250 ok"), C("DATA\nhello\n.")):
        play.session.feed(event)
    refused = events.FilterVerdict(Verdict(Action.REJECT, Reply.of(550, "No"), "exit 1"))
    play = play >> refused << effects.FilterAbort() << client("550 No") << server("RSET")
    assert parting(play >> S("250 ok"))


def test_a_reload_does_not_keep_a_client_that_only_says_noop() -> None:
    """It is served, until DrainTimeOut has passed."""
    play = greeted() >> RELOAD >> C("NOOP") << server("NOOP") >> S("250 ok") << client("250 ok")
    assert ended(play >> Shutdown())


def test_a_stop_after_a_reload_waits_for_no_idle_client() -> None:
    assert ended(introduced() >> RELOAD >> STOP)
    assert Playbook() >> RELOAD >> STOP << client(CLOSING) << effects.CloseServer(abort=True) << effects.CloseClient()
    play = addressed() >> RELOAD >> STOP >> C("RSET") << server("RSET") >> S("250 ok")
    assert ended(play, b"250 ok\r\n" + CLOSING)


def test_a_reload_makes_no_connection_younger() -> None:
    play = greeted() >> C("EHLO c") << server("EHLO c") >> AGE >> RELOAD >> S("250 mx")
    assert ended(play, b"250 mx\r\n" + answers.SESSION_TOO_LONG.wire)


# The end of the daemon, and of a connection's time.


@pytest.mark.parametrize(("event", "reply"), [(STOP, answers.SHUTTING_DOWN), (AGE, answers.SESSION_TOO_LONG)])
def test_an_idle_client_gets_421_at_once(event: WindDown, reply: Reply) -> None:
    assert ended(greeted() >> event, reply.wire)
    assert ended(introduced() >> event, reply.wire)


@pytest.mark.parametrize("event", [STOP, AGE])
def test_a_client_without_greeting_gets_421_at_once(event: WindDown) -> None:
    play = Playbook() >> Connected(SERVER) >> event
    assert play << client(CLOSING) << effects.CloseServer(abort=True) << effects.CloseClient()


@pytest.mark.parametrize(("event", "reply"), [(STOP, answers.SHUTTING_DOWN), (AGE, answers.SESSION_TOO_LONG)])
def test_a_running_transaction_may_end(event: WindDown, reply: Reply) -> None:
    play = addressed() >> event >> C("DATA") << server("DATA") >> S("354 go") << client("354 go")
    play = play >> C("hello\n.") << server("hello\n.") >> S("250 queued")
    assert ended(play, b"250 queued\r\n" + reply.wire)
