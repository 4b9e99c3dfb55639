"""What one feed may cost: whatever a peer sends at once, in whatever phase, the session acts on a bounded part of it.

Counted are the lines, text and replies acted on in a feed, and the lines logged and octets sent for them: work of a few
milliseconds at most, so that other connections have their turn. `bench/feeds.py` measures the time of the same cases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.session import client as client_module
from proxsmtp_tp.session import effects, events, server, verbs
from proxsmtp_tp.session.dialogue import OUTSTANDING_OCTETS
from proxsmtp_tp.session.effects import CloseClient, CloseServer
from proxsmtp_tp.session.options import Options
from proxsmtp_tp.session.refusing import ERROR_LIMIT, OVERSHOOT
from proxsmtp_tp.session.state import Wait
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.smtp.lines import AUTH_LIMIT, LineBuffer
from proxsmtp_tp.smtp.replies import ReplyReader
from tests.unit.session.feeds import CASES, SIZES, Case, Feeder
from tests.unit.session.playbook import C, S, addressed, client, fed, introduced, logged
from tests.unit.session.playbook import server as server_gets

if TYPE_CHECKING:
    from collections.abc import Callable

REFUSE = answers.BARE_NEWLINE_IN_TEXT
REJECT = Options(reject=REFUSE)


class Work:
    """Counts what the session does, from one feed to the next."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lines = 0
        self.text = 0
        self.replies = 0
        self.octets = 0
        self._count(monkeypatch, LineBuffer, "next_line", self._line)
        self._count(
            monkeypatch, LineBuffer, "take", lambda result: setattr(self, "text", self.text + len(result or b""))
        )
        self._count(monkeypatch, ReplyReader, "next", lambda _result: setattr(self, "replies", self.replies + 1))

    def _line(self, line: bytes | None) -> None:
        self.lines += 1
        self.octets += len(line or b"")

    def _count(
        self, monkeypatch: pytest.MonkeyPatch, where: type, name: str, count: Callable[[bytes | None], None]
    ) -> None:
        real = getattr(where, name)

        def counted(*arguments: object, **named: object) -> object:
            result = None
            try:
                result = real(*arguments, **named)
            finally:
                count(result)
            return result

        monkeypatch.setattr(where, name, counted)

    def check(self, event: events.Event, given: list[effects.Effect]) -> None:
        """After one feed."""
        assert self.lines <= client_module.LINES_PER_FEED, event
        assert self.text <= client_module.TEXT_PER_FEED, event
        assert self.octets <= client_module.LINE_OCTETS_PER_FEED + AUTH_LIMIT, event
        assert self.replies <= server.REPLIES_PER_FEED, event
        # A trace has each line as it came and as it was sent.
        assert len(logged(given)) <= 2 * (client_module.LINES_PER_FEED + server.REPLIES_PER_FEED + 2), event
        self.forget()

    def forget(self) -> None:
        """Count anew."""
        self.lines = self.octets = self.text = self.replies = 0


