"""After STARTTLS: what is offered within TLS."""

from __future__ import annotations

import pytest

from proxsmtp_tp.session import effects, events
from proxsmtp_tp.session.effects import CloseClient, CloseServer
from proxsmtp_tp.session.state import Reason
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.tls.facts import Side, Verified
from tests.unit.session.playbook import C, S, client, server
from tests.unit.session.tls_playbook import (
    ANY,
    NAME,
    TERMINATE,
    hello,
    offered,
    ready,
    terminated,
    tls,
)


@pytest.mark.parametrize("verified", list(Verified))
def test_requiretls_needs_a_verified_server(verified: Verified) -> None:
    known = verified in {Verified.NAME, Verified.DANE}
    play = terminated(verified=verified)
    mail = "MAIL FROM:<a@x> REQUIRETLS"
    play = play >> C("EHLO c") << server("EHLO c") >> S("250-mx\n250-REQUIRETLS\n250 SIZE")
    if known:
        assert play << client("250-mx\n250-REQUIRETLS\n250 SIZE") >> C(mail) << server(mail)
    else:
        assert play << client("250-mx\n250 SIZE") >> C(mail) << client(answers.NO_REQUIRETLS.wire)


@pytest.mark.parametrize(
    ("offers", "seen"),
    [
        ("AUTH PLAIN EXTERNAL", "AUTH PLAIN"),
        ("AUTH EXTERNAL", None),
        ("AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN", "AUTH PLAIN"),
        ("AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 SCRAM-SHA-1", "AUTH SCRAM-SHA-1"),
        ("AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256", "AUTH SCRAM-SHA-256"),
        ("AUTH=SCRAM-SHA-256-plus external login", "AUTH=login"),
        ("AUTH PLAIN LOGIN", "AUTH PLAIN LOGIN"),
    ],
)
def test_logins_that_are_bound_to_the_clients_own_tls_are_removed(offers: str, seen: str | None) -> None:
    play = terminated() >> C("EHLO c") << server("EHLO c") >> S(f"250-mx\n250-{offers}\n250 SIZE")
    assert play << client(f"250-mx\n250-{seen}\n250 SIZE" if seen else "250-mx\n250 SIZE")
    clear = offered(TERMINATE) >> C("EHLO c") << server("EHLO c") >> S(f"250-mx\n250-{offers}\n250 SIZE")
    assert clear << client(f"250-mx\n250-{offers}\n250 SIZE")


def test_a_drain_ends_the_session_after_the_handshake() -> None:
    play = ready() >> events.WindDown(Reason.STOP)
    assert play
    play = play >> hello() << effects.StartServerTls(NAME, ANY)
    play = play >> tls(Side.SERVER) << effects.StartClientTls(verified=False)
    assert (
        play
        >> tls(Side.CLIENT)
        << client(answers.SHUTTING_DOWN.wire)
        << server("QUIT")
        << CloseServer()
        << CloseClient()
    )
