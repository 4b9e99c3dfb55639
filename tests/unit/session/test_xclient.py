"""XClient: on cannot be avoided: the server knows the client's address before it learns of a transaction.

A server that trusts the gateway's own address (Postfix: mynetworks) would otherwise relay for whoever says no EHLO.
"""

from __future__ import annotations

import logging
from ipaddress import ip_network

import pytest

from proxsmtp_tp.session.effects import CloseClient, CloseServer, Log, SendServer
from proxsmtp_tp.session.events import Connected
from proxsmtp_tp.session.options import Options
from proxsmtp_tp.session.session import Session
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.telemetry.facts import SessionEnd
from tests.unit.session.playbook import SERVER, C, Playbook, S, client, greeted, introduced, server

XCLIENT = Options(xclient=True)
OPTIONAL = Options(xclient=True, xclient_required=False)
EHLO = "EHLO client.example"
OFFER = "250-mx\n250-XCLIENT NAME ADDR\n250 SIZE"
SENT = server("XCLIENT NAME=[UNAVAILABLE] ADDR=192.0.2.10")
FIRST = client(answers.EHLO_FIRST.wire)

TRANSACTION = [
    "MAIL FROM:<a@client.example>",
    "SEND FROM:<a@client.example>",
    "SAML FROM:<a@client.example>",
    "RCPT TO:<b@elsewhere.example>",
    "DATA",
    "VRFY b",
    "EXPN list",
    "ETRN elsewhere.example",
    "HELP",
    "AUTH PLAIN AGEAYg==",
    "X-EXPS NTLM",
    "XFORWARD ADDR=127.0.0.1",
    "XFROB 1",
]


def closed(play: Playbook, last: bytes) -> Playbook:
    """The session ends with this reply."""
    return play << client(last) << server("QUIT") << CloseServer() << CloseClient()


@pytest.mark.parametrize("options", [XCLIENT, OPTIONAL])
@pytest.mark.parametrize("command", TRANSACTION)
def test_nothing_passes_from_a_client_that_has_not_introduced_itself(command: str, options: Options) -> None:
    play = greeted(options) >> C(command) << FIRST >> C(command) << FIRST
    assert play
    assert answers.EHLO_FIRST.code == 503
    assert len(play.logged) == 1
    assert "EHLO" in play.logged[0]


@pytest.mark.parametrize("options", [XCLIENT, OPTIONAL])
@pytest.mark.parametrize("introduction", ["EHLO", "HELO"])
def test_nothing_passes_after_an_introduction_that_was_refused(introduction: str, options: Options) -> None:
    play = greeted(options) >> C(f"{introduction} bad_name") << server(f"{introduction} bad_name")
    play = play >> S("501 5.5.2 no such name") << client("501 5.5.2 no such name")
    for command in TRANSACTION:
        play = play >> C(command) << FIRST
    play = play >> C(EHLO) << server(EHLO) >> S(OFFER) << SENT
    assert play >> S("220 mx") << server(EHLO) >> S("250 mx") << client("250 mx") >> C("RSET") << server("RSET")


@pytest.mark.parametrize("command", ["NOOP", "RSET"])
def test_what_is_no_part_of_a_transaction_passes(command: str) -> None:
    assert greeted(XCLIENT) >> C(command) << server(command) >> S("250 ok") << client("250 ok")


def test_a_client_may_leave() -> None:
    play = greeted(XCLIENT) >> C("QUIT") << server("QUIT") >> S("221 bye")
    assert play << CloseServer() << client("221 bye") << CloseClient()


def test_what_is_pipelined_after_ehlo_waits() -> None:
    play = greeted(XCLIENT) >> C(f"{EHLO}\nMAIL FROM:<a@client.example>\nRCPT TO:<b@elsewhere.example>") << server(EHLO)
    play = play >> S(OFFER) << SENT >> S("220 mx") << server(EHLO)
    assert (
        play
        >> S("250-mx\n250 PIPELINING")
        << client("250-mx\n250 PIPELINING")
        << server("MAIL FROM:<a@client.example>\nRCPT TO:<b@elsewhere.example>")
    )


def test_what_is_pipelined_before_the_greeting_waits() -> None:
    play = Playbook(XCLIENT) >> C("MAIL FROM:<a@client.example>") >> Connected(SERVER) >> S("220 mx")
    assert play << client(b"220 mx\r\n" + answers.EHLO_FIRST.wire)


def test_a_chunk_is_no_command_here_either() -> None:
    play = greeted(XCLIENT)
    given = play.session.feed(C(b"BDAT 30 LAST\r\nMAIL FROM:<a@client.example>\r\n"))
    assert not any(isinstance(effect, SendServer) for effect in given)
    assert play


