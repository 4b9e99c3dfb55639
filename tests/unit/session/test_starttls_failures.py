"""STARTTLS: a handshake that fails, a peer that leaves meanwhile, and passed TLS that ends."""

from __future__ import annotations

import pytest

from proxsmtp_tp.config.tls_lines import parse_upstream
from proxsmtp_tp.session import effects, events
from proxsmtp_tp.session.effects import CloseClient, CloseServer
from proxsmtp_tp.session.state import Reason, Wait
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.tls.facts import Side, Verified
from tests.unit.session.playbook import C, S, client, server
from tests.unit.session.tls_playbook import (
    ANY,
    NAME,
    READY,
    hello,
    offered,
    options,
    passing,
    ready,
    tls,
)


def test_pass_ends_with_one_line() -> None:
    play = passing() >> events.PassingEnded(1200, 3400) << CloseServer() << CloseClient()
    assert play
    assert (
        sum("TLS passed on, not judged (Tls: pass): from_client=1200, from_server=3400" in line for line in play.logged)
        == 1
    )


def test_what_is_no_tls_resets_both_sides() -> None:
    play = passing() >> events.PassingEnded(12, 34, "the server sends no TLS record")
    assert play << CloseServer(abort=True) << CloseClient(reset=True)


@pytest.mark.parametrize("reason", list(Reason))
def test_a_passed_connection_goes_on_until_shutdown(reason: Reason) -> None:
    play = passing() >> events.WindDown(reason)
    if reason is Reason.AGE:
        assert play << CloseServer(abort=True) << CloseClient(reset=True)
    else:
        assert play >> events.Shutdown() << CloseServer(abort=True) << CloseClient(reset=True)


def test_an_idle_passed_connection_ends() -> None:
    play = passing() >> events.DeadlinePassed(Wait.PASSING)
    assert play << CloseServer(abort=True) << CloseClient(reset=True)


# Each failure.


def test_a_server_whose_tls_fails_is_named_within_the_clients_own() -> None:
    play = ready() >> hello() << effects.StartServerTls(NAME, ANY)
    last = answers.closing(answers.UPSTREAM_TLS_FAILED)
    assert (
        play
        >> events.TlsFailed(Side.SERVER, "handshake failure") << CloseServer(abort=True)
        << effects.StartClientTls(verified=False)
        >> events.ServerClosed()
        >> tls(Side.CLIENT) << client(last.wire) << CloseClient()
    )  # fmt: skip
    assert last.wire.startswith(b"421 4.7.5 ")


@pytest.mark.parametrize(
    ("level", "verified", "goes_on"),
    [
        ("may", Verified.NO, True),
        ("may", Verified.TRUSTED, True),
        ("encrypt", Verified.NO, True),
        ("verify", Verified.NO, False),
        ("verify", Verified.TRUSTED, False),
        ("verify", Verified.NAME, True),
        ("secure match=mx.example", Verified.NO, False),
        ("secure match=mx.example", Verified.NAME, True),
    ],
)
def test_the_level_decides_about_the_servers_certificate(level: str, verified: Verified, goes_on: bool) -> None:
    given = options("terminate", upstream=(level,))
    play = ready(given) >> hello() << effects.StartServerTls(NAME, parse_upstream(level)[0])
    play = play >> tls(Side.SERVER, verified)
    if goes_on:
        assert play << effects.StartClientTls(verified=verified is not Verified.NO)
        return
    play = play << CloseServer(abort=True) << effects.StartClientTls(verified=False)
    assert play >> tls(Side.CLIENT) << client(answers.closing(answers.UPSTREAM_NOT_VERIFIED).wire) << CloseClient()


def test_a_client_that_rejects_our_certificate_is_named() -> None:
    play = ready() >> hello() << effects.StartServerTls(NAME, ANY)
    play = play >> tls(Side.SERVER) << effects.StartClientTls(verified=False)
    reason = "unknown CA: the client rejects our certificate"
    assert play >> events.TlsFailed(Side.CLIENT, reason) << CloseServer(abort=True) << CloseClient()
    assert any(reason in line for line in play.logged)


def test_a_server_that_leaves_while_the_client_starts_tls() -> None:
    play = ready() >> hello() << effects.StartServerTls(NAME, ANY)
    play = play >> tls(Side.SERVER) << effects.StartClientTls(verified=False) >> events.ServerClosed()
    assert play >> tls(Side.CLIENT) << client(answers.SERVER_LOST.wire) << CloseClient()


STEPS = [
    (),
    (hello(),),
    (hello(), tls(Side.SERVER)),
]


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize(
    "event",
    [
        events.ClientClosed(half=True),
        events.ClientClosed(half=False),
        events.DeadlinePassed(Wait.HANDSHAKE),
        events.Shutdown(),
        events.Shutdown(by_administrator=True),
    ],
)
def test_nothing_is_said_in_clear_to_peers_that_expect_tls(
    steps: tuple[events.Event, ...], event: events.Event
) -> None:
    play = ready()
    assert play
    for step in steps:
        play.session.feed(step)
    assert play >> event << CloseServer(abort=True) << CloseClient()


@pytest.mark.parametrize("steps", STEPS[:2])
def test_a_server_that_leaves_before_tls_ends_the_session(steps: tuple[events.Event, ...]) -> None:
    play = ready()
    assert play
    for step in steps:
        play.session.feed(step)
    assert play >> events.ServerClosed() << CloseClient()


def test_a_client_that_has_left_gets_no_220() -> None:
    play = offered() >> C("STARTTLS") << server("STARTTLS") >> events.ClientClosed(half=True)
    assert play >> S(READY) << CloseServer(abort=True) << CloseClient()


def test_a_client_that_does_not_read_has_no_more_time_for_the_handshake() -> None:
    """It holds a place for handshakes, of which one client has few."""
    play = ready()
    assert play
    play.session.feed(events.ClientFull(full=True))
    assert play.session._d.current_wait() is Wait.HANDSHAKE
    play.session.feed(events.DeadlinePassed(Wait.HANDSHAKE))
    assert play.session.ended


def test_the_handshake_has_a_deadline() -> None:
    play = ready()
    assert play
    assert play.session._d.current_wait() is Wait.HANDSHAKE
    play.session.feed(hello())
    assert play.session._d.current_wait() is Wait.HANDSHAKE


def test_tls_with_the_client_never_comes_first() -> None:
    play = ready() >> hello() << effects.StartServerTls(NAME, ANY)
    assert play
    with pytest.raises(RuntimeError, match="before TLS with the server"):
        play.session.feed(tls(Side.CLIENT))
