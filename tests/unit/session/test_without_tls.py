"""Where STARTTLS is removed: no password in clear because of us, no mail bounces for it, and a client that leaves has a
log line."""

from __future__ import annotations

import logging

import pytest

from proxsmtp_tp.filters.verdict import Action, Verdict
from proxsmtp_tp.session.effects import CloseClient, CloseServer, FilterAbort, Log
from proxsmtp_tp.session.events import ClientClosed, ClientData, FilterVerdict
from proxsmtp_tp.session.options import Options
from proxsmtp_tp.smtp import answers
from tests.unit.session.playbook import SERVER, C, Playbook, S, client, greeted, introduced, server

EHLO = "EHLO client.example"
MAIL, RCPT = "MAIL FROM:<a@client.example>", "RCPT TO:<b@mx.example>"
AUTHS = ["AUTH PLAIN AGEAYg==", "AUTH LOGIN", "auth login", "AUTH XOAUTH2 dXNlcg==", "AUTH OAUTHBEARER x", "AUTH X-OWN"]
WANTS_TLS = client(answers.SERVER_WANTS_TLS.wire)
WANTS_LOGIN = client(answers.SERVER_WANTS_LOGIN.wire)
EXCEPT = f"RuleExceptDestination: {SERVER}"


def offered(*lines: str, options: Options | None = None) -> bytes:
    """What the client is shown of these keywords."""
    play = greeted(options) >> C(EHLO) << server(EHLO)
    assert play
    reply = "\n".join(f"250-{line}" for line in ("mx", *lines)) + "\n250 SIZE"
    return play.session.feed(S(reply))[0].data  # type: ignore[union-attr]


# AUTH.


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("AUTH PLAIN LOGIN", None),
        ("AUTH=LOGIN PLAIN", None),
        ("auth login", None),
        ("AUTH LOGIN CRAM-MD5 PLAIN", "AUTH CRAM-MD5"),
        ("AUTH=CRAM-MD5 LOGIN", "AUTH=CRAM-MD5"),
        ("AUTH GSSAPI NTLM LOGIN", "AUTH GSSAPI NTLM"),
        ("AUTH SCRAM-SHA-256-PLUS scram-sha-1 DIGEST-MD5", "AUTH SCRAM-SHA-256-PLUS scram-sha-1 DIGEST-MD5"),
        ("AUTH XOAUTH2 OAUTHBEARER PLAIN-CLIENTTOKEN EXTERNAL", "AUTH EXTERNAL"),
        ("AUTH X-NOBODY-KNOWS", None),
        ("X-EXPS GSSAPI NTLM LOGIN", "X-EXPS GSSAPI NTLM"),
        ("X-EXPS=LOGIN", None),
        ("X-EXPS EXCHANGEAUTH", "X-EXPS EXCHANGEAUTH"),
        ("AUTH", "AUTH"),
    ],
)
@pytest.mark.parametrize("tls", ["STARTTLS", "X-ANONYMOUSTLS"])
def test_mechanisms_that_show_the_password_are_removed_with_tls(line: str, left: str | None, tls: str) -> None:
    shown = b"250-mx\r\n" + (f"250-{left}\r\n".encode() if left else b"") + b"250 SIZE\r\n"
    assert offered(line, tls) == offered(tls, line) == shown
    assert offered(line) == f"250-mx\r\n250-{line}\r\n250 SIZE\r\n".encode()
    stays = f"250-mx\r\n250-{line}\r\n250 SIZE\r\n".encode()
    assert offered(line, tls, options=Options(auth_without_tls=True)) == stays


def test_a_removed_last_line_is_replaced() -> None:
    play = greeted() >> C(EHLO) << server(EHLO)
    assert play >> S("250-mx\n250-STARTTLS\n250 AUTH PLAIN") << client("250-mx\n250 XFILTERED")


