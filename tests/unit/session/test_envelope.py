"""Sender and recipients: what a filter is told is what the server gets (promise 7)."""

from __future__ import annotations

import pytest

from proxsmtp_tp.session.effects import StartFilter
from proxsmtp_tp.session.options import Options
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.smtp.envelope import Envelope
from tests.unit.session.playbook import C, S, client, introduced, server

FILTERED = Options(filtered=True)
ODD = [
    "Joe Doe <blocked@x.example>",
    "<(c)blocked@x.example>",
    "<blocked @x.example>",
    "<g:blocked@x.example;>",
    "<blocked>",
    "<blocked@x.example",
]


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("<a@x.example>", "a@x.example"),
        ("<block\\ed@x.example>", "blocked@x.example"),
        ('<"blocked"@x.example>', "blocked@x.example"),
        ("<blocked@x.example.>", "blocked@x.example"),
        ("<@a.example,@b.example:blocked@x.example>", "blocked@x.example"),
        (" blocked@x.example", "blocked@x.example"),
        ('<"b d"@x.example>', '"b d"@x.example'),
    ],
)
def test_a_filter_learns_what_the_server_gets(written: str, told: str) -> None:
    play = introduced(FILTERED, "PIPELINING")
    group = f"MAIL FROM:{written} SIZE=1\nRCPT TO:{written} NOTIFY=NEVER\nRCPT TO:<Postmaster>"
    sent = f"MAIL FROM:<{told}> SIZE=1\nRCPT TO:<{told}> NOTIFY=NEVER\nRCPT TO:<Postmaster>"
    play = play >> C(group) << server(sent) >> S("250 1\n250 2\n250 3") << client("250 1\n250 2\n250 3")
    assert play
    (start,) = (effect for effect in play.session.feed(C("DATA")) if isinstance(effect, StartFilter))
    address = told.encode()
    assert start.envelope == Envelope(address, b"SIZE=1", [address, b"Postmaster"], [b"NOTIFY=NEVER", b""])


@pytest.mark.parametrize("written", ODD)
def test_what_has_no_single_reading_is_refused_where_a_filter_gets_the_address(written: str) -> None:
    play = introduced(FILTERED) >> C(f"MAIL FROM:{written}") << client(answers.SENDER_SYNTAX.wire)
    play = play >> C(f"MAIL FROM:{written}") << client(answers.SENDER_SYNTAX.wire)
    play = play >> C("MAIL FROM:<a@x.example>") << server("MAIL FROM:<a@x.example>") >> S("250 ok") << client("250 ok")
    play = play >> C(f"RCPT TO:{written}") << client(answers.RECIPIENT_SYNTAX.wire)
    assert play >> C("RCPT TO:<b@x.example> <c@x.example>") << client(answers.PARAMETER_SYNTAX.wire)
    named = [line for line in play.logged if "in more than one way" in line]
    assert len(named) == 2  # once for MAIL, once for RCPT, in a connection
    assert named[0].endswith(f": MAIL FROM:{written}")
    assert named[1].endswith(f": RCPT TO:{written}")


@pytest.mark.parametrize("options", [Options(), Options(filtered=True, skip_authenticated=True)])
@pytest.mark.parametrize("written", [*ODD, "", "<a@x.example>x", "<a@x.example> (c) <b@x.example>"])
def test_it_passes_as_it_is_where_no_filter_gets_the_address(options: Options, written: str) -> None:
    play = introduced(options, "AUTH PLAIN")
    if options.skip_authenticated:
        play = play >> C("AUTH PLAIN AGEAYg==") << server("AUTH PLAIN AGEAYg==") >> S("235 ok") << client("235 ok")
    for command in (f"MAIL FROM:{written}", f"RCPT TO:{written}", f"SAML FROM:{written}"):
        play = play >> C(command) << server(command) >> S("250 ok") << client("250 ok")
    assert play


def test_a_refused_sender_is_none() -> None:
    """The next MAIL begins; RCPT without one is the server's to refuse."""
    play = introduced(FILTERED) >> C("MAIL FROM:<a>") << client(answers.SENDER_SYNTAX.wire)
    play = play >> C("RCPT TO:<b@x>") << server("RCPT TO:<b@x>") >> S("503 no") << client("503 no")
    assert play >> C("DATA") << server("DATA") >> S("503 no") << client("503 no")


@pytest.mark.parametrize("written", ["<a@x", "<a@x>SIZE=1", "a b", "<a@x>"])
def test_a_parameter_is_found_in_any_line(written: str) -> None:
    """REQUIRETLS can not be honoured, however the address before it is written."""
    play = introduced() >> C(f"MAIL FROM:{written} REQUIRETLS") << client(answers.NO_REQUIRETLS.wire)
    assert play
