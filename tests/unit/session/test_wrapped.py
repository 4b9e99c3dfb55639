"""TLS from the first octet (TlsWrapped): what goes where in which order, and that nothing is said in clear."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given as examples
from hypothesis import strategies as st

from proxsmtp_tp.config.tls_lines import parse_upstream
from proxsmtp_tp.session import effects, events
from proxsmtp_tp.session.effects import CloseClient, CloseServer, PassTls, PeekClientHello, RefuseTls
from proxsmtp_tp.session.options import Options
from proxsmtp_tp.session.session import TRANSITIONS, Session
from proxsmtp_tp.session.state import Reason, Wait
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.tls.facts import Side, Verified
from tests.unit.session.playbook import C, Playbook, S, client, fed, server
from tests.unit.session.test_tls_outcomes import FOREIGN, Busy, outcomes
from tests.unit.session.tls_playbook import ANY, NAME, hello, options, tls

if TYPE_CHECKING:
    from proxsmtp_tp.smtp.replies import Reply

PORT = 465
CONNECTED = events.Connected("198.51.100.25", PORT)
GREETING = "220 mx.example ESMTP"


def wrapped(*lines: str, **more: object) -> Options:
    return options(*(lines or ("terminate",)), tls_wrapped=frozenset({PORT}), **more)  # type: ignore[arg-type]


def peeked(given: Options | None = None) -> Playbook:
    """The server is connected."""
    return Playbook(given or wrapped()) >> CONNECTED << PeekClientHello()


def server_in_tls(given: Options | None = None, verified: Verified = Verified.NO) -> Playbook:
    """The server's leg has TLS."""
    known = verified in {Verified.NAME, Verified.DANE}
    rule = (given or wrapped()).upstream_tls.rule_for("198.51.100.25", PORT)
    return (
        peeked(given)
        >> hello() << effects.StartServerTls(NAME, rule)
        >> tls(Side.SERVER, verified) << effects.StartClientTls(verified=known)
    )  # fmt: skip


def greeted(given: Options | None = None) -> Playbook:
    """The client has read the greeting in its TLS."""
    return server_in_tls(given) >> tls(Side.CLIENT) >> S(GREETING) << client(GREETING)


def test_terminate() -> None:
    play = greeted()
    assert (
        play
        >> C("EHLO c") << server("EHLO c")
        >> S("250-mx\n250-AUTH PLAIN\n250-STARTTLS\n250 SIZE") << client("250-mx\n250-AUTH PLAIN\n250 SIZE")
        >> C("STARTTLS") << client(answers.TLS_ALREADY.wire)
        >> C("MAIL FROM:<a@x>") << server("MAIL FROM:<a@x>")
        >> S("250 ok") << client("250 ok")
    )  # fmt: skip
    assert any("TLS is terminated: client_tls=TLSv1.3, server_tls=TLSv1.3/unverified" in line for line in play.logged)


@pytest.mark.parametrize("greeting", [GREETING, "220-mx\n220 ESMTP", "554 no"])
def test_a_greeting_that_comes_before_the_client_has_tls_waits(greeting: str) -> None:
    """A server greets as soon as its own TLS is there, perhaps before its certificate was looked at."""
    for early in (0, 1):
        play = peeked() >> hello() << effects.StartServerTls(NAME, ANY)
        if early:
            play = play >> S(greeting)
        play = play >> tls(Side.SERVER) << effects.StartClientTls(verified=False)
        if not early:
            play = play >> S(greeting)
        play = play >> tls(Side.CLIENT) << client(greeting)
        assert play >> C("EHLO c") << server("EHLO c")


def test_a_server_that_greets_and_closes_is_answered() -> None:
    play = server_in_tls() >> S("554 5.7.1 not you") >> events.ServerClosed()
    assert play >> tls(Side.CLIENT) << client(b"554 5.7.1 not you\r\n" + answers.SERVER_LOST.wire) << CloseClient()


def test_a_server_that_closes_before_its_greeting() -> None:
    play = server_in_tls() >> events.ServerClosed()
    assert play >> tls(Side.CLIENT) << client(answers.SERVER_LOST.wire) << CloseClient()


def test_half_a_greeting_is_none() -> None:
    play = server_in_tls() >> S(b"220 mx") >> tls(Side.CLIENT) >> S(b" ESMTP\r\n") << client("220 mx ESMTP")
    assert play