@pytest.mark.parametrize("command", [*AUTHS, "X-EXPS LOGIN"])
def test_such_a_login_is_refused(command: str) -> None:
    play = (
        introduced(None, "STARTTLS", "AUTH PLAIN LOGIN CRAM-MD5") >> C(command) << client(answers.AUTH_NEEDS_TLS.wire)
    )
    assert play >> C("NOOP") << server("NOOP")
    assert answers.AUTH_NEEDS_TLS.code == 454
    assert sum("AuthWithoutTls" in line for line in play.logged) == 1
    assert not any("AGEAYg" in line for line in play.logged)


def test_also_when_the_client_says_helo_afterwards() -> None:
    play = (
        introduced(None, "STARTTLS", "AUTH PLAIN") >> C("HELO c") << server("HELO c") >> S("250 mx") << client("250 mx")
    )
    assert play >> C("AUTH PLAIN AGEAYg==") << client(answers.AUTH_NEEDS_TLS.wire)


def test_also_when_it_comes_after_ehlo_from_a_cache() -> None:
    play = greeted() >> C(f"{EHLO}\nAUTH PLAIN AGEAYg==") << server(EHLO) >> S("250-mx\n250-STARTTLS\n250 AUTH PLAIN")
    assert play << client(b"250-mx\r\n250 XFILTERED\r\n" + answers.AUTH_NEEDS_TLS.wire)


@pytest.mark.parametrize("command", ["AUTH CRAM-MD5", "AUTH SCRAM-SHA-256 biws", "X-EXPS NTLM", "AUTH"])
def test_other_logins_pass(command: str) -> None:
    assert introduced(None, "STARTTLS", "AUTH CRAM-MD5") >> C(command) << server(command)


@pytest.mark.parametrize("command", AUTHS)
def test_where_no_tls_was_on_offer_nothing_changes(command: str) -> None:
    assert introduced(None, "AUTH PLAIN") >> C(command) << server(command)


@pytest.mark.parametrize("command", AUTHS)
def test_unless_it_is_written_otherwise(command: str) -> None:
    assert introduced(Options(auth_without_tls=True), "STARTTLS", "AUTH PLAIN") >> C(command) << server(command)


# What the server refuses for want of TLS.

REFUSALS = [
    "530 Must issue a STARTTLS command first",
    "530-5.7.0 Must issue\n530 5.7.0 a STARTTLS command first",
    "530 5.7.0 Authentication required",
    "530 5.7.57 Client not authenticated to send mail",
    "550 5.7.10 Encryption needed",
    "550 TLS required",
    "554 5.7.1 you must use TLS",
    "503 say STARTTLS first",
    "538 5.7.11 Encryption required for requested authentication mechanism",
]


def asked(command: str, *keywords: str) -> Playbook:
    """A playbook past this command, and what comes before it."""
    play = introduced(None, *keywords)
    before = {"RCPT": (MAIL,), "DATA": (MAIL, RCPT)}.get(command[:4], ())
    for line in before:
        play = play >> C(line) << server(line) >> S("250 ok") << client("250 ok")
    return play >> C(command) << server(command)


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("command", [MAIL, RCPT, "DATA", "AUTH CRAM-MD5"])
def test_it_is_no_reason_to_bounce(command: str, refusal: str) -> None:
    play = asked(command, "STARTTLS") >> S(refusal) << WANTS_TLS
    assert play >> C("RSET") << server("RSET")
    assert answers.SERVER_WANTS_TLS.code == 451
    (line,) = (line for line in play.logged if "requires TLS" in line)
    assert refusal.replace("\n", " / ") in line
    assert EXCEPT in line
    assert f"--except-destination {SERVER}" in line


def test_it_is_a_warning_once() -> None:
    play = introduced(None, "STARTTLS", strict=True)
    levels: list[int] = []
    for _ in range(2):
        play.session.feed(C(MAIL))
        levels += [e.level for e in play.session.feed(S("530 Must issue STARTTLS")) if isinstance(e, Log)]
    assert play
    assert levels == [logging.WARNING]