@pytest.mark.parametrize("case", CASES, ids=str)
def test_one_feed_acts_on_so_much(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work(monkeypatch)
    for size in SIZES:
        feeder = Feeder(case.options)
        case.prepare(feeder)
        work.forget()
        feeder.watch = work.check
        feeder.client_sends(case.data(size))
        assert not feeder.session.more or not feeder.most, f"of {size} octets nothing is left that could be acted on"
        assert feeder.given, "the session did something"


@pytest.mark.parametrize("size", SIZES)
def test_one_feed_acts_on_so_many_replies(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """1000 commands wait for an answer, and the server gives all of them at once, and more."""
    feeder = Feeder(Options(), answering=False)
    feeder.introduce("PIPELINING")
    feeder.client_sends(b"RSET\r\n" * 2000)
    work = Work(monkeypatch)
    feeder.watch = work.check
    feeder.feed(events.ServerData((b"250 ok\r\n" * size)[:size]))


def test_everything_a_client_sent_counts_before_its_end() -> None:
    """A group of more lines than one feed acts on, then FIN: each still reaches the server."""
    play = introduced(None, "PIPELINING")
    first = play.session.feed(C("RSET\n" * 120 + "QUIT"))
    assert play.session.more
    given = first + fed(play.session, events.ClientClosed(half=True))
    sent = b"".join(effect.data for effect in given if isinstance(effect, effects.SendServer))
    assert sent == b"RSET\r\n" * 120 + b"QUIT\r\n"
    assert not play.session.ended
    assert play


def test_a_message_counts_that_was_whole_before_the_client_closed() -> None:
    """Its end of data is here, only not acted on yet: FIN does not make half a message of it."""
    play = addressed()
    for event in (C("DATA"), S("354 go")):
        fed(play.session, event)
    text = b"x" * 70 + b"\r\n"
    first = play.session.feed(C(text * 5000 + b".\r\nQUIT\r\n"))
    assert play.session.more
    given = first + fed(play.session, events.ClientClosed(half=True))
    sent = b"".join(effect.data for effect in given if isinstance(effect, effects.SendServer))
    assert sent == text * 5000 + b".\r\n"
    assert play >> S("250 queued") << client("250 queued") << server_gets("QUIT")


def test_everything_a_server_said_counts_before_its_end() -> None:
    """More replies than one feed acts on, then it closes: the client gets each, and 421 for what was not answered."""
    play = introduced(None, "PIPELINING")
    fed(play.session, C("\n".join(["RSET"] * 300)))
    first = play.session.feed(S("\n".join(["250 ok"] * 299)))
    assert play.session.more
    given = first + fed(play.session, events.ServerClosed())
    told = b"".join(effect.data for effect in given if isinstance(effect, effects.SendClient))
    assert told == b"250 ok\r\n" * 299 + answers.SERVER_LOST.wire
    assert play.session.ended
    assert play


def test_a_message_in_pieces_is_whole() -> None:
    """Text behind DATA that is more than one feed acts on, and commands behind it."""
    play = introduced(None, "PIPELINING")
    text = b"x" * 70 + b"\r\n"
    whole = b"MAIL FROM:<a@c.example>\r\nRCPT TO:<b@mx.example>\r\nDATA\r\n"
    fed(play.session, C(whole))
    for answer in ("250 ok", "250 ok", "354 go"):
        fed(play.session, S(answer))
    given = fed(play.session, C(text * 5000 + b".\r\nRSET\r\n"))
    sent = b"".join(effect.data for effect in given if isinstance(effect, effects.SendServer))
    assert sent == text * 5000 + b".\r\n"
    assert play >> S("250 queued") << client("250 queued") << server_gets("RSET")


class TestErrorLimit:
    @pytest.mark.parametrize(
        "line", ["BURL imap://x", "STARTTLS", "XCLIENT NAME=x", "BDAT 0", "BDAT 1 LAST\nx", "XEXCH50 1 2", "", "\0"]
    )
    def test_what_we_refuse_ourselves_is_an_error(self, line: str) -> None:
        play = introduced()
        given = fed(play.session, C("\n".join([line] * 1000)))
        told = b"".join(effect.data for effect in given if isinstance(effect, effects.SendClient))
        assert told.count(b"\r\n") == ERROR_LIMIT + 1
        assert told.endswith(answers.TOO_MANY_ERRORS.wire)
        assert play.session.ended
        assert play

    def test_data_with_an_argument_is_an_error(self) -> None:
        play = introduced(Options(filtered=True))
        given = fed(play.session, C("\n".join(["DATA now"] * 1000)))
        assert play.session.ended
        told = b"".join(effect.data for effect in given if isinstance(effect, effects.SendClient))
        assert told.endswith(answers.TOO_MANY_ERRORS.wire)
        assert play

    def test_a_bad_line_in_auth_is_an_error(self) -> None:
        play = introduced(None, "AUTH LOGIN")
        for _ in range(ERROR_LIMIT):
            assert not play.session.ended
            for event in (C("AUTH LOGIN"), S("334 x"), C("a\rb"), S("501 canceled")):
                fed(play.session, event)
        assert play.session.ended
        assert play

    def test_a_message_that_was_accepted_resets_the_count(self) -> None:
        """As in Postfix: a connection that stays open for many messages meets the limit where it delivers nothing."""
        play = introduced()
        for _ in range(3):
            fed(play.session, C("\n".join(["BURL x"] * (ERROR_LIMIT - 1))))
            for command, answer in (
                ("MAIL FROM:<a@c.example>", "250 ok"),
                ("RCPT TO:<b@mx.example>", "250 ok"),
                ("DATA", "354 go"),
                (".", "250 queued"),
            ):
                fed(play.session, C(command))
                fed(play.session, S(answer))
        assert not play.session.ended
        assert play

    def test_a_message_that_was_refused_does_not(self) -> None:
        play = introduced()
        fed(play.session, C("\n".join(["BURL x"] * (ERROR_LIMIT - 1))))
        for command, answer in (("MAIL FROM:<a@c>", "250 ok"), ("RCPT TO:<b@mx>", "250 ok"), ("DATA", "354 go")):
            fed(play.session, C(command))
            fed(play.session, S(answer))
        fed(play.session, C("."))
        fed(play.session, S("550 no"))
        fed(play.session, C("BURL x"))
        assert play.session.ended
        assert play


class TestReject:
    """FilterType reject: each command of a real client is answered as by 1.10; a flood is not."""

    def test_a_group_of_recipients_is_answered_as_it_comes(self) -> None:
        play = introduced(REJECT, "PIPELINING")
        recipients = "\n".join(f"RCPT TO:<{number}@mx.example>" for number in range(OVERSHOOT))
        given = fed(play.session, C(f"MAIL FROM:<a@c.example>\n{recipients}\nDATA"))
        told = b"".join(effect.data for effect in given if isinstance(effect, effects.SendClient))
        assert told == REFUSE.wire * (OVERSHOOT + 2)
        assert play >> C("RSET") << server_gets("RSET") >> S("250 ok") << client("250 ok")

    def test_a_flood_of_mail_ends(self) -> None:
        play = introduced(REJECT)
        given = fed(play.session, C("\n".join(["MAIL FROM:<a@c.example>"] * 1000)))
        told = b"".join(effect.data for effect in given if isinstance(effect, effects.SendClient))
        assert told == REFUSE.wire * ERROR_LIMIT + answers.TOO_MANY_ERRORS.wire
        assert len(logged(given)) == ERROR_LIMIT + 1
        assert play

    @pytest.mark.parametrize("line", ["RCPT TO:<b@mx.example>", "DATA"])
    def test_a_flood_after_mail_ends(self, line: str) -> None:
        play = introduced(REJECT)
        given = fed(play.session, C("MAIL FROM:<a@c.example>\n" + "\n".join([line] * 5000)))
        told = b"".join(effect.data for effect in given if isinstance(effect, effects.SendClient))
        assert told.count(REFUSE.wire) == 1 + OVERSHOOT + 1 + ERROR_LIMIT - 1
        assert told.endswith(answers.TOO_MANY_ERRORS.wire)
        assert play

    def test_rset_in_between_changes_nothing(self) -> None:
        play = introduced(REJECT)
        rounds = 0
        while not play.session.ended:
            rounds += 1
            fed(play.session, C("\n".join(["RCPT TO:<b@mx.example>"] * 100)))
            fed(play.session, C("RSET"))
            if not play.session.ended:
                fed(play.session, S("250 ok"))
        assert rounds == 11
        assert play


def test_recipients_past_the_limit_are_errors_when_they_are_too_many() -> None:
    """452 for a group that is longer than we remember: the client may send the rest later. A flood is none."""
    play = introduced(Options(filtered=True), "PIPELINING")
    for event in (C("MAIL FROM:<a@c.example>"), S("250 ok")):
        fed(play.session, event)
    play.session._d.recipient_octets = verbs.RECIPIENTS_LIMIT
    given = fed(play.session, C("\n".join(["RCPT TO:<b@mx.example>"] * OVERSHOOT)))
    told = b"".join(effect.data for effect in given if isinstance(effect, effects.SendClient))
    assert told == answers.TOO_MANY_RECIPIENTS.wire * OVERSHOOT
    given = fed(play.session, C("\n".join(["RCPT TO:<b@mx.example>"] * ERROR_LIMIT)))
    told = b"".join(effect.data for effect in given if isinstance(effect, effects.SendClient))
    assert told == answers.TOO_MANY_RECIPIENTS.wire * ERROR_LIMIT + answers.TOO_MANY_ERRORS.wire
    assert play


def test_commands_that_wait_for_a_reply_are_bounded_in_octets() -> None:
    play = introduced(None, "PIPELINING")
    line = "RCPT TO:<b@mx.example> X=" + "x" * 1500
    given = fed(play.session, C("\n".join([line] * 500)))
    sent = sum(len(effect.data) for effect in given if isinstance(effect, effects.SendServer))
    assert OUTSTANDING_OCTETS <= sent <= OUTSTANDING_OCTETS + 2048
    assert play >> S("250 ok") << client("250 ok") << server_gets(line)


class TestWhoDoesNotRead:
    def test_no_command_is_acted_on_until_the_client_reads(self) -> None:
        play = introduced() >> events.ClientFull(full=True) >> C("STARTTLS\nNOOP")
        play = play >> events.ClientFull(full=False) << client(answers.NO_TLS.wire) << server_gets("NOOP")
        assert play >> S("250 ok") << client("250 ok")

    def test_only_reading_ends_its_deadline(self) -> None:
        """What the server says meanwhile, or the client still sends, is no progress."""
        play = introduced(None, "PIPELINING", strict=True) >> C("RSET\nRSET") << server_gets("RSET\nRSET")
        play = play << effects.Deadline(Wait.REPLY)
        play = play >> events.ClientFull(full=True) << effects.Deadline(Wait.READING)
        play = play >> S("250 ok") << client("250 ok") >> C("RSET")
        play = play >> events.ClientFull(full=False) << server_gets("RSET") << effects.Deadline(Wait.REPLY)
        assert play

    def test_it_is_told_when_the_deadline_passes(self) -> None:
        play = introduced() >> C("NOOP") << server_gets("NOOP") >> events.ClientFull(full=True)
        play = play >> events.DeadlinePassed(Wait.READING) << client(answers.CLIENT_TIMED_OUT.wire)
        assert play << CloseServer(abort=True) << CloseClient()

    def test_a_complete_message_is_settled_first(self) -> None:
        """After the final dot the server decides, and its reply has the time that the RFC wants."""
        play = addressed() >> C("DATA") << server_gets("DATA")
        fed(play.session, S("354 go"))
        fed(play.session, C("."))
        play = play >> events.ClientFull(full=True) >> events.DeadlinePassed(Wait.READING)
        assert play >> events.DeadlinePassed(Wait.SENDING)
        assert not play.session.ended

    def test_what_it_asked_before_is_answered(self) -> None:
        play = introduced() >> C("NOOP") << server_gets("NOOP") >> events.ClientFull(full=True)
        assert play >> S("250 ok") << client("250 ok")


def test_many_short_recipients_are_bounded_too() -> None:
    """A recipient costs more memory than its line has octets."""
    play = introduced()
    for event in (C("MAIL FROM:<a@c.example>"), S("250 ok")):
        fed(play.session, event)
    accepted = 0
    while accepted < 20_000:
        given = fed(play.session, C("RCPT TO:<b@c>"))
        if not any(isinstance(effect, effects.SendServer) for effect in given):
            break
        fed(play.session, S("250 ok"))
        accepted += 1
    assert accepted == verbs.RECIPIENTS_KEPT // (len(b"RCPT TO:<b@c>\r\n") + verbs.RECIPIENT_OVERHEAD)
    assert play


def test_a_command_that_we_answer_ourselves_extends_the_deadline() -> None:
    """Not while the server has not replied: a client cannot keep a silent server's connection open."""
    play = introduced(None, "PIPELINING", strict=True)
    for _ in range(2):
        given = play.session.feed(C("STARTTLS"))
        assert effects.Deadline(Wait.COMMAND) in given
    assert effects.Deadline(Wait.REPLY) in play.session.feed(C("RSET"))
    given = play.session.feed(C("RSET"))
    assert server_gets("RSET") in given
    assert not any(isinstance(effect, effects.Deadline) for effect in given)
    assert play
