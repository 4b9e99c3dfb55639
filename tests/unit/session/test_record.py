"""What the session reports: each transaction once, each refusal, and the end of the session with its commands."""

from __future__ import annotations

import pytest

from proxsmtp_tp.filters.verdict import Action, Verdict
from proxsmtp_tp.session.events import (
    ClientClosed,
    Connected,
    Event,
    FilterVerdict,
    MessageChunk,
    MessageEnd,
    ServerClosed,
)
from proxsmtp_tp.session.options import Options
from proxsmtp_tp.session.record import REFUSED_KEPT, Trace
from proxsmtp_tp.session.session import Session
from proxsmtp_tp.smtp.replies import Reply
from proxsmtp_tp.telemetry.facts import Refusal, SessionEnd, Transaction
from tests.unit.session.playbook import SERVER, C, S, fed

FILTERED = Options(filtered=True)
MAIL, RCPT, DATA, QUIT = C("MAIL FROM:<a@c.example>"), C("RCPT TO:<b@mx.example>"), C("DATA"), C("QUIT")
OK = S("250 2.0.0 ok")
TEXT = C("Message-ID: <1@c.example>\nSubject: secret\n\nhello\n.")
JUDGED = b"Message-ID: <1@c.example>\r\nSubject: secret\r\n\r\nhello\r\n"
PASS = FilterVerdict(Verdict(Action.PASS, None, "passed", size=7))
SPAM = FilterVerdict(Verdict(Action.REJECT, Reply.quoting(550, "spam"), "exit 1", said="550 spam"))


class Told:
    """What a session reported; its clock advances by one second at each event."""

    def __init__(self, *scenario: Event, options: Options | None = None) -> None:
        self.now = 0.0
        session = Session(
            options or Options(),
            client_ip="192.0.2.10",
            local_ip="192.0.2.1",
            clock=str,
            trace=Trace("01JD8Q3K7C2VA", lambda: self.now),
        )
        given = []
        for event in (Connected(SERVER), S("220 mx"), C("EHLO c.example"), S("250 mx"), *scenario):
            self.now += 1
            given += fed(session, event)
        self.transactions = [effect for effect in given if isinstance(effect, Transaction)]
        self.refusals = [effect for effect in given if isinstance(effect, Refusal)]
        self.ends = [effect for effect in given if isinstance(effect, SessionEnd)]

    @property
    def statuses(self) -> list[str]:
        return [transaction.status for transaction in self.transactions]


def test_a_message_that_the_filter_passed() -> None:
    told = Told(
        MAIL, OK, RCPT, OK, DATA, TEXT, PASS, S("354 go"), MessageChunk(JUDGED), MessageEnd(), OK, options=FILTERED
    )
    (facts,) = told.transactions
    assert (facts.number, facts.status, facts.server, facts.helo) == (1, "FILTERED", SERVER, b"c.example")
    assert (facts.sender, facts.recipients, facts.refused) == (b"a@c.example", [b"b@mx.example"], [])
    assert (facts.reply, facts.origin, facts.verdict) == (b"250 2.0.0 ok\r\n", "server", "pass")
    assert (facts.size, facts.changed, facts.message_id) == (len(JUDGED), False, b"<1@c.example>")
    seconds = facts.seconds
    assert (seconds.client, seconds.filter, seconds.server, seconds.total) == (1, 1, 1, 9)


@pytest.mark.parametrize(
    ("passed", "changed"),
    [(JUDGED.replace(b"\r\n", b"\n"), False), (JUDGED + b"-- \r\n", True), (b"X: y\r\n" + JUDGED, True)],
)
def test_whether_the_filter_changed_it(passed: bytes, changed: bool) -> None:
    scenario = (MAIL, OK, RCPT, OK, DATA, TEXT, PASS, S("354 go"), MessageChunk(passed[:9]), MessageChunk(passed[9:]))
    (facts,) = Told(*scenario, MessageEnd(), OK, options=FILTERED).transactions
    assert facts.changed is changed


def test_a_message_that_the_filter_refused() -> None:
    (facts,) = Told(MAIL, OK, RCPT, OK, DATA, TEXT, SPAM, options=FILTERED).transactions
    assert (facts.status, facts.origin, facts.verdict, facts.changed) == ("550 spam", "filter", "reject", None)
    assert facts.seconds.server is None