def test_also_with_a_filter() -> None:
    play = introduced(Options(filtered=True), "STARTTLS")
    for line in (MAIL, RCPT):
        play = play >> C(line) << server(line) >> S("250 ok") << client("250 ok")
    assert play
    for event in (C("DATA"), C("x\n."), FilterVerdict(Verdict(Action.PASS, None, "exit 0", size=3))):
        play.session.feed(event)
    play = play >> S("530 Must issue STARTTLS") << FilterAbort() << WANTS_TLS << server("RSET")
    assert play


@pytest.mark.parametrize("refusal", REFUSALS)
def test_where_no_tls_was_offered_the_reply_is_the_servers(refusal: str) -> None:
    assert asked(MAIL, "SIZE") >> S(refusal) << client(refusal)


@pytest.mark.parametrize(
    "refusal", ["550 5.7.1 spam", "553 no such sender", "552 5.3.4 too large", "450 4.7.0 TLS please"]
)
def test_other_refusals_come_from_the_server(refusal: str) -> None:
    assert asked(MAIL, "STARTTLS", "AUTH PLAIN") >> S(refusal) << client(refusal)


def test_the_reply_to_a_message_is_the_servers() -> None:
    play = asked("DATA", "STARTTLS") >> S("354 go") << client("354 go") >> C("x\n.") << server("x\n.")
    assert play >> S("550 this text needs encryption") << client("550 this text needs encryption")


@pytest.mark.parametrize(
    "refusal",
    [
        "554 5.7.1 <b@mx.example>: Relay access denied",
        "550 relay not permitted",
        "550 5.7.1 Unable to relay",
        "550 log in",
    ],
)
def test_nor_is_the_want_of_a_login_that_went_with_tls(refusal: str) -> None:
    play = asked(RCPT, "STARTTLS", "AUTH PLAIN") >> S(refusal) << WANTS_LOGIN
    assert play
    assert any(EXCEPT in line and "AuthWithoutTls" in line for line in play.logged)
    assert asked(RCPT, "STARTTLS", "AUTH CRAM-MD5") >> S(refusal) << client(refusal)
    assert asked(RCPT, "STARTTLS") >> S(refusal) << client(refusal)


# Who leaves.


@pytest.mark.parametrize("leaves", [C("QUIT"), ClientClosed(half=True), ClientClosed(half=False)])
@pytest.mark.parametrize(("keyword", "lines"), [("STARTTLS", 1), ("SIZE", 0)])
def test_a_client_that_leaves_because_of_it_has_a_line(
    leaves: ClientData | ClientClosed, keyword: str, lines: int
) -> None:
    play = introduced(None, keyword, strict=True)
    assert play
    logged = [effect for effect in play.session.feed(leaves) if isinstance(effect, Log)]
    assert len(logged) == lines
    assert all(effect.level == logging.INFO for effect in logged)
    assert all("requires TLS" in effect.text and EXCEPT in effect.text for effect in logged)


def test_one_that_has_sent_mail_has_none() -> None:
    play = introduced(None, "STARTTLS") >> C(MAIL) << server(MAIL) >> S("250 ok") << client("250 ok")
    play = play >> C("QUIT") << server("QUIT") >> S("221 bye") << CloseServer() << client("221 bye") << CloseClient()
    assert play
    assert not any("probably requires TLS" in line for line in play.logged)


def test_one_that_asks_for_tls_and_leaves_has_one_of_each() -> None:
    play = introduced(None, "STARTTLS") >> C("STARTTLS") << client(answers.NO_TLS.wire) >> C("QUIT") << server("QUIT")
    assert play
    assert [("STARTTLS is not offered through" in line, "probably requires TLS" in line) for line in play.logged] == [
        (True, False),
        (False, True),
    ]
