"""The command bypass: messages that no filter judges."""

from __future__ import annotations

import pytest

from proxsmtp_tp.session import effects
from proxsmtp_tp.session.effects import (
    FilterData,
    FilterFinish,
)
from proxsmtp_tp.session.options import Options
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.telemetry.counters import Counter
from tests.unit.session.message_playbook import FILTERED, STARTED, TEXT
from tests.unit.session.playbook import C, Playbook, S, addressed, client, introduced, logged, server


class TestBypassed:
    """The command bypass: the filter is bypassed from one DATA to the next."""

    def play(self, options: Options = FILTERED, *keywords: str, now: list[bool] | None = None) -> Playbook:
        play = addressed(options, *keywords)
        play.session.use_bypass(lambda: now is None or now[0])
        return play

    def test_the_message_is_streamed_logged_and_counted(self) -> None:
        play = self.play() >> C("DATA") << server("DATA") >> S("354 go") << client("354 go")
        play = play >> C("Subject: x\n\nbody\n.") << server("Subject: x\n\nbody\n.")
        given = play.session.feed(S("250 queued"))
        assert play
        (line,) = [text for text in logged(given) if "status=" in text]
        assert "status=BYPASSED" in line
        assert effects.Count(Counter.BYPASSED) in given

    def test_no_header_says_that_it_was_judged(self) -> None:
        play = self.play(Options(filtered=True, header="X-Filtered: yes")) >> C("DATA") << server("DATA")
        assert play >> S("354 go") << client("354 go") >> C("a\n\nb\n.") << server("a\n\nb\n.")

    def test_the_envelope_is_read_as_strictly_as_for_the_filter(self) -> None:
        play = introduced(FILTERED)
        play.session.use_bypass(lambda: True)
        assert play >> C("MAIL FROM:joe (x) <a@x.example>") << client(answers.SENDER_SYNTAX.wire)

    def test_each_message_for_itself(self) -> None:
        now = [True]
        play = self.play(now=now) >> C("DATA") << server("DATA") >> S("354 go") << client("354 go")
        now[0] = False  # it ends while a message is on its way
        play = play >> C("a\n.") << server("a\n.") >> S("250 queued") << client("250 queued")
        for command in ("MAIL FROM:<a@client.example>", "RCPT TO:<b@mx.example>"):
            play = play >> C(command) << server(command) >> S("250 ok") << client("250 ok")
        play = play >> C("DATA") << STARTED << client(answers.START_DATA.wire)
        now[0] = True
        assert play >> C(TEXT + b".\r\n") << FilterData(TEXT) << FilterFinish()

    def test_a_group(self) -> None:
        play = introduced(FILTERED, "PIPELINING")
        play.session.use_bypass(lambda: True)
        group = "MAIL FROM:<a@x.example>\nRCPT TO:<b@y.example>\nDATA"
        play = play >> C(group) << server(group) >> S("250 1\n250 2\n354 go") << client("250 1\n250 2\n354 go")
        assert play >> C("a\n.") << server("a\n.")

    @pytest.mark.parametrize("options", [Options(), Options(filtered=True, skip_authenticated=True)])
    def test_nothing_changes_where_nothing_is_judged(self, options: Options) -> None:
        play = introduced(options)
        play.session.use_bypass(lambda: True)
        if options.skip_authenticated:
            play = play >> C("AUTH EXTERNAL =") << server("AUTH EXTERNAL =") >> S("235 ok") << client("235 ok")
        for command in ("MAIL FROM:<a@client.example>", "RCPT TO:<b@mx.example>"):
            play = play >> C(command) << server(command) >> S("250 ok") << client("250 ok")
        play = play >> C("DATA") << server("DATA") >> S("354 go") << client("354 go")
        play = play >> C("a\n.") << server("a\n.")
        given = play.session.feed(S("250 queued"))
        assert play
        assert not [text for text in logged(given) if "BYPASSED" in text]
        assert effects.Count(Counter.BYPASSED) not in given
