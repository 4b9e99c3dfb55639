"""TlsRejected: pass. A client that rejects our certificate passes the next time, for this server and name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxsmtp_tp.config.settings import TlsDane
from proxsmtp_tp.session import effects, events
from proxsmtp_tp.session.effects import CloseClient, CloseServer, PassTls, RefuseTls
from proxsmtp_tp.tls.alerts import Alert
from proxsmtp_tp.tls.facts import Side, Verified
from tests.unit.session.playbook import C, Playbook, S, fed
from tests.unit.session.test_tls_outcomes import outcomes, told
from tests.unit.session.tls_playbook import NAME, TERMINATE, hello, options, ready, terminated, tls

SERVER = "198.51.100.25"
REJECTED = events.TlsFailed(Side.CLIENT, "unknown CA: the client rejects our certificate", rejected=True)
CLOSED = events.ClientClosed(half=False)


class Table(set[tuple[str, int, str]]):
    """What is known of the client."""

    def known(self, server: str, port: int, name: str) -> bool:
        return (server, port, name) in self

    def learn(self, server: str, port: int, name: str) -> None:
        self.add((server, port, name))


def given(play: Playbook, *known: tuple[str, int, str]) -> tuple[Playbook, Table]:
    table = Table(known)
    play.session.use_rejections(table)
    return told(play), table


def test_an_alert_about_the_certificate_is_learned() -> None:
    play, table = given(ready())
    play = play >> hello() << effects.StartServerTls(NAME, TERMINATE.upstream_tls.rule_for(SERVER, 0))
    play = play >> tls(Side.SERVER) << effects.StartClientTls(verified=False)
    play.session.measured.clear()
    assert play >> REJECTED << CloseServer(abort=True) << CloseClient()
    assert table == {(SERVER, 0, NAME)}
    assert outcomes(play) == {"client terminate none certificate_rejected": 1, "client pass none learned": 1}
    assert any("passes from now on, not judged (TlsRejected: pass)" in line for line in play.logged)


@pytest.mark.parametrize("leaving", [[CLOSED], [C("QUIT"), S("221 bye"), CLOSED]], ids=["closes", "quits"])
def test_leaving_after_the_handshake_is_learned_once(leaving: list[events.Event]) -> None:
    """Postfix with level verify or secure looks at the certificate only then, and sends no alert."""
    play, table = given(terminated())
    play.session.measured.clear()
    for event in leaving:
        fed(play.session, event)
    assert table == {(SERVER, 0, NAME)}
    assert outcomes(play) == {"client terminate none unused": 1, "client pass none learned": 1}


@pytest.mark.parametrize(
    "scenario",
    [
        [tls(Side.SERVER), events.TlsFailed(Side.CLIENT, "no cipher")],
        [tls(Side.SERVER), CLOSED],
        [tls(Side.SERVER), events.TlsFailed(Side.CLIENT, "the connection was closed within the handshake")],
        [events.TlsFailed(Side.SERVER, "handshake failure"), REJECTED],
        [tls(Side.SERVER), tls(Side.CLIENT), C("EHLO c"), CLOSED],
    ],
    ids=["other alert", "left", "cut", "was refused anyway", "accepted"],
)
def test_nothing_else_is_learned(scenario: list[events.Event]) -> None:
    play, table = given(ready())
    for event in (hello(), *scenario):
        fed(play.session, event)
    assert not table


def test_with_fail_nothing_is_learned() -> None:
    play = told(terminated())
    play.session.measured.clear()
    fed(play.session, CLOSED)
    assert outcomes(play) == {"client terminate none unused": 1}


def test_it_passes_the_next_time() -> None:
    play, _ = given(ready(), (SERVER, 0, NAME))
    play = play >> hello() << PassTls()
    assert play >> events.PassingEnded(12, 34) << CloseServer() << CloseClient()
    assert any("(Tls: terminate, TlsRejected: pass): from_client=12, from_server=34" in line for line in play.logged)


@pytest.mark.parametrize("known", [(SERVER, 0, "other.example"), (SERVER, 25, NAME), ("198.51.100.26", 0, NAME)])
def test_another_server_or_name_is_terminated(known: tuple[str, int, str]) -> None:
    play, _ = given(ready(), known)
    assert play >> hello() << effects.StartServerTls(NAME, TERMINATE.upstream_tls.rule_for(SERVER, 0))


def test_what_is_refused_stays_refused() -> None:
    play, _ = given(ready(options("pass name=a.example", "refuse")), (SERVER, 0, NAME))
    assert play >> hello() << RefuseTls(Alert.ACCESS_DENIED) << CloseServer(abort=True) << CloseClient()
    play, _ = given(ready(replace(TERMINATE, tls_dane=TlsDane.REFUSE)), (SERVER, 0, NAME))
    seen = events.ClientHelloSeen(hello().hello, dane=True)
    assert play >> seen << RefuseTls(Alert.ACCESS_DENIED) << CloseServer(abort=True) << CloseClient()


def test_the_facts_of_the_server_change_nothing() -> None:
    """A trusted leaf is rejected as well: the client does not have our CA."""
    play, table = given(ready())
    for event in (hello(), tls(Side.SERVER, Verified.NAME), REJECTED):
        fed(play.session, event)
    assert table
