"""The one line of each message in the log: who, from whom, to whom, what became of it, and what the client was told."""

from __future__ import annotations

from dataclasses import replace
from logging import INFO, WARNING

import pytest

from proxsmtp_tp.filters.verdict import Action, Verdict
from proxsmtp_tp.session.effects import Count, Log, SendServer
from proxsmtp_tp.session.events import (
    ClientClosed,
    Event,
    FilterVerdict,
    MessageChunk,
    MessageEnd,
    MessageTimedOut,
    MessageUnreadable,
    ServerClosed,
    Shutdown,
)
from proxsmtp_tp.session.options import Options
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.smtp.replies import Reply
from proxsmtp_tp.telemetry.counters import Counter
from proxsmtp_tp.telemetry.log_lines import LOGGED_RECIPIENTS
from proxsmtp_tp.telemetry.quoting import shown
from tests.unit.session.playbook import CLIENT, SERVER, C, S, addressed, introduced, logged

PLAIN, FILTERED = Options(), Options(filtered=True)
PLAIN_STRICT, FILTERED_STRICT = Options(refuse_bare_newlines=True), Options(filtered=True, refuse_bare_newlines=True)
PASS = FilterVerdict(Verdict(Action.PASS, None, "exit 0", size=7))
SPAM = FilterVerdict(Verdict(Action.REJECT, Reply.of(550, "Content Rejected; spam"), "exit 1", said="554 spam"))
CRASH = FilterVerdict(Verdict(Action.TEMPFAIL, Reply.of(451, "Local Error"), "signal 11"))
TAKEN = FilterVerdict(Verdict(Action.DISCARD, Reply.of(250, "taken"), "exit 1", said="250 taken"))
GO, TEXT, QUEUED = S("354 go"), C("hello\n."), S("250 queued")
SENT = (GO, MessageChunk(b"hello\r\n"), MessageEnd())

