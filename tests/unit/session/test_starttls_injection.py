"""Attacks on STARTTLS: octets after the command or its 220, and what was said in clear before."""

from __future__ import annotations

import pytest

from proxsmtp_tp.session import effects, events
from proxsmtp_tp.session.effects import CloseClient, CloseServer, PeekClientHello
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.tls.facts import Side
from tests.unit.session.playbook import C, Playbook, S, client, introduced, server
from tests.unit.session.tls_playbook import (
    ANY,
    NAME,
    READY,
    TERMINATE,
    hello,
    offered,
    options,
    ready,
    terminated,
    tls,
)


@pytest.mark.parametrize(
    "behind", [b"N", b"NOOP\r\n", b"\r\n", b"\x16\x03\x01", b"MAIL FROM:<evil@x>\r\nRCPT TO:<y@x>\r\n"]
)
def test_octets_in_the_same_segment_end_the_session(behind: bytes) -> None:
    play = offered() >> C(b"STARTTLS\r\n" + behind)
    assert play << client(answers.BEHIND_STARTTLS.wire) << server("QUIT") << CloseServer() << CloseClient()
    assert any("octets behind STARTTLS" in line for line in play.logged)


@pytest.mark.parametrize("behind", [b"N", b"NOOP\r\n", b"\r\n"])
def test_octets_before_the_reply_end_the_session_without_a_220(behind: bytes) -> None:
    play = offered() >> C("STARTTLS") << server("STARTTLS") >> C(behind)
    assert play >> S(READY) << CloseServer(abort=True) << client(answers.BEHIND_STARTTLS.wire) << CloseClient()


def test_octets_after_the_220_are_no_command() -> None:
    assert ready() >> C("NOOP") << CloseServer(abort=True) << CloseClient()


def test_it_may_end_a_group() -> None:
    play = offered(TERMINATE, "PIPELINING", "STARTTLS")
    assert (
        play
        >> C("RSET\nSTARTTLS") << server("RSET\nSTARTTLS")
        >> S("250 ok") << client("250 ok")
        >> S(READY) << client(READY) << PeekClientHello()
    )  # fmt: skip


def test_a_group_gets_its_replies_before_the_end() -> None:
    play = offered(TERMINATE, "PIPELINING", "STARTTLS")
    assert (
        play
        >> C("RSET\nSTARTTLS\nNOOP") << server("RSET")
        >> S("250 ok") << client(b"250 ok\r\n" + answers.BEHIND_STARTTLS.wire) << server("QUIT")
        << CloseServer() << CloseClient()
    )  # fmt: skip


# Attack 2: octets of the server behind its 220.


@pytest.mark.parametrize("behind", [b"2", b"\r\n", b"250 ok\r\n", b"250-mx\r\n250 AUTH PLAIN\r\n", b"\x16\x03"])
def test_octets_after_the_220_end_the_session(behind: bytes) -> None:
    play = offered() >> C("STARTTLS") << server("STARTTLS")
    assert (
        play
        >> S(READY.encode() + b"\r\n" + behind)
        << CloseServer(abort=True) << client(answers.SERVER_BEHIND_STARTTLS.wire) << CloseClient()
    )  # fmt: skip


@pytest.mark.parametrize("behind", [b"2", b"250 ok\r\n"])
def test_so_do_octets_that_come_later(behind: bytes) -> None:
    assert ready() >> S(behind) << CloseServer(abort=True) << CloseClient()
    play = ready() >> hello() << effects.StartServerTls(NAME, ANY)
    assert play >> S(behind) << CloseServer(abort=True) << CloseClient()


# Attack 3: what was said in clear is forgotten.


def test_all_that_was_said_before_is_forgotten() -> None:
    play = introduced(TERMINATE, "STARTTLS", "PIPELINING", "XFORWARD ADDR HELO", "AUTH CRAM-MD5", "SIZE 1000")
    assert (
        play
        >> C("AUTH CRAM-MD5") << server("AUTH CRAM-MD5")
        >> S("235 ok") << client("235 ok")
        >> C("XFORWARD ADDR=203.0.113.1 HELO=x") << server("XFORWARD ADDR=203.0.113.1 HELO=x")
        >> S("250 ok") << client("250 ok")
        >> C("MAIL FROM:<a@x>") << server("MAIL FROM:<a@x>")
        >> S("250 ok") << client("250 ok")
        >> C("RCPT TO:<b@y>") << server("RCPT TO:<b@y>")
        >> S("250 ok") << client("250 ok")
        >> C("STARTTLS") << server("STARTTLS")
        >> S(READY) << client(READY) << PeekClientHello()
        >> hello() << effects.StartServerTls(NAME, ANY)
        >> tls(Side.SERVER) << effects.StartClientTls(verified=False)
        >> tls(Side.CLIENT)
    )  # fmt: skip
    d = play.session._d
    fresh = introduced(TERMINATE)
    assert fresh
    assert d.envelope.sender is None
    assert not d.envelope.recipients
    assert (d.helo, d.remote, d.remote_helo) == (b"", b"", b"")
    assert not d.authenticated
    assert not d.capabilities.keywords
    assert not d.capabilities.pipelining
    assert not d.ours.forwarded
    assert not d.sync
    # Not in groups any more: the server has not offered that within TLS.
    assert play >> C("MAIL FROM:<a@x>\nRCPT TO:<b@y>") << server("MAIL FROM:<a@x>")


def test_xclient_is_sent_again_within_tls() -> None:
    given = options("terminate", xclient=True)
    play = Playbook(given)
    play.session.feed(events.Connected("198.51.100.25"))
    play.session.feed(S("220 mx"))
    told = "XCLIENT NAME=[UNAVAILABLE] ADDR=192.0.2.10"
    offers = "250-mx\n250-STARTTLS\n250 XCLIENT NAME ADDR"
    assert (
        play
        >> C("EHLO c") << server("EHLO c")
        >> S(offers) << server(told)
        >> S("220 mx") << server("EHLO c")
        >> S(offers) << client("250-mx\n250-STARTTLS\n250 XFILTERED")
        >> C("STARTTLS") << server("STARTTLS")
        >> S(READY) << client(READY) << PeekClientHello()
        >> hello() << effects.StartServerTls(NAME, ANY)
        >> tls(Side.SERVER) << effects.StartClientTls(verified=False)
        >> tls(Side.CLIENT)
        >> C("MAIL FROM:<a@x>") << client(answers.EHLO_FIRST.wire)
        >> C("EHLO c") << server("EHLO c")
        >> S("250-mx\n250 XCLIENT NAME ADDR") << server(told)
    )  # fmt: skip


def test_starttls_is_gone_within_tls_and_refused() -> None:
    play = terminated()
    assert (
        play
        >> C("EHLO c") << server("EHLO c")
        >> S("250-mx\n250-STARTTLS\n250 AUTH PLAIN") << client("250-mx\n250 AUTH PLAIN")
        >> C("STARTTLS") << client(answers.TLS_ALREADY.wire)
        >> C("AUTH PLAIN AGEAYg==") << server("AUTH PLAIN AGEAYg==")
    )  # fmt: skip
