"""A trace is the whole dialogue in both directions, and holds no secret and no message text."""

from __future__ import annotations

import logging

import pytest

from proxsmtp_tp.filters.verdict import Action, Verdict
from proxsmtp_tp.session import effects, events
from proxsmtp_tp.session.options import Options
from tests.unit.session.playbook import SERVER, C, Playbook, S, client, fed, introduced, server

TRACED = Options(trace=True)


def test_everything_that_is_said_and_by_whom() -> None:
    play = Playbook(Options(trace=True, filtered=True))
    play >> events.Connected(SERVER) >> S("220 mx") << client("220 mx")
    play >> C("EHLO c.example") << server("EHLO c.example") >> S("250-mx\n250 PIPELINING")
    play << client("250-mx\n250 PIPELINING")
    play >> C("MAIL FROM:<a@c.example>\nRCPT TO:<b@mx.example>")
    play << server("MAIL FROM:<a@c.example>\nRCPT TO:<b@mx.example>")
    play >> S("250 1\n250 2") << client("250 1\n250 2")
    given = fed(play.session, C("DATA"))
    given += fed(play.session, C("Subject: canary\n\ntext\n."))
    given += fed(play.session, events.FilterVerdict(Verdict(Action.PASS, None, "", 24)))
    given += fed(play.session, S("354 go"))
    given += fed(play.session, events.MessageChunk(b"Subject: canary\r\n\r\ntext\r\n"))
    given += fed(play.session, events.MessageEnd())
    given += fed(play.session, S("250 queued"))
    given += fed(play.session, C("VRFY x"))
    given += fed(play.session, S("252 no"))
    given += fed(play.session, C("QUIT"))
    given += fed(play.session, S("221 bye"))
    assert play
    later = [each.text for each in given if isinstance(each, effects.Log) and each.level == logging.DEBUG]
    assert [*play.logged, *later] == [
        f"SERVER connected: {SERVER}",
        "SERVER < 220 mx",
        "CLIENT > 220 mx",
        "CLIENT < EHLO c.example",
        "SERVER > EHLO c.example",
        "SERVER < 250-mx / 250 PIPELINING",
        "CLIENT > 250-mx / 250 PIPELINING",
        "CLIENT < MAIL FROM:<a@c.example>",
        "SERVER > MAIL FROM:<a@c.example>",
        "CLIENT < RCPT TO:<b@mx.example>",
        "SERVER > RCPT TO:<b@mx.example>",
        "SERVER < 250 1",
        "CLIENT > 250 1",
        "SERVER < 250 2",
        "CLIENT > 250 2",
        "CLIENT < DATA",
        "CLIENT > 354 Start mail input; end with <CRLF>.<CRLF>",
        "CLIENT < (a message of 25 octets)",
        "SERVER > DATA",
        "SERVER < 354 go",
        "SERVER > (a message of 28 octets as sent with the final dot)",
        "SERVER < 250 queued",
        "CLIENT > 250 queued",
        "CLIENT < VRFY x",
        "SERVER > VRFY x",
        "SERVER < 252 no",
        "CLIENT > 252 no",
        "CLIENT < QUIT",
        "SERVER > QUIT",
        "SERVER < 221 bye",
        "CLIENT > 221 bye",
    ]


SECRET = "c2VjcmV0LWNhbmFyeXMx"

SECRETS = [
    ("AUTH PLAIN " + SECRET, ["535 5.7.8 no"]),
    ("AUTH LOGIN", ["334 " + SECRET, SECRET, "334 " + SECRET, SECRET, "235 ok"]),
    ("AUTH CRAM-MD5", ["334 " + SECRET, SECRET, "535 no"]),
    ("auth plain", ["334 ", SECRET + "\0", "501 no"]),
    ("X-EXPS GSSAPI", ["334 " + SECRET, SECRET, "235 ok"]),
    ("AUTH LOGIN", ["504 not here", SECRET]),
    ("AUTH", ["501 no", "=" + SECRET]),
    ("BURL imap://u@h/INBOX;uid=1;urlauth=submit+u:internal:" + SECRET + " LAST", []),
    ("AUTH PLAIN " + SECRET, ["501 5.5.4 cannot BASE64 decode '" + SECRET + "'"]),
    ("AUTH LOGIN", ["334 x", SECRET, "501 what is " + SECRET]),
    ("AUTH LOGIN", ["504 no", SECRET, "500 Command unrecognized: " + SECRET]),
    ("PASS " + SECRET, ["500 what"]),
    ("LOGIN user " + SECRET, ["500 what"]),
]


@pytest.mark.parametrize(("first", "rest"), SECRETS)
def test_no_secret_is_in_a_trace(first: str, rest: list[str]) -> None:
    play = introduced(TRACED, "AUTH PLAIN LOGIN CRAM-MD5 GSSAPI")
    assert play
    given = fed(play.session, C(first))
    for line in rest:
        given += fed(play.session, (S if line[:3].isdigit() else C)(line))
    texts = [each.text for each in given if isinstance(each, effects.Log)]
    assert any(text.startswith("CLIENT < ") for text in texts)
    assert SECRET.strip("=") not in " ".join(texts)


def test_a_session_can_be_traced_from_any_moment_on() -> None:
    play = introduced(Options())
    assert play >> C("NOOP") << server("NOOP") >> S("250 ok") << client("250 ok")
    assert play.logged == []
    play.session.trace(True)
    assert play >> C("NOOP") << server("NOOP") >> S("250 ok") << client("250 ok")
    assert play.logged == ["CLIENT < NOOP", "SERVER > NOOP", "SERVER < 250 ok", "CLIENT > 250 ok"]
    play.session.trace(False)
    assert play >> C("NOOP") << server("NOOP") >> S("250 ok") << client("250 ok")
    assert len(play.logged) == 4


def test_replies_of_our_own_and_lines_without_a_command_are_traced() -> None:
    play = introduced(TRACED)
    assert play >> C("STARTTLS") << client("502 5.5.1 Error: TLS is not available through this mail filter")
    assert play >> C(b"\x00\r\n") << client("500 5.5.2 Error: NUL in a command line")
    said = [line for line in play.logged if line.startswith("CLIENT")][-4:]
    assert said == [
        "CLIENT < STARTTLS",
        "CLIENT > 502 5.5.1 Error: TLS is not available through this mail filter",
        "CLIENT < (3 octets that are no command)",
        "CLIENT > 500 5.5.2 Error: NUL in a command line",
    ]


def test_streamed_messages_and_skipped_chunks_are_traced_by_their_length() -> None:
    play = introduced(TRACED)
    play >> C("DATA") << server("DATA") >> S("354 go") << client("354 go")
    play >> C("canary\n.") << server("canary\n.") >> S("250 ok") << client("250 ok")
    given = fed(play.session, C(b"BDAT 6 LAST\r\ncanary"))
    assert play
    texts = play.logged + [each.text for each in given if isinstance(each, effects.Log)]
    assert "CLIENT < (a message of 8 octets)" in texts
    assert "SERVER > (a message of 11 octets as sent with the final dot)" in texts
    assert "CLIENT < (a chunk of 6 octets that is skipped)" in texts
    assert "canary" not in " ".join(texts)