def test_without_a_filter() -> None:
    (facts,) = Told(MAIL, OK, RCPT, OK, DATA, S("354 go"), TEXT, OK).transactions
    assert (facts.status, facts.changed, facts.message_id) == ("RELAYED", None, b"<1@c.example>")
    assert facts.seconds.filter is None
    assert facts.seconds.server == 1


def test_refused_recipients() -> None:
    told = Told(MAIL, OK, RCPT, S("550 5.1.1 who?"), C("RCPT TO:<c@mx.example>"), OK, DATA, S("354 go"), TEXT, OK)
    (facts,) = told.transactions
    assert (facts.recipients, facts.refused) == ([b"c@mx.example"], [(b"b@mx.example", 550)])
    assert told.refusals == [Refusal("RCPT", SERVER, b"a@c.example", b"b@mx.example", b"550 5.1.1 who?\r\n")]


@pytest.mark.parametrize(
    "last", [[C("RSET"), OK], [C("EHLO again"), S("250 mx")], [QUIT, S("221 bye")], [ServerClosed()]]
)
def test_a_transaction_of_which_nothing_comes(last: list[Event]) -> None:
    (refused,) = Told(MAIL, OK, RCPT, S("550 no"), *last).transactions
    assert (refused.status, refused.recipients, refused.is_message) == ("REFUSED", [], False)
    (abandoned,) = Told(MAIL, OK, RCPT, OK, *last).transactions
    assert (abandoned.status, abandoned.recipients, abandoned.is_message) == ("ABANDONED", [b"b@mx.example"], False)


def test_a_refused_sender() -> None:
    told = Told(MAIL, S("451 4.7.1 greylisted"), MAIL, OK, RCPT, OK, DATA, S("354 go"), TEXT, OK)
    refused, relayed = told.transactions
    assert (refused.number, refused.status, refused.sender) == (1, "REFUSED", b"a@c.example")
    assert refused.reply == b"451 4.7.1 greylisted\r\n"
    assert (relayed.number, relayed.status) == (2, "RELAYED")
    assert [refusal.command for refusal in told.refusals] == ["MAIL"]


def test_filter_type_reject() -> None:
    told = Told(MAIL, RCPT, DATA, QUIT, S("221 bye"), options=Options(reject=Reply.quoting(530, "no mail")))
    assert told.statuses == ["REJECTED"]
    assert told.transactions[0].sender == b"a@c.example"
    assert told.ends[0].commands == {"ehlo": (1, 0), "mail": (1, 1), "rcpt": (1, 1), "data": (1, 1), "quit": (1, 0)}


def test_many_guessed_recipients_take_little_memory() -> None:
    scenario: list[Event] = [MAIL, OK]
    for _ in range(REFUSED_KEPT + 7):
        scenario += [RCPT, S("550 no")]
    (facts,) = Told(*scenario, C("RSET"), OK).transactions
    assert (len(facts.refused), facts.refused_more) == (REFUSED_KEPT, 7)


def test_the_server_may_have_the_message() -> None:
    (facts,) = Told(MAIL, OK, RCPT, OK, DATA, S("354 go"), TEXT, ServerClosed()).transactions
    assert (facts.status, facts.duplicate_risk, facts.origin) == ("INTERRUPTED", True, "proxy")


@pytest.mark.parametrize(
    ("last", "how"),
    [
        ([QUIT, S("221 bye")], "quit"),
        ([ClientClosed(half=False)], "client"),
        ([ServerClosed()], "server"),
        ([S("250 what?")], "proxy"),
    ],
)
def test_the_end_of_the_session(last: list[Event], how: str) -> None:
    told = Told(MAIL, OK, C("STARTTLS"), C("FOO"), S("500 what"), C("BAR bar"), OK, *last)
    (end,) = told.ends
    assert end.how == how
    commands = dict(end.commands)
    commands.pop("quit", None)
    assert commands == {"ehlo": (1, 0), "mail": (1, 0), "starttls": (1, 1), "other": (2, 1)}
    assert (end.transactions, end.messages) == (1, 0)
    assert end.seconds == told.now
    assert told.statuses == ["ABANDONED"]