def test_what_the_client_sent_before_the_server_was_there_is_its_hello() -> None:
    play = Playbook(wrapped()) >> events.ClientData(b"\x16\x03\x01\x02\n") >> events.ClientData(b"\x01\x00")
    assert (
        play
        >> CONNECTED
        << PeekClientHello(b"\x16\x03\x01\x02\n\x01\x00")
        >> hello()
        << (effects.StartServerTls(NAME, ANY))
    )


def test_pass() -> None:
    play = peeked(wrapped("pass")) >> hello() << PassTls()
    assert play >> events.PassingEnded(12, 34) << CloseServer() << CloseClient()
    assert sum("not judged (Tls: pass): from_client=12, from_server=34" in line for line in play.logged) == 1


@pytest.mark.parametrize("line", ["refuse", "strip", "strip submission"])
def test_refuse_is_an_alert(line: str) -> None:
    """strip is refuse: check-config does not accept it, and a session must not leave anybody in clear."""
    play = Playbook(wrapped(line)) >> CONNECTED << PeekClientHello()
    assert play << RefuseTls(49) << CloseServer(abort=True) << CloseClient()
    assert outcomes(play) == {"client refuse none address": 1}
    assert any("TLS from the first octet is refused (Tls: " in line for line in play.logged)


def test_the_name_decides_too() -> None:
    given = wrapped("pass name=a.example", "refuse name=b.example", "terminate")
    assert peeked(given) >> hello("a.example") << PassTls()
    assert peeked(given) >> hello("b.example") << RefuseTls(49) << CloseServer(abort=True) << CloseClient()
    assert peeked(given) >> hello("c.example") << effects.StartServerTls("c.example", ANY)


def test_another_port_begins_in_clear() -> None:
    play = Playbook(wrapped()) >> events.Connected("198.51.100.25", 25) >> S(GREETING) << client(GREETING)
    assert play
    given = replace(Options(), tls_wrapped=frozenset({PORT}))  # without Tls lines there is no TLS
    assert Playbook(given) >> CONNECTED >> S(GREETING) << client(GREETING)


def test_the_level_counts() -> None:
    given = wrapped("terminate", upstream=("secure match=mx.example",))
    play = peeked(given) >> hello() << effects.StartServerTls(NAME, parse_upstream("secure match=mx.example")[0])
    play = play >> tls(Side.SERVER) << CloseServer(abort=True) << effects.StartClientTls(verified=False)
    assert play >> tls(Side.CLIENT) << client(answers.closing(answers.UPSTREAM_NOT_VERIFIED).wire) << CloseClient()


def test_a_server_without_tls_is_named_within_the_clients_own() -> None:
    play = peeked() >> hello() << effects.StartServerTls(NAME, ANY)
    play = play >> events.TlsFailed(Side.SERVER, "wrong version number") << CloseServer(abort=True)
    play = play << effects.StartClientTls(verified=False) >> tls(Side.CLIENT)
    assert play << client(answers.closing(answers.UPSTREAM_TLS_FAILED).wire) << CloseClient()


# Nothing in clear.


@pytest.mark.parametrize(
    ("event", "line", "outcome"),
    [
        (S("220 mx"), "speaks in clear where TLS begins", "server undecided none in_clear"),
        (events.ServerClosed(), "the server left", "server undecided none left"),
        (events.ClientClosed(half=True), "the client left", "client undecided none left"),
        (events.DeadlinePassed(Wait.HANDSHAKE), "timed out", "client undecided none timed_out"),
        (events.ClientHelloFailed("it is SMTP"), "with its first octet (TlsWrapped): it is SMTP", "no_hello"),
        (FOREIGN, "ALPN", "other_protocol"),
        (events.Shutdown(), "", ""),
    ],
)
def test_each_end_before_tls_is_silent(event: events.Event, line: str, outcome: str) -> None:
    play = peeked()
    given = fed(play.session, event)
    assert not any(isinstance(each, effects.SendClient | effects.SendServer) for each in given)
    assert play.session.ended
    assert [name for name in outcomes(play) if outcome in name] or not outcome
    assert any(line in each.text for each in given if isinstance(each, effects.Log)) or not line
    assert play


def test_a_client_that_left_meanwhile() -> None:
    play = Playbook(wrapped()) >> events.ClientClosed(half=True) >> CONNECTED << PeekClientHello()
    assert play << CloseServer(abort=True) << CloseClient()


