"""Each outcome of TLS has one log line and one counter."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.config.settings import TlsDane
from proxsmtp_tp.config.tls_lines import TlsLevel
from proxsmtp_tp.session import events
from proxsmtp_tp.session.options import Options
from proxsmtp_tp.session.state import Reason, Wait
from proxsmtp_tp.telemetry.facts import Transaction
from proxsmtp_tp.telemetry.metrics import TLS
from proxsmtp_tp.telemetry.tls_outcomes import OUTCOMES
from proxsmtp_tp.tls.client_hello import ClientHello
from proxsmtp_tp.tls.facts import Side, Verified
from proxsmtp_tp.tls.levels import TlsaState
from tests.unit.session.playbook import C, Playbook, S, fed, introduced, logged
from tests.unit.session.tls_playbook import PASS, READY, TERMINATE, hello, offered, options, ready, terminated, tls

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxsmtp_tp.session.effects import Effect
    from proxsmtp_tp.session.events import Event

NAMES = {index: outcome for outcome, index in TLS.items()}
CLOSED = events.ClientClosed(half=False)
MAIL = C("MAIL FROM:<a@x>")


class Busy:
    """No place for a handshake."""

    def begin(self) -> str:
        return "too many"

    def end(self) -> None:
        pass


def busy(play: Playbook) -> Playbook:
    play.session.use_handshakes(Busy())
    return play


def begin(given: Options = TERMINATE, *keywords: str) -> Playbook:
    """Past EHLO, with nothing of it asserted."""
    return told(introduced(given, *(keywords or ("STARTTLS",))))


def told(play: Playbook) -> Playbook:
    """All that is expected has come."""
    assert play
    return play


def encrypting(*more: Event, level: str = "encrypt", **given: object) -> tuple[Playbook, list[Event]]:
    return begin(options("terminate", upstream=(level,), **given)), [MAIL, *more]


def with_server(level: str = "may", *more: Event) -> tuple[Playbook, list[Event]]:
    return told(ready(options("terminate", upstream=(level,)))), [hello(), *more]


SECURE = "secure match=mx.example"
FOREIGN = events.ClientHelloSeen(ClientHello("mx.example", (b"h2",), (0x0304,), False, b"\x16"))
SERVER_FAILED = events.TlsFailed(Side.SERVER, "handshake failure")
NO_ANSWER = events.TlsFailed(Side.SERVER, "dns", TlsaState.FAILED)

SCENARIOS: list[tuple[str, Callable[[], tuple[Playbook, list[Event]]]]] = [
    ("client undecided none busy", lambda: (busy(begin()), [C("STARTTLS"), C("STARTTLS")])),
    ("client undecided none octets_behind", lambda: (begin(), [C("STARTTLS\nNOOP")])),
    ("client undecided none octets_behind", lambda: (begin(), [C("STARTTLS"), C("NOOP"), S(READY)])),
    ("client undecided none in_clear", lambda: (told(ready()), [C("NOOP")])),
    ("client undecided none no_hello", lambda: (told(ready()), [events.ClientHelloFailed("x")])),
    ("client undecided none left", lambda: (told(ready()), [CLOSED])),
    ("client undecided none timed_out", lambda: (told(ready()), [events.DeadlinePassed(Wait.HANDSHAKE)])),
    ("server undecided none refused", lambda: (begin(), [C("STARTTLS"), S("454 no"), C("STARTTLS"), S("454 no")])),
    ("server undecided none octets_behind", lambda: (begin(), [C("STARTTLS"), S(READY + "\r\n250 ok")])),
    ("server undecided none octets_behind", lambda: (told(ready()), [S("250 ok")])),
    (
        "server undecided none in_clear",
        lambda: (
            told(Playbook(options("terminate", tls_wrapped=frozenset({465})))),
            [events.Connected("198.51.100.25", 465), S("220 mx")],
        ),
    ),
    ("server undecided none left", lambda: (told(ready()), [events.ServerClosed()])),
    (
        "client terminate none certificate_rejected",
        lambda: with_server("may", tls(Side.SERVER), events.TlsFailed(Side.CLIENT, "unknown CA", rejected=True)),
    ),
    (
        "client terminate none failed",
        lambda: with_server("may", tls(Side.SERVER), events.TlsFailed(Side.CLIENT, "no cipher")),
    ),
    ("client terminate none other_protocol", lambda: (told(ready()), [FOREIGN])),
    ("client terminate none left", lambda: with_server("may", CLOSED)),
    (
        "client terminate none timed_out",
        lambda: with_server("may", tls(Side.SERVER), events.DeadlinePassed(Wait.HANDSHAKE)),
    ),
    ("client terminate none unused", lambda: (told(terminated()), [CLOSED])),
    ("client terminate none unused", lambda: (told(terminated()), [C("QUIT"), S("221 bye")])),
    ("server terminate none octets_behind", lambda: with_server("may", S("250 ok"))),
    ("server terminate none left", lambda: with_server("may", events.ServerClosed())),
    ("server terminate none left", lambda: with_server("may", tls(Side.SERVER), events.ServerClosed())),
    ("server terminate none timed_out", lambda: with_server("may", events.DeadlinePassed(Wait.HANDSHAKE))),
    ("both terminate encrypt started", lambda: with_server("may", tls(Side.SERVER), tls(Side.CLIENT))),
    ("both terminate verify started", lambda: with_server("verify", tls(Side.SERVER, Verified.NAME), tls(Side.CLIENT))),
    ("server terminate encrypt failed", lambda: with_server("may", SERVER_FAILED, tls(Side.CLIENT))),
    ("server terminate secure unverified", lambda: with_server(SECURE, tls(Side.SERVER), tls(Side.CLIENT))),
    (
        "server terminate dane tlsa_unknown",
        lambda: with_server("dane", events.TlsStarted(Side.SERVER, tls(Side.SERVER).facts, TlsaState.FAILED)),
    ),
    ("server terminate dane failed", lambda: with_server("dane", NO_ANSWER)),
    ("both pass none passed", lambda: (told(ready(PASS)), [hello(), events.PassingEnded(1, 2)])),
    ("client refuse none address", lambda: (begin(options("refuse")), [C("STARTTLS")])),
    ("client refuse none name", lambda: (told(ready(options("pass name=a.example", "refuse"))), [hello()])),
    (
        "client refuse none dane",
        lambda: (
            told(ready(replace(TERMINATE, tls_dane=TlsDane.REFUSE))),
            [events.ClientHelloSeen(hello().hello, dane=True)],
        ),
    ),
    ("client clear none busy", lambda: (busy(encrypting()[0]), [MAIL, MAIL])),
    ("server clear none refused", lambda: encrypting(S("454 no"), MAIL, S("454 no"))),
    ("server clear none octets_behind", lambda: encrypting(S(READY + "\r\n250 ok"))),
    ("server clear none octets_behind", lambda: encrypting(S(READY), S("250 ok"))),
    ("server clear none timed_out", lambda: encrypting(S(READY), events.DeadlinePassed(Wait.HANDSHAKE))),
    ("server clear encrypt started", lambda: encrypting(S(READY), tls(Side.SERVER), S("250 mx"))),
    ("server clear encrypt failed", lambda: encrypting(S(READY), SERVER_FAILED)),
    ("server clear secure unverified", lambda: encrypting(S(READY), tls(Side.SERVER), level=SECURE)),
    (
        "server clear encrypt not_offered",
        lambda: (begin(options("terminate", upstream=("encrypt",)), "SIZE"), [MAIL, MAIL]),
    ),
    (
        "server clear dane tlsa_unknown",
        lambda: encrypting(events.TlsaFound(TlsaState.FAILED), MAIL, level="dane sni=mx.example"),
    ),
    ("client strip none left", lambda: (begin(Options(), "STARTTLS"), [CLOSED])),
    (
        "server strip none required",
        lambda: (begin(Options(), "STARTTLS"), [MAIL, S("530 5.7.0 Must issue a STARTTLS command first")]),
    ),
]


def outcomes(play: Playbook) -> Counter[str]:
    """The counters of TLS that have grown."""
    return Counter(" ".join(NAMES[index]) for index in play.session.measured if index in NAMES)


@pytest.mark.parametrize(("outcome", "scenario"), SCENARIOS, ids=[outcome for outcome, _ in SCENARIOS])
def test_one_line_and_one_counter(outcome: str, scenario: Callable[[], tuple[Playbook, list[Event]]]) -> None:
    play, then = scenario()
    play.session.measured.clear()
    lines: list[str] = []
    for event in then:
        if not play.session.ended:
            lines += [line for line in logged(fed(play.session, event)) if "refused=MAIL" not in line]
    assert outcomes(play) == {outcome: 1}
    assert len(lines) == 1, lines


def test_a_server_that_refuses_ehlo_within_tls_has_a_line_after_the_one_of_its_tls() -> None:
    play, then = encrypting(S(READY), tls(Side.SERVER), S("550 no"))
    lines = [line for event in then for line in logged(fed(play.session, event))]
    assert outcomes(play) == {"server clear encrypt started": 1, "server clear none ehlo_refused": 1}
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        (events.DeadlinePassed(Wait.PASSING), "both pass none timed_out"),
        (events.WindDown(Reason.AGE), "both pass none too_long"),
        (events.PassingEnded(12, 34, "the server sends no TLS record"), "both pass none not_tls"),
        (events.Shutdown(), ""),
    ],
)
def test_a_passed_connection_has_its_line_however_it_ends(end: Event, outcome: str) -> None:
    play = told(ready(PASS))
    lines = [line for event in (hello(), end, events.PassingEnded(12, 34)) for line in logged(fed(play.session, event))]
    assert outcomes(play) == Counter(["both pass none passed", *filter(None, [outcome])])
    assert sum("not judged (Tls: pass): from_client=12, from_server=34" in line for line in lines) == 1
    assert len(lines) == 1 + bool(outcome)


def test_starttls_that_is_removed_is_counted_once_in_a_session() -> None:
    play = introduced(Options(), "STARTTLS")
    fed(play.session, C("EHLO again"))
    fed(play.session, S("250-mx\n250 STARTTLS"))
    assert outcomes(told(play)) == {"client strip none removed": 1}
    assert not outcomes(told(introduced(Options(), "SIZE")))
    assert not outcomes(told(offered()))


def test_a_client_that_says_ehlo_within_tls_has_used_it() -> None:
    play = told(terminated())
    play.session.measured.clear()
    fed(play.session, C("EHLO c"))
    fed(play.session, CLOSED)
    assert not outcomes(play)


def test_no_outcome_is_never_counted() -> None:
    """`broken` is what the driver counts; the level `may` cannot come; `learned` is in test_tls_rejected."""
    told_here = {
        "both pass none timed_out", "both pass none too_long", "both pass none not_tls", "client strip none removed",
        "server clear none ehlo_refused",
        "client pass none learned",
    } | {outcome for outcome, _ in SCENARIOS}  # fmt: skip
    without_level = {(side, action, reason) for side, action, _, reason in map(str.split, told_here)}
    everything = {(side, action, reason) for side, action, _, reason in OUTCOMES if reason != "broken"}
    assert everything == without_level
    levels = {level for _, _, level, _ in OUTCOMES} - {"none"}
    assert levels == {level.value for level in TlsLevel} - {"may"}


def test_a_transaction_knows_both_legs() -> None:
    play = told(terminated(replace(TERMINATE, filtered=True), Verified.NAME))
    ended: list[Effect] = []
    for event in (C("EHLO c"), S("250 mx"), MAIL, S("250 ok"), C("RSET"), S("250 ok")):
        ended += [effect for effect in fed(play.session, event) if isinstance(effect, Transaction)]
    [facts] = ended
    assert isinstance(facts, Transaction)
    assert facts.client_tls is not None
    assert facts.server_tls is not None
    assert (facts.client_tls.short, facts.server_tls.short) == ("TLSv1.3", "TLSv1.3/verified")
