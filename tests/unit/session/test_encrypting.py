"""UpstreamTls for clients in clear: nothing of a message or login goes to the server in clear."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.config.tls_lines import parse_upstream
from proxsmtp_tp.session import effects, events
from proxsmtp_tp.session.effects import CloseClient, CloseServer
from proxsmtp_tp.session.refusing import ERROR_LIMIT
from proxsmtp_tp.session.state import Wait
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.tls.facts import Side, Verified
from proxsmtp_tp.tls.levels import TlsaState
from tests.unit.session.playbook import C, Playbook, S, client, greeted, introduced, server
from tests.unit.session.tls_playbook import READY, hello, options, tls

if TYPE_CHECKING:
    from proxsmtp_tp.session.options import Options

MAIL = "MAIL FROM:<a@x>"
ENCRYPT = options("terminate", upstream=("encrypt",))
RULE = parse_upstream("encrypt")[0]


def asked(command: str = MAIL) -> Playbook:
    """The server has accepted our STARTTLS."""
    play = introduced(ENCRYPT, "STARTTLS", "PIPELINING", "AUTH PLAIN")
    return play >> C(command) << server("STARTTLS") >> S(READY) << effects.StartServerTls("", RULE)


@pytest.mark.parametrize("line", ["terminate", "strip", "pass"])
@pytest.mark.parametrize("command", [MAIL, "AUTH PLAIN AGEAYg=="])
def test_the_command_waits_until_the_servers_leg_has_tls(line: str, command: str) -> None:
    given = options(line, upstream=("encrypt",), auth_without_tls=True)
    assert (
        introduced(given, "STARTTLS", "AUTH PLAIN")
        >> C(command) << server("STARTTLS")
        >> S(READY) << effects.StartServerTls("", RULE)
        >> tls(Side.SERVER) << server("EHLO client.example")
        >> S("250-mx\n250 SIZE") << server(command)
        >> S("250 ok") << client("250 ok")
    )  # fmt: skip


def test_a_group_waits_too_and_goes_on_as_the_server_says_within_tls() -> None:
    assert (
        asked(f"{MAIL}\nRCPT TO:<b@y>\nRSET")
        >> tls(Side.SERVER) << server("EHLO client.example")
        >> S("250-mx\n250 SIZE") << server(MAIL)  # PIPELINING is not offered any more
        >> S("250 ok") << client("250 ok") << server("RCPT TO:<b@y>")
        >> S("250 ok") << client("250 ok") << server("RSET")
    )  # fmt: skip


def test_it_happens_once() -> None:
    play = asked() >> tls(Side.SERVER) << server("EHLO client.example") >> S("250 mx") << server(MAIL)
    assert play >> S("550 no") << client("550 no") >> C(MAIL) << server(MAIL)


def test_without_the_level_nothing_changes() -> None:
    assert introduced(options("terminate", upstream=("may",)), "STARTTLS") >> C(MAIL) << server(MAIL)
    assert introduced(options("terminate"), "STARTTLS") >> C(MAIL) << server(MAIL)


@pytest.mark.parametrize("level", ["encrypt", "verify", "secure match=mx.example"])
def test_a_server_without_starttls_gets_no_mail(level: str) -> None:
    """Attack 4: STARTTLS was taken out of the server's reply."""
    play = introduced(options("terminate", upstream=(level,)), "SIZE", "AUTH PLAIN")
    refused = client(answers.UPSTREAM_TLS_NOT_OFFERED.wire)
    assert play >> C(MAIL) << refused >> C("AUTH PLAIN AGEAYg==") << refused >> C("NOOP") << server("NOOP")


@pytest.mark.parametrize("reply", ["454 4.7.0 not now", "502 what"])
def test_a_server_that_refuses_starttls_gets_no_mail(reply: str) -> None:
    play = introduced(ENCRYPT, "STARTTLS") >> C(MAIL) << server("STARTTLS")
    assert play >> S(reply) << client(answers.UPSTREAM_TLS_FAILED.wire) >> C("NOOP") << server("NOOP")