def test_such_commands_are_mistakes() -> None:
    play = greeted(XCLIENT)
    for _ in range(20):
        play.session.feed(C("MAIL FROM:<a@client.example>"))
    assert play.session.ended
    assert play


@pytest.mark.parametrize("introduction", ["EHLO", "HELO"])
@pytest.mark.parametrize("refusal", ["550 5.7.0 not you", "502 what", "450 later", "554-5.7.1 blocked\n554 5.7.1 you"])
def test_a_server_that_refuses_xclient_ends_the_session(introduction: str, refusal: str) -> None:
    play = greeted(XCLIENT, strict=True)
    for event in (C(f"{introduction} client.example"), S("250-mx\n250 XCLIENT ADDR")):
        play.session.feed(event)
    given = play.session.feed(S(refusal))
    assert play
    assert [effect for effect in given if not isinstance(effect, (Log, SessionEnd))] == [
        client(answers.XCLIENT_NOT_ACCEPTED.wire),
        server("QUIT"),
        CloseServer(),
        CloseClient(),
    ]
    (line,) = (effect for effect in given if isinstance(effect, Log))
    assert line.level == logging.ERROR
    assert "XCLIENT refused" in line.text
    assert refusal.replace("\n", " / ") in line.text
    assert "XClientRequired" in line.text
    assert answers.XCLIENT_NOT_ACCEPTED.code == 421


@pytest.mark.parametrize(
    "offer", ["250 mx", "250-mx\n250 SIZE", "250-mx\n250 XCLIENT", "250-mx\n250 XCLIENT NAME HELO"]
)
def test_a_server_that_offers_no_xclient_ends_the_session(offer: str) -> None:
    play = greeted(XCLIENT) >> C(EHLO) << server(EHLO) >> S(offer)
    assert closed(play, answers.XCLIENT_NOT_OFFERED.wire)
    assert "does not offer XCLIENT" in play.logged[-1]
    assert "XClientRequired" in play.logged[-1]
    assert answers.XCLIENT_NOT_OFFERED.code == 421


def test_not_required_a_refusal_goes_on_without() -> None:
    play = greeted(OPTIONAL) >> C(EHLO) << server(EHLO) >> S(OFFER) << SENT
    play = play >> S("550 no") << client("250-mx\n250 SIZE")
    assert play >> C("MAIL FROM:<a@a.example>") << server("MAIL FROM:<a@a.example>")
    assert any("XCLIENT refused" in line for line in play.logged)


def test_not_required_and_not_offered_goes_on_without() -> None:
    play = greeted(OPTIONAL) >> C(EHLO) << server(EHLO) >> S("250-mx\n250 SIZE") << client("250-mx\n250 SIZE")
    assert play >> C("MAIL FROM:<a@a.example>") << server("MAIL FROM:<a@a.example>")


def test_an_introduction_that_is_refused_after_xclient_leaves_nothing_to_hide() -> None:
    """The server knows the address now: what it takes from this client is its own affair."""
    play = greeted(XCLIENT) >> C(EHLO) << server(EHLO) >> S(OFFER) << SENT
    play = play >> S("220 mx") << server(EHLO) >> S("550 5.7.1 go away") << client("550 5.7.1 go away")
    assert play >> C("MAIL FROM:<a@a.example>") << server("MAIL FROM:<a@a.example>")


def test_a_client_without_an_address_is_said_to_have_none() -> None:
    """A unix socket: without an attribute the server would take the gateway's address for the client's."""
    session = Session(XCLIENT, client_ip="", local_ip="", clock=str)
    for event in (Connected(SERVER), S("220 mx"), C(EHLO)):
        session.feed(event)
    assert server("XCLIENT ADDR=[UNAVAILABLE]") in session.feed(S("250-mx\n250 XCLIENT ADDR"))


# XFORWARD is believed for the gateway's address, too.


def forwarding(options: Options) -> Playbook:
    play = greeted(options) >> C(EHLO) << server(EHLO) >> S("250-mx\n250-XCLIENT ADDR\n250 XFORWARD ADDR")
    return play << server("XCLIENT ADDR=192.0.2.10") >> S("220 mx") << server(EHLO)


def test_xforward_is_not_for_the_clients_of_a_gateway_that_is_trusted() -> None:
    """Postfix decides once who may say XFORWARD, by the gateway's address, and XCLIENT changes nothing about it."""
    play = forwarding(XCLIENT) >> S("250-mx\n250-XFORWARD ADDR\n250 SIZE") << client("250-mx\n250 SIZE")
    play = play >> C("XFORWARD ADDR=127.0.0.1") << client(answers.XFORWARD_REFUSED.wire)
    assert play >> C("XFORWARD ADDR=127.0.0.1") << client(answers.XFORWARD_REFUSED.wire)
    assert sum("XFORWARD" in line for line in play.logged) == 1
    assert answers.XFORWARD_REFUSED.code == 554


