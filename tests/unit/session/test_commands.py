"""Commands and replies: order, groups (PIPELINING), and replies that do not belong to a command."""

from __future__ import annotations

import pytest

from proxsmtp_tp.session.effects import CloseClient, CloseServer
from proxsmtp_tp.smtp import answers
from tests.unit.session.playbook import (
    C,
    S,
    client,
    greeted,
    introduced,
    server,
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