def test_such_a_client_may_not_try_without_limit() -> None:
    """The server sees no command of it that it could count."""
    play = introduced(ENCRYPT, "STARTTLS")
    refused = answers.UPSTREAM_TLS_FAILED.wire
    for _ in range(ERROR_LIMIT - 1):
        play = play >> C(MAIL) << server("STARTTLS") >> S("454 4.7.0 not now") << client(refused)
    play = play >> C(MAIL) << server("STARTTLS") >> S("454 4.7.0 not now")
    play = play << client(refused + answers.TOO_MANY_ERRORS.wire) << server("QUIT")
    assert play << CloseServer(abort=False) << CloseClient()


def test_a_server_that_is_silent_within_the_handshake_is_named() -> None:
    play = asked() >> events.DeadlinePassed(Wait.HANDSHAKE) << client(answers.SERVER_TIMED_OUT.wire)
    assert play << CloseServer(abort=True) << CloseClient()


@pytest.mark.parametrize("wants", ["530 5.7.0 Authentication required", "554 5.7.1 a valid login is required, no SSL"])
def test_a_server_with_tls_does_not_want_tls(wants: str) -> None:
    """STARTTLS was removed for the client, but what this server wants is something else."""
    play = introduced(options("strip", upstream=("encrypt",), auth_without_tls=True), "STARTTLS")
    play = play >> C(MAIL) << server("STARTTLS") >> S(READY) << effects.StartServerTls("", RULE)
    play = play >> tls(Side.SERVER) << server("EHLO client.example") >> S("250 mx") << server(MAIL)
    assert play >> S(wants) << client(wants)


XCLIENT = options("terminate", upstream=("encrypt",), xclient=True)
OFFER = "250-mx\n250-STARTTLS\n250 XCLIENT NAME ADDR HELO"
ADDRESS = "XCLIENT NAME=[UNAVAILABLE] ADDR=192.0.2.10 HELO=client.example"


def with_xclient(given: Options = XCLIENT, offer: str = OFFER) -> Playbook:
    """Past EHLO."""
    play = greeted(given) >> C("EHLO client.example") << server("EHLO client.example")
    return play >> S(offer) << client("250-mx\n250-STARTTLS\n250 XFILTERED")


def in_tls(play: Playbook, offer: str = "250-mx\n250 XCLIENT NAME ADDR HELO") -> Playbook:
    """MAIL has begun TLS, and the server has answered EHLO in it."""
    play = play >> C(MAIL) << server("STARTTLS") >> S(READY) << effects.StartServerTls("", RULE)
    return play >> tls(Side.SERVER) << server("EHLO client.example") >> S(offer)


def test_with_xclient_the_server_learns_the_client_within_tls() -> None:
    """The order is EHLO, STARTTLS, EHLO, XCLIENT, EHLO, MAIL; the client is told nothing of it."""
    play = in_tls(with_xclient()) << server(ADDRESS) >> S("220 mx") << server("EHLO client.example")
    play = play >> S("250-mx\n250-PIPELINING\n250 XCLIENT NAME ADDR HELO") << server(MAIL)
    play = play >> S("250 ok") << client("250 ok")
    again = play >> C("EHLO client.example") << server("EHLO client.example")
    assert again >> S("250-mx\n250 XCLIENT ADDR") << client("250-mx\n250 XFILTERED")


@pytest.mark.parametrize("offered", [True, False])
def test_a_server_that_does_not_learn_the_client_gets_no_mail(offered: bool) -> None:
    if offered:
        play, last = in_tls(with_xclient()) << server(ADDRESS) >> S("550 no"), answers.XCLIENT_NOT_ACCEPTED
    else:
        play, last = in_tls(with_xclient(), "250 mx"), answers.XCLIENT_NOT_OFFERED
    assert play << client(last.wire) << server("QUIT") << CloseServer() << CloseClient()


def test_a_server_that_refuses_ehlo_after_xclient_gets_no_mail() -> None:
    play = in_tls(with_xclient()) << server(ADDRESS) >> S("220 mx") << server("EHLO client.example") >> S("550 no")
    last = answers.closing(answers.UPSTREAM_TLS_FAILED)
    assert play << CloseServer(abort=True) << client(last.wire) << CloseClient()


@pytest.mark.parametrize("offer", ["250 mx", "250-mx\n250 XCLIENT NAME ADDR HELO"])
def test_where_xclient_is_not_required_the_mail_goes_on(offer: str) -> None:
    given = options("terminate", upstream=("encrypt",), xclient=True, xclient_required=False)
    play = in_tls(with_xclient(given), offer)
    if "XCLIENT" in offer:
        play = play << server(ADDRESS) >> S("550 no")
    assert play << server(MAIL) >> S("250 ok") << client("250 ok")