MESSAGES: dict[str, tuple[Options, tuple[Event, ...], str]] = {
    "relayed": (PLAIN, (GO, TEXT, QUEUED), "RELAYED|250 queued"),
    "relayed-refused": (PLAIN, (GO, TEXT, S("554 no")), "RELAYED|554 no"),
    "passed": (FILTERED, (TEXT, PASS, *SENT, QUEUED), "FILTERED|250 queued"),
    "passed-refused": (FILTERED, (TEXT, PASS, *SENT, S("550-not\n550 here")), "FILTERED|550-not / 550 here"),
    "passed-refused-at-data": (FILTERED, (TEXT, PASS, S("451 later")), "FILTERED|451 later"),
    "passed-refused-early": (FILTERED, (TEXT, PASS, *SENT[:2], S("552 big")), "FILTERED|552 big"),
    "spam": (FILTERED, (TEXT, SPAM), "554 spam|550 Content Rejected; spam, filter=exit 1"),
    "spam-early": (FILTERED, (C("hel"), SPAM, TEXT), "554 spam|550 Content Rejected; spam, filter=exit 1"),
    "discarded": (FILTERED, (TEXT, TAKEN), "250 taken|250 taken, filter=exit 1"),
    "filter-crashed": (FILTERED, (TEXT, CRASH), "FILTER-ERROR|451 Local Error, filter=signal 11"),
    "disk-full": (
        FILTERED,
        (TEXT, PASS, GO, MessageUnreadable("EIO")),
        f"FILTER-ERROR|{shown(answers.SPOOL_FAILED.wire)}",
    ),
    "bare-lf": (FILTERED_STRICT, (C(b"a\nb\r\n.\r\n"),), f"REFUSED|{shown(answers.BARE_NEWLINE_IN_TEXT.wire)}"),
    "no-bare-lf": (PLAIN_STRICT, (GO, TEXT, QUEUED), "RELAYED|250 queued"),
    "no-bare-lf-filtered": (FILTERED_STRICT, (TEXT, PASS, *SENT, QUEUED), "FILTERED|250 queued"),
    "server-lost-while-filtering": (FILTERED, (TEXT, ServerClosed()), f"INTERRUPTED|{shown(answers.SERVER_LOST.wire)}"),
    "server-lost-after-the-dot": (PLAIN, (GO, TEXT, ServerClosed()), f"INTERRUPTED|{shown(answers.SERVER_LOST.wire)}"),
    "server-lost-before": (PLAIN, (GO, ServerClosed(), TEXT), f"INTERRUPTED|{shown(answers.SERVER_LOST.wire)}"),
    "server-refuses-before": (PLAIN, (GO, S("552 big"), TEXT), "REFUSED|552 big"),
    "client-gone": (FILTERED, (C("hel"), ClientClosed(half=False)), "INTERRUPTED"),
    "client-gone-while-filtering": (FILTERED, (TEXT, ClientClosed(half=False)), "INTERRUPTED"),
    "too-slow": (FILTERED, (C("hel"), MessageTimedOut()), f"INTERRUPTED|{shown(answers.MESSAGE_TIMED_OUT.wire)}"),
    "daemon-stopped": (PLAIN, (GO, TEXT, Shutdown()), f"INTERRUPTED|{shown(answers.SHUTTING_DOWN.wire)}"),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_one_line_a_message(name: str) -> None:
    options, scenario, expected = MESSAGES[name]
    status, _, reply = expected.partition("|")
    play = addressed(options)
    given = [effect for event in (C("DATA"), *scenario) for effect in play.session.feed(event)]
    assert play
    line = f"client={CLIENT}, from=a@client.example, to=b@mx.example, status={status}, server={SERVER}"
    told = [found.partition(", size=")[0] for found in logged(given) if "status=" in found]
    assert told == [f"{line}, reply={reply}" if reply else line]


def test_recipients_of_the_null_sender() -> None:
    """Those whom the server accepted; a long list is cut."""
    play = introduced()
    play.session.feed(C("MAIL FROM:<>"))
    play.session.feed(S("250 ok"))
    for at in range(LOGGED_RECIPIENTS + 3):
        play.session.feed(C(f"RCPT TO:<r{at}@mx.example>"))
        play.session.feed(S("550 no" if at == 0 else "250 ok"))
    given = [effect for event in (C("DATA"), GO, TEXT, QUEUED) for effect in play.session.feed(event)]
    assert play
    named = ", ".join(f"to=r{at}@mx.example" for at in range(1, LOGGED_RECIPIENTS + 1))
    line = f"client={CLIENT}, from=<>, {named}, to=(2 more), status=RELAYED, server={SERVER}, reply=250 queued"
    assert line in [found.partition(", size=")[0] for found in logged(given)]


ERRORS = 'Traceback / ValueError: \\"x\\"'
# What the filter wrote to standard error is a line of its own, and a warning where the filter failed.
WROTE = {
    "failed": (CRASH, WARNING),
    "refused": (SPAM, INFO),
    "discarded": (TAKEN, INFO),
    "passed": (PASS, INFO),
}


@pytest.mark.parametrize("name", WROTE)
def test_standard_error_of_the_filter(name: str) -> None:
    event, level = WROTE[name]
    play = addressed(FILTERED)
    wrote = FilterVerdict(replace(event.verdict, errors=ERRORS))
    given = [effect for each in (C("DATA"), TEXT, wrote) for effect in play.session.feed(each)]
    line = f'client={CLIENT}: the filter wrote to standard error: "{ERRORS}"'
    assert play
    written = [effect for effect in given if isinstance(effect, Log)]
    assert [(effect.level, effect.essential) for effect in written if effect.text == line] == [(level, False)]


# FilterMode monitor: the verdict is PASS, and `monitored` what the filter said.
MONITORED = {
    "refused": (SPAM, "would reject: 550 Content Rejected; spam (exit 1)", 1),
    "failed": (CRASH, "would defer: 451 Local Error (signal 11)", 1),
    "discarded": (TAKEN, "would discard: 250 taken (exit 1)", 1),
    "passed": (PASS, "would pass", 0),
}


def monitored(said: FilterVerdict, detail: str) -> FilterVerdict:
    return FilterVerdict(Verdict(Action.PASS, None, detail, size=7, monitored=said.verdict))


@pytest.mark.parametrize("name", MONITORED)
def test_a_monitored_message_passes_is_logged_and_counted(name: str) -> None:
    said, detail, refused = MONITORED[name]
    play = addressed(FILTERED)
    scenario = (C("DATA"), TEXT, monitored(said, detail), S("354 go"), MessageChunk(b"x\r\n"), MessageEnd(), QUEUED)
    given = [effect for event in scenario for effect in play.session.feed(event)]
    assert play
    line = f"client={CLIENT}, from=a@client.example, to=b@mx.example, status=MONITORED, server={SERVER}"
    (told,) = [text for text in logged(given) if "status=" in text]
    assert told.startswith(f"{line}, reply=250 queued, filter=")
    assert detail in told
    assert SendServer(b"x\r\n") in given
    assert [effect.counter for effect in given if isinstance(effect, Count)] == [
        Counter.MONITORED, *[Counter.MONITORED_REFUSED] * refused
    ]  # fmt: skip


@pytest.mark.parametrize("server", ["452 full", "354 go"])
def test_a_monitored_message_that_the_server_refuses(server: str) -> None:
    play = addressed(FILTERED)
    scenario: list[Event] = [C("DATA"), TEXT, monitored(SPAM, "would reject"), S(server)]
    scenario += [] if server == "452 full" else [MessageChunk(b"x\r\n"), S("552 too much")]
    given = [effect for event in scenario for effect in play.session.feed(event)]
    assert play
    (line,) = [text for text in logged(given) if "status=" in text]
    assert "status=MONITORED" in line
