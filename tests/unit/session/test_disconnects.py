"""A message during which the client, the server or the daemon ends."""

from __future__ import annotations

import pytest

from proxsmtp_tp.session.effects import (
    CloseClient,
    CloseServer,
    FilterAbort,
    FilterData,
    ReadMessage,
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
from proxsmtp_tp.session.state import Wait
from proxsmtp_tp.smtp import answers
from tests.unit.session.message_playbook import FILTERED, PASS, REJECT, TEXT, judging, sending
from tests.unit.session.playbook import SERVER, C, Playbook, S, addressed, client, introduced, server


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

    def test_server_during_an_unfiltered_message(self) -> None:
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
