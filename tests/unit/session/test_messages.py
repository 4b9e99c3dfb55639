"""Messages without a filter, bare newlines, and the server's reply to the final dot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.session import effects
from proxsmtp_tp.session.effects import (
    CloseClient,
    CloseServer,
    FilterAbort,
    FilterData,
    FilterFinish,
)
from proxsmtp_tp.session.events import (
    DeadlinePassed,
    MessageChunk,
    MessageEnd,
    ServerClosed,
    Shutdown,
)
from proxsmtp_tp.session.options import Options
from proxsmtp_tp.session.state import Wait
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.smtp.replies import LINE_LIMIT
from proxsmtp_tp.telemetry.counters import Counter
from tests.unit.session.message_playbook import FILTERED, TEXT, sending
from tests.unit.session.playbook import C, Playbook, S, addressed, client, server

if TYPE_CHECKING:
    from proxsmtp_tp.session.events import Event


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