def test_a_client_that_begins_tls_itself_gets_the_reply_within_tls() -> None:
    play = with_xclient() >> C("STARTTLS") << server("STARTTLS") >> S(READY) << client(READY)
    play = play << effects.PeekClientHello() >> hello() << effects.StartServerTls("mx.example", RULE)
    play = play >> tls(Side.SERVER) << effects.StartClientTls(verified=False) >> tls(Side.CLIENT)
    play = play >> C("EHLO client.example") << server("EHLO client.example")
    assert play >> S("250-mx\n250 XCLIENT NAME ADDR HELO") << server(ADDRESS)


def test_where_tls_is_not_demanded_xclient_comes_at_once() -> None:
    play = greeted(options("terminate", xclient=True)) >> C("EHLO client.example") << server("EHLO client.example")
    assert play >> S(OFFER) << server(ADDRESS)


DANE = options("terminate", upstream=("dane sni=mx.example",))
DANE_RULE = parse_upstream("dane sni=mx.example")[0]


def asks_dns(*keywords: str) -> Playbook:
    """The first command that waits has DNS asked."""
    return introduced(DANE, *(keywords or ("STARTTLS", "PIPELINING"))) >> C(MAIL) << effects.LookUpTlsa(DANE_RULE)


@pytest.mark.parametrize("state", [TlsaState.USABLE, TlsaState.UNUSABLE])
def test_dane_with_a_name_encrypts_where_there_are_records(state: TlsaState) -> None:
    play = asks_dns() >> C("RCPT TO:<b@y>") >> events.TlsaFound(state) << server("STARTTLS")
    play = play >> S(READY) << effects.StartServerTls("", DANE_RULE)
    play = play >> tls(Side.SERVER, Verified.DANE if state is TlsaState.USABLE else Verified.NO)
    play = play << server("EHLO client.example") >> S("250-mx\n250 PIPELINING")
    assert play << server(f"{MAIL}\nRCPT TO:<b@y>")


def test_with_records_another_certificate_is_refused() -> None:
    play = asks_dns() >> events.TlsaFound(TlsaState.USABLE) << server("STARTTLS") >> S(READY)
    play = play << effects.StartServerTls("", DANE_RULE) >> tls(Side.SERVER, Verified.NAME) << CloseServer(abort=True)
    assert play << client(answers.closing(answers.UPSTREAM_NOT_VERIFIED).wire) << CloseClient()


def test_with_records_a_server_without_starttls_gets_no_mail() -> None:
    """It may have been removed on the way."""
    play = asks_dns("PIPELINING") >> events.TlsaFound(TlsaState.USABLE)
    assert play << client(answers.UPSTREAM_TLS_NOT_OFFERED.wire)


def test_without_records_dane_is_may_and_dns_is_asked_once() -> None:
    play = asks_dns() >> events.TlsaFound(TlsaState.NONE) << server(MAIL) >> S("250 ok") << client("250 ok")
    assert play >> C("RCPT TO:<b@y>") << server("RCPT TO:<b@y>")


def test_without_an_answer_of_dns_nothing_goes_to_the_server() -> None:
    play = asks_dns() >> events.TlsaFound(TlsaState.FAILED) << client(answers.UPSTREAM_TLSA_UNKNOWN.wire)
    assert play >> C(MAIL) << client(answers.UPSTREAM_TLSA_UNKNOWN.wire) >> C("QUIT") << server("QUIT")


def test_a_client_or_server_that_leaves_while_dns_is_asked() -> None:
    play = asks_dns() >> events.ClientClosed(half=False)
    assert play << server("QUIT") << CloseServer() << CloseClient()
    play = asks_dns() >> events.ServerClosed()
    assert play << client(answers.SERVER_LOST.wire) << CloseClient()


def test_dane_without_a_name_is_may() -> None:
    assert introduced(options("terminate", upstream=("dane",)), "STARTTLS") >> C(MAIL) << server(MAIL)