@pytest.mark.parametrize(
    ("networks", "passes"), [("192.0.2.0/24", True), ("198.51.100.0/24", False), ("2001:db8::/32", False)]
)
@pytest.mark.parametrize("xclient", [True, False])
def test_xforward_clients(networks: str, *, passes: bool, xclient: bool) -> None:
    options = Options(xclient=xclient, xforward_clients=(ip_network(networks),))
    play = forwarding(options) if xclient else greeted(options) >> C(EHLO) << server(EHLO)
    play = play >> S("250-mx\n250-SIZE\n250 XFORWARD ADDR")
    play = play << client("250-mx\n250-SIZE\n250 " + ("XFORWARD ADDR" if passes else "XFILTERED"))
    play = play >> C("XFORWARD ADDR=198.51.100.7")
    assert play << (server("XFORWARD ADDR=198.51.100.7") if passes else client(answers.XFORWARD_REFUSED.wire))


def test_without_either_the_server_judges_xforward() -> None:
    play = introduced(None, "XFORWARD ADDR") >> C("XFORWARD ADDR=198.51.100.7") << server("XFORWARD ADDR=198.51.100.7")
    assert play >> S("550 5.7.0 no") << client("550 5.7.0 no")


# XFORWARD IDENT: the trace id, for the log of the server.

ID = "01JD8Q3K7C2VA"
OUR_IDENT = f"XFORWARD IDENT={ID}"
MAIL = "MAIL FROM:<a@client.example>"


def with_id(*keywords: str) -> Playbook:
    """A session with a trace id, past EHLO."""
    play = introduced(None, *keywords)
    play.session._d.trace_id = ID
    return play


def test_the_server_gets_the_trace_id_before_each_mail() -> None:
    play = with_id("PIPELINING", "XFORWARD ADDR IDENT")
    for _ in range(2):
        play = play >> C(MAIL) << server(f"{OUR_IDENT}\n{MAIL}")
        play = play >> S("250 2.0.0 taken") >> S("250 2.1.0 ok") << client("250 2.1.0 ok")
        assert play >> C("RSET") << server("RSET") >> S("250 ok") << client("250 ok")


@pytest.mark.parametrize(
    "keywords",
    [(), ("XFORWARD ADDR IDENT",), ("PIPELINING", "XFORWARD ADDR"), ("PIPELINING",)],
    ids=["none", "no pipelining", "no IDENT", "no XFORWARD"],
)
def test_it_is_sent_only_where_both_are_offered(keywords: tuple[str, ...]) -> None:
    assert with_id(*keywords) >> C(MAIL) << server(MAIL)


def test_an_ident_of_the_client_has_precedence_for_one_message() -> None:
    play = with_id("PIPELINING", "XFORWARD ADDR IDENT")
    own = "XFORWARD ADDR=198.51.100.7 IDENT=4F1"
    play = play >> C(own) << server(own) >> S("250 ok") << client("250 ok")
    play = play >> C(MAIL) << server(MAIL) >> S("250 ok") << client("250 ok")
    play = play >> C("RSET") << server("RSET") >> S("250 ok") << client("250 ok")
    play = play >> C("XFORWARD ADDR=198.51.100.7") << server("XFORWARD ADDR=198.51.100.7") >> S("250 ok")
    assert play << client("250 ok") >> C(MAIL) << server(f"{OUR_IDENT}\n{MAIL}")


@pytest.mark.parametrize("reply", ["550 5.7.0 no", "450 4.3.0 later", "501 5.5.4 IDENT?"])
def test_a_server_that_refuses_it_gets_the_mail_and_no_other(reply: str) -> None:
    play = with_id("PIPELINING", "XFORWARD ADDR IDENT") >> C(MAIL) << server(f"{OUR_IDENT}\n{MAIL}")
    play = play >> S(reply) >> S("250 2.1.0 ok") << client("250 2.1.0 ok")
    play = play >> C("RSET") << server("RSET") >> S("250 ok") << client("250 ok")
    assert play >> C(MAIL) << server(MAIL)
    assert sum("XFORWARD IDENT refused" in line for line in play.logged) == 1


def test_pipelined_commands_stay_in_step() -> None:
    play = with_id("PIPELINING", "XFORWARD IDENT")
    rcpt = "RCPT TO:<b@mx.example>"
    play = play >> C(f"{MAIL}\n{rcpt}") << server(f"{OUR_IDENT}\n{MAIL}\n{rcpt}")
    play = play >> S("250 a\n250 2.1.0 b\n550 5.1.1 c")
    assert play << client("250 2.1.0 b\n550 5.1.1 c")
