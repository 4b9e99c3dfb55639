"""Limits of a client, and locks: where in the dialogue they answer, what is counted, and what is left alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.config.rates import ClientLimit, LockReply, RateLimit
from proxsmtp_tp.filters.verdict import Action, Verdict
from proxsmtp_tp.session import effects
from proxsmtp_tp.session.effects import CloseClient, CloseServer
from proxsmtp_tp.session.events import FilterVerdict
from proxsmtp_tp.session.limiting import reply_to
from proxsmtp_tp.session.limits import Exceeded, Finding, Locked
from proxsmtp_tp.session.options import Options
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.smtp.replies import Reply
from proxsmtp_tp.telemetry.counters import Counter
from proxsmtp_tp.telemetry.facts import LimitRefusal
from tests.unit.session.playbook import C, Playbook, S, client, greeted, introduced, server

if TYPE_CHECKING:
    from collections.abc import Mapping

MAIL = "MAIL FROM:<a@client.example>"
RCPT = "RCPT TO:<b@mx.example>"
FILTERED = Options(filtered=True)
LOCKED = b"421 4.7.1 192.0.2.10 is locked until 2026-11-28T05:00:00Z (ClientSpam)\r\n"


class Given:
    """Answers from a script: for each question the findings in order, and then none. Keeps what was asked."""

    def __init__(self, **answers: list[Finding | None]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def _next(self, question: str) -> Finding | None:
        self.asked.append(question)
        waiting = self.answers.get(question, [])
        return waiting.pop(0) if waiting else None

    def connection(self, server: str) -> Finding | None:
        return self._next("connection")

    def message(self) -> Finding | None:
        return self._next("message")

    def recipient(self) -> Finding | None:
        return self._next("recipient")

    def happened(self, limit: ClientLimit) -> Finding | None:
        return self._next(limit.name.lower())


def over(limit: ClientLimit, seconds: int = 37) -> Finding:
    return Finding(Exceeded(limit, RateLimit(5, 60, 5), seconds))


def would(limit: ClientLimit) -> Finding:
    return Finding(None, (Exceeded(limit, RateLimit(5, 60, 5, shadow=True), 37),))


def lock(reply: LockReply = LockReply.TRY_AGAIN) -> Finding:
    return Finding(Locked("192.0.2.10", "2026-11-28T05:00:00Z", "ClientSpam", reply))


def with_recipient(play: Playbook) -> Playbook:
    """Sender and recipient are accepted."""
    for line in (MAIL, RCPT):
        play >> C(line) << server(line) >> S("250 ok") << client("250 ok")
    return play


def delivered(play: Playbook) -> Playbook:
    """The message is accepted."""
    play >> C("DATA") << server("DATA") >> S("354 go") << client("354 go")
    return play >> C("hello\n.") << server("hello\n.") >> S("250 taken") << client("250 taken")


@pytest.mark.parametrize(
    ("finding", "expected", "counter"),
    [
        (
            over(ClientLimit.CONNECTION_RATE),
            "421 4.7.1 Too many connections from your address (ClientConnectionRate), try again in 37 s",
            Counter.LIMITED_CONNECTION_RATE,
        ),
        (
            over(ClientLimit.CONNECTIONS, 0),
            "421 4.7.1 Too many connections from your address at once (ClientConnections), try again later",
            Counter.LIMITED_CONNECTIONS,
        ),
        (
            over(ClientLimit.SERVERS, 1),
            "421 4.7.1 Your address has connected to too many servers (ClientServers), try again in 1 s",
            Counter.LIMITED_SERVERS,
        ),
        (
            lock(),
            "421 4.7.1 192.0.2.10 is locked until 2026-11-28T05:00:00Z (ClientSpam)",
            Counter.LIMITED_LOCKED,
        ),
        (
            lock(LockReply.REFUSED),
            "554 5.7.1 192.0.2.10 is locked until 2026-11-28T05:00:00Z (ClientSpam)",
            Counter.LIMITED_LOCKED,
        ),
    ],
)
def test_a_connection_is_refused_in_place_of_the_greeting(finding: Finding, expected: str, counter: Counter) -> None:
    play = Playbook(limits=Given(connection=[finding]))
    given = play.session.check_limits("198.51.100.25")
    assert [effect for effect in given if isinstance(effect, effects.SendClient | CloseClient)] == [
        client(expected),
        CloseClient(),
    ]
    assert not any(isinstance(effect, effects.SendServer | CloseServer) for effect in given)
    assert play.session.ended
    assert [effect.counter for effect in given if isinstance(effect, effects.Count)] == [counter]
    (line,) = [effect.text for effect in given if isinstance(effect, effects.Log)]
    assert "client=192.0.2.10: refused with" in line
    assert play


def test_without_a_finding_the_connection_goes_on() -> None:
    play = Playbook(limits=Given())
    assert play.session.check_limits("198.51.100.25") == []
    assert not play.session.ended
    assert play


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (ClientLimit.MESSAGES, "Too many messages from your address (ClientMessages)"),
        (ClientLimit.REJECTS, "Servers have refused too many recipients of your address (ClientRejects)"),
        (ClientLimit.SPAM, "Too many messages from your address were refused (ClientSpam)"),
    ],
)
def test_mail_is_refused_and_the_session_goes_on(limit: ClientLimit, words: str) -> None:
    play = introduced(limits=Given(message=[over(limit), over(limit)]))
    refused = client(f"450 4.7.1 {words}, try again in 37 s")
    assert (
        play
        >> C(MAIL)
        << refused
        >> C(MAIL)
        << refused
        >> C(MAIL)
        << server(MAIL)
        >> S("250 ok")
        << client("250 ok")
        >> C("QUIT")
        << server("QUIT")
    )
    assert sum(play.counted.values()) == 2
    assert [line for line in play.logged if limit.value in line] == [
        f"client=192.0.2.10: refused with 450: {limit.value} 5/1m is reached, for 37 s"
    ]


def test_a_group_after_a_refused_mail_counts_nothing() -> None:
    """The server refuses its RCPT with 503: that is neither a recipient nor a rejected one."""
    limits = Given(message=[over(ClientLimit.MESSAGES)])
    play = introduced(None, "PIPELINING", limits=limits)
    refused = answers.limited(450, "ClientMessages", 37).wire
    assert (
        play
        >> C(f"{MAIL}\n{RCPT}\nDATA")
        << client(refused)
        << server(f"{RCPT}\nDATA")
        >> S("503 5.5.1 MAIL first\n554 5.5.1 no recipients")
        << client("503 5.5.1 MAIL first\n554 5.5.1 no recipients")
    )
    assert limits.asked == ["message"]


def test_recipients_are_refused_and_the_message_goes_to_the_others() -> None:
    limits = Given(recipient=[None, over(ClientLimit.RECIPIENTS), over(ClientLimit.REJECTS)])
    play = introduced(limits=limits)
    refused = client(
        "450 4.7.1 Too many recipients from your address (ClientRecipients), try again in 37 s",
    )
    rejects = client(answers.limited(450, "ClientRejects", 37).wire)
    with_recipient(play) >> C("RCPT TO:<c@mx.example>") << refused >> C("RCPT TO:<d@mx.example>") << rejects
    assert delivered(play)


def test_a_thousand_refused_recipients_in_a_group_do_not_end_the_session() -> None:
    number = 900
    play = introduced(None, "PIPELINING", limits=Given(recipient=[over(ClientLimit.RECIPIENTS) for _ in range(number)]))
    play.session.feed(C(MAIL))
    play.session.feed(S("250 ok"))
    play >> C("\n".join([RCPT] * number))
    assert play.counted[Counter.LIMITED_RECIPIENTS] == number
    assert not play.session.ended
    play._waiting.clear()
    assert play >> C("RSET") << server("RSET")


@pytest.mark.parametrize(
    ("answer", "counts"),
    [
        ("550 5.1.1 unknown", True),
        ("551 5.1.6 moved", True),
        ("553 5.1.3 odd", True),
        ("554 5.7.1 no relay", True),
        ("521 no mail", True),
        ("250 ok", False),
        ("450 4.2.1 later", False),
        ("452 4.5.3 many", False),
        ("500 what", False),
        ("501 5.1.3 syntax", False),
        ("503 5.5.1 order", False),
        ("530 5.7.0 login", False),
        ("552 5.2.2 full", False),
        ("555 5.5.4 parameter", False),
    ],
)
def test_what_counts_as_a_rejected_recipient(answer: str, counts: bool) -> None:
    limits = Given()
    play = introduced(limits=limits)
    for line in (C(MAIL), S("250 ok"), C(RCPT)):
        play.session.feed(line)
    play >> S(answer)
    play._waiting.clear()
    assert play
    assert limits.asked == ["message", "recipient", *(["rejects"] if counts else [])]


def test_a_reject_that_reaches_the_limit_is_passed_on_and_logged() -> None:
    play = introduced(limits=Given(rejects=[over(ClientLimit.REJECTS)]))
    for line in (C(MAIL), S("250 ok"), C(RCPT)):
        play.session.feed(line)
    assert play >> S("550 5.1.1 unknown") << client("550 5.1.1 unknown")
    assert "client=192.0.2.10: ClientRejects 5/1m is reached" in play.logged
    assert not play.counted


@pytest.mark.parametrize(
    ("action", "known", "counts"),
    [
        (Action.REJECT, {"said": "spam"}, True),
        (Action.TEMPFAIL, {"said": "spam"}, False),
        (Action.DISCARD, {"said": "spam"}, False),
        (Action.REJECT, {}, False),  # the filter failed
        (Action.REJECT, {"said": "too large", "unjudged": True}, False),
    ],
)
def test_a_message_that_the_filter_refuses_for_good_counts(action: Action, known: dict[str, Any], counts: bool) -> None:
    limits = Given(spam=[over(ClientLimit.SPAM)])
    play = introduced(FILTERED, limits=limits)
    for line in (C(MAIL), S("250 ok"), C(RCPT), S("250 ok"), C("DATA"), C("x\n.")):
        play.session.feed(line)
    said = Reply.of(550 if action is Action.REJECT else 451 if action is Action.TEMPFAIL else 250, "said")
    play >> FilterVerdict(Verdict(action, said, "", **known))
    play._waiting.clear()
    assert play
    assert ("spam" in limits.asked) is counts
    assert ("client=192.0.2.10: ClientSpam 5/1m is reached" in play.logged) is counts


@pytest.mark.parametrize("limit", ClientLimit)
def test_the_shadow_form_only_logs_and_counts(limit: ClientLimit) -> None:
    """Twice in a session: logged once, counted twice."""
    counter = Counter[f"SHADOW_{limit.name}"]
    if limit in {ClientLimit.CONNECTIONS, ClientLimit.CONNECTION_RATE, ClientLimit.SERVERS}:
        play = Playbook(limits=Given(connection=[would(limit), would(limit)]))
        given = play.session.check_limits("") + play.session.check_limits("")
        assert not play.session.ended
        assert [effect.counter for effect in given if isinstance(effect, effects.Count)] == [counter] * 2
        lines = [effect.text for effect in given if isinstance(effect, effects.Log)]
        assert play
    else:
        play = introduced(limits=Given(message=[would(limit)], recipient=[would(limit)]))
        assert with_recipient(play)
        assert play.counted == {counter: 2}
        lines = play.logged
    assert lines == [f"client=192.0.2.10: would be refused for 37 s: {limit.value} 5/1m shadow is reached"]


def test_a_client_that_is_locked_in_its_session_finishes_its_transaction() -> None:
    play = introduced(limits=Given(message=[None, lock()]))
    last = client(LOCKED)
    delivered(with_recipient(play))
    assert play >> C(MAIL) << last << server("QUIT") << CloseServer() << CloseClient()


def test_with_554_a_locked_client_may_go_on_and_each_mail_is_refused() -> None:
    play = introduced(limits=Given(message=[lock(LockReply.REFUSED)] * 2))
    refused = client("554 5.7.1 192.0.2.10 is locked until 2026-11-28T05:00:00Z (ClientSpam)")
    assert play >> C(MAIL) << refused >> C(MAIL) << refused >> C("NOOP") << server("NOOP")
    assert play.counted == {Counter.LIMITED_LOCKED: 2}


def test_a_lock_answers_after_the_replies_that_the_server_has_not_sent() -> None:
    play = introduced(None, "PIPELINING", limits=Given(message=[lock()]))
    assert (
        play
        >> C(f"RSET\n{MAIL}\n{RCPT}")
        << server("RSET")
        >> S("250 reset")
        << client(b"250 reset\r\n" + LOCKED)
        << server("QUIT")
        << CloseServer()
        << CloseClient()
    )


def test_a_mail_that_is_refused_for_another_reason_is_not_counted() -> None:
    limits = Given()
    play = introduced(FILTERED, limits=limits)
    play >> C("MAIL FROM:a b") << client(answers.SENDER_SYNTAX.wire)
    play._waiting.clear()
    play._failure = None
    assert play
    assert limits.asked == []
    reject = Given()
    play = greeted(Options(reject=Reply.of(550, "no")), limits=reject)
    assert play >> C(MAIL) << client("550 no")
    assert reject.asked == []


def test_every_limit_has_words_for_its_reply_and_counters() -> None:
    assert answers.LIMITED.keys() == {limit.value for limit in ClientLimit}
    names: Mapping[str, Counter] = Counter.__members__
    assert all(f"{kind}_{limit.name}" in names for limit in ClientLimit for kind in ("LIMITED", "SHADOW"))


@pytest.mark.parametrize("code", [421, 450])
@pytest.mark.parametrize("limit", ClientLimit)
def test_the_reply_names_the_limit_and_the_time(code: int, limit: ClientLimit) -> None:
    reply = reply_to(Exceeded(limit, RateLimit(1, 1, 1), 86400), code)
    assert reply.code == code
    text = reply.wire.decode()
    assert text.startswith(f"{code} 4.7.1 ")
    assert f"({limit.value}), try again in 86400 s" in text


def test_each_refusal_is_reported_with_its_command() -> None:
    """An event and a line in words come once in a session; pflogsumm counts each refusal."""
    messages, recipients = over(ClientLimit.MESSAGES), over(ClientLimit.RECIPIENTS)
    play = introduced(limits=Given(message=[messages, messages, None], recipient=[recipients]))
    told = []
    for line in (MAIL, MAIL, MAIL, RCPT):
        given = play.session.feed(C(line))
        if line == MAIL and not any(isinstance(effect, LimitRefusal) for effect in given):
            given += play.session.feed(S("250 ok"))
        told += [effect for effect in given if isinstance(effect, LimitRefusal)]
    assert [(each.command, each.sender, each.recipient, each.reply[:9]) for each in told] == [
        ("MAIL", b"a@client.example", None, b"450 4.7.1"),
        ("MAIL", b"a@client.example", None, b"450 4.7.1"),
        ("RCPT", b"a@client.example", b"b@mx.example", b"450 4.7.1"),
    ]
    assert play >> C("NOOP") << server("NOOP")