def test_a_failed_handshake_ends_the_session() -> None:
    play = asked() >> events.TlsFailed(Side.SERVER, "handshake failure") << CloseServer(abort=True)
    assert play << client(answers.closing(answers.UPSTREAM_TLS_FAILED).wire) << CloseClient()


@pytest.mark.parametrize("verified", [Verified.NO, Verified.TRUSTED])
def test_so_does_a_server_that_is_not_verified(verified: Verified) -> None:
    given = options("strip", upstream=("secure match=mx.example",))
    play = introduced(given, "STARTTLS") >> C(MAIL) << server("STARTTLS") >> S(READY)
    play = play << effects.StartServerTls("", parse_upstream("secure match=mx.example")[0])
    play = play >> tls(Side.SERVER, verified) << CloseServer(abort=True)
    assert play << client(answers.closing(answers.UPSTREAM_NOT_VERIFIED).wire) << CloseClient()


@pytest.mark.parametrize("behind", [b"2", b"250 ok\r\n"])
def test_octets_after_the_220_end_the_session(behind: bytes) -> None:
    play = introduced(ENCRYPT, "STARTTLS") >> C(MAIL) << server("STARTTLS")
    play = play >> S(READY.encode() + b"\r\n" + behind) << CloseServer(abort=True)
    assert play << client(answers.SERVER_BEHIND_STARTTLS.wire) << CloseClient()
    play = asked() >> S(behind) << CloseServer(abort=True)
    assert play << client(answers.SERVER_BEHIND_STARTTLS.wire) << CloseClient()


def test_a_server_that_leaves() -> None:
    assert asked() >> events.ServerClosed() << client(answers.SERVER_LOST.wire) << CloseClient()


def test_a_client_that_leaves() -> None:
    assert asked() >> events.ClientClosed(half=False) << CloseServer(abort=True) << CloseClient()


def test_a_client_in_clear_is_offered_no_login_of_the_encrypted_leg() -> None:
    """Attack 15."""
    play = asked() >> tls(Side.SERVER) << server("EHLO client.example") >> S("250-mx\n250 AUTH PLAIN") << server(MAIL)
    assert (
        play
        >> S("250 ok") << client("250 ok")
        >> C("EHLO c") << server("EHLO c")
        >> S("250-mx\n250-AUTH PLAIN\n250-REQUIRETLS\n250 SIZE") << client("250-mx\n250 SIZE")
    )  # fmt: skip


@pytest.mark.parametrize("command", ["XFORWARD ADDR=192.0.2.77", "VRFY a@x", "EXPN list", "ETRN x.example", "XADR a@x"])
def test_what_the_server_would_forget_or_others_may_not_read_waits_too(command: str) -> None:
    """With TLS the server forgets what was said before (RFC 3207 section 4.2): XFORWARD, too."""
    play = introduced(ENCRYPT, "STARTTLS", "XFORWARD ADDR") >> C(command) << server("STARTTLS")
    play = play >> S(READY) << effects.StartServerTls("", RULE)
    assert (
        play
        >> tls(Side.SERVER) << server("EHLO client.example")
        >> S("250-mx\n250 XFORWARD ADDR") << server(command)
        >> S("250 ok") << client("250 ok")
        >> C(MAIL) << server(MAIL)
    )  # fmt: skip


@pytest.mark.parametrize("command", ["EHLO c", "HELO c", "NOOP", "RSET", "HELP", "QUIT"])
def test_commands_without_content_do_not_wait_for_tls(command: str) -> None:
    assert introduced(ENCRYPT, "STARTTLS") >> C(command) << server(command)


def test_data_without_an_envelope_is_no_way_for_a_message_in_clear() -> None:
    """If a server answered 354 nevertheless, it would get the text in clear."""
    refused = client(answers.UPSTREAM_TLS_NOT_OFFERED.wire)
    assert introduced(options("terminate", upstream=("encrypt",)), "SIZE") >> C("DATA") << refused


def test_no_second_starttls_where_the_server_offers_it_within_tls() -> None:
    """No server may (RFC 3207 section 4.2), but one that does must not make us start TLS within TLS."""
    play = asked() >> tls(Side.SERVER) << server("EHLO client.example") >> S("250-mx\n250 STARTTLS") << server(MAIL)
    refused = client(answers.TLS_NOT_OFFERED.wire)
    assert play >> S("250 ok") << client("250 ok") >> C("STARTTLS") << refused