@pytest.mark.parametrize("port", [PORT, 25])
def test_a_server_that_cannot_be_reached(port: int) -> None:
    """Also where no TLS has begun: the client reads TLS only."""
    play = Playbook(wrapped())
    play.session.expect_port(port)
    play = play >> events.ConnectFailed("refused")
    if port != PORT:
        play = play << client(answers.unreachable("refused").wire)
    assert play << CloseClient()


@pytest.mark.parametrize("port", [PORT, 25])
@pytest.mark.parametrize("reply", [answers.CLIENT_NOT_SERVED, answers.NO_DESTINATION])
def test_a_client_that_is_refused_before_its_server_is_dialled(reply: Reply, port: int) -> None:
    play = Playbook(wrapped())
    play.session.expect_port(port)
    given = play.session.refuse(reply, "refused")
    assert [effect.data for effect in given if isinstance(effect, effects.SendClient)] == [reply.wire] * (port != PORT)
    assert any(isinstance(effect, CloseClient) for effect in given)
    assert play


@pytest.mark.parametrize("port", [PORT, 25])
def test_a_worker_that_ends_before_the_server_is_there(port: int) -> None:
    play = Playbook(wrapped())
    play.session.expect_port(port)
    play = play >> events.WindDown(Reason.STOP)
    if port != PORT:
        play = play << client(answers.SHUTTING_DOWN.wire)
    assert play << CloseServer(abort=True) << CloseClient()


def test_too_many_handshakes() -> None:
    play = Playbook(wrapped())
    play.session.use_handshakes(Busy())
    assert play >> CONNECTED << PeekClientHello() << RefuseTls(80) << CloseServer(abort=True) << CloseClient()
    assert outcomes(play) == {"client undecided none busy": 1}


@pytest.mark.parametrize("reason", [Reason.RELOAD, Reason.STOP])
def test_a_worker_that_ends(reason: Reason) -> None:
    play = server_in_tls() >> events.WindDown(reason) >> tls(Side.CLIENT)
    play = play >> S(GREETING)
    if reason is Reason.RELOAD:  # it may finish its first transaction
        assert play << client(GREETING) >> C("EHLO c") << server("EHLO c")
    else:
        play = play << client(GREETING.encode() + b"\r\n" + answers.SHUTTING_DOWN.wire)
        assert play << server("QUIT") << CloseServer() << CloseClient()


EVENTS = st.lists(
    st.sampled_from([
        C("EHLO c"), C(b"\x16\x03\x01\x00"), S("220 mx"), S(b"22"), S("421 no"), events.ClientClosed(half=True),
        events.ClientClosed(half=False), events.ServerClosed(), hello(), FOREIGN, events.ClientHelloFailed("x"),
        tls(Side.SERVER), tls(Side.SERVER, Verified.NAME), tls(Side.CLIENT), events.TlsFailed(Side.SERVER, "x"),
        events.TlsFailed(Side.CLIENT, "x", rejected=True), events.DeadlinePassed(Wait.HANDSHAKE),
        events.DeadlinePassed(Wait.GREETING), events.WindDown(Reason.STOP), events.WindDown(Reason.AGE),
        events.Shutdown(), events.Shutdown(by_administrator=True), CONNECTED, events.ConnectFailed("x"),
    ]),
    max_size=12,
)  # fmt: skip


@examples(EVENTS, st.sampled_from(["terminate", "pass", "refuse", "pass name=mx.example\nterminate"]))
def test_nothing_is_said_in_clear_whatever_happens(scenario: list[events.Event], line: str) -> None:
    session = Session(wrapped(*line.split("\n")), client_ip="192.0.2.10", local_ip="", clock=str)
    session.expect_port(PORT)
    begun = {Side.CLIENT: False, Side.SERVER: False}
    started: set[type] = set()
    for event in scenario:
        if isinstance(event, events.TlsStarted | events.TlsFailed):
            wanted = effects.StartServerTls if event.side is Side.SERVER else effects.StartClientTls
            if wanted not in started:
                continue
            started.discard(wanted)
            begun[event.side] |= isinstance(event, events.TlsStarted)
        if type(event) not in TRANSITIONS[session._d.phase]:
            continue
        for effect in fed(session, event):
            started.add(type(effect))
            assert not isinstance(effect, effects.SendClient) or begun[Side.CLIENT]
            assert not isinstance(effect, effects.SendServer) or begun[Side.SERVER]
