"""Each reply is counted by its class, and each 421 by its reason."""

from __future__ import annotations

from collections import Counter

import pytest

from proxsmtp_tp.session import events, measuring
from proxsmtp_tp.session.options import Options
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.smtp.replies import Reply
from proxsmtp_tp.telemetry.metrics import CLIENT_REPLIES, CLOSED, CONNECTIONS, FAMILIES, SERVER_REPLIES
from tests.unit.session.playbook import SERVER, C, Playbook, S, fed, introduced, logged

NAMED = {name: reply for name, reply in vars(answers).items() if isinstance(reply, Reply) and reply.code == 421}
OF_TLS = {
    name: answers.closing(reply)
    for name, reply in vars(answers).items()
    if isinstance(reply, Reply) and name.startswith("UPSTREAM_")
}
"""Refusals of the server's TLS, in the form that ends the connection."""


def measured(play: Playbook) -> Counter[int]:
    counted = Counter(play.session.measured)
    play.session.measured.clear()
    return counted


@pytest.mark.parametrize("reply", NAMED.values(), ids=NAMED)
def test_every_421_of_ours_has_a_reason(reply: Reply) -> None:
    assert measuring.reason(reply) != "other"


def test_those_of_the_servers_tls_have_one_too() -> None:
    assert len(OF_TLS) >= 4
    assert {measuring.reason(reply) for reply in OF_TLS.values()} == {"server_tls"}


def test_those_that_are_made_have_one_too() -> None:
    assert measuring.reason(answers.unreachable("x")) == "no_server"
    assert measuring.reason(answers.server_leaves("x")) == "server"
    assert measuring.reason(answers.limited(421, "ClientMessages", 5)) == "limit"
    assert measuring.reason(answers.locked(421, "192.0.2.1", "x", "spam")) == "limit"
    assert measuring.reason(Reply.quoting(421, "4.3.2 what a server said")) == "server"
    assert measuring.reason(Reply.of(421, "new")) == "other"


def test_every_reason_is_used() -> None:
    family = next(family for family in FAMILIES if family.name == "closed_total")
    made = {"no_server", "server", "server_tls", "limit", "other"}
    assert {value for (value,) in family.values} == made | {measuring.reason(reply) for reply in NAMED.values()}


def test_replies_are_counted_on_both_sides() -> None:
    play = introduced(Options())
    measured(play)
    fed(play.session, C("NOOP\nVRFY x\nSTARTTLS"))
    for reply in ("250 ok", "550 no", "354 what"):
        fed(play.session, S(reply))
    assert play
    assert measured(play) == {
        CLIENT_REPLIES + 2: 1,
        SERVER_REPLIES + 2: 1,
        CLIENT_REPLIES + 5: 2,
        SERVER_REPLIES + 5: 1,
        SERVER_REPLIES + 3: 1,
        CLIENT_REPLIES + 4: 1,
        CLOSED["server_out_of_step"]: 1,
    }


def test_what_became_of_a_connection() -> None:
    play = Playbook()
    fed(play.session, events.Connected(SERVER))
    assert play
    assert measured(play) == {CONNECTIONS["accepted"]: 1}
    play = Playbook()
    given = play.session.refuse(answers.CLIENT_NOT_SERVED, "refused: its address is not in Clients")
    assert logged(given) == ["client=192.0.2.10: refused: its address is not in Clients"]
    assert play
    assert measured(play)[CONNECTIONS["refused"]] == 1


def test_an_end_by_an_administrator_and_by_the_server() -> None:
    for event, reason in ((events.Shutdown(by_administrator=True), "administrator"), (S("421 4.3.2 bye"), "server")):
        play = introduced(Options())
        fed(play.session, event)
        assert measured(play)[CLOSED[reason]] == 1
        assert play


def test_a_locked_client_is_not_counted_as_one_over_a_limit() -> None:
    over = answers.limited(421, "ClientConnectionRate", 37)
    locked = answers.locked(421, "192.0.2.7", "2026-11-28T05:00:00Z", "ClientRejects")
    assert measuring.limited(over) == CONNECTIONS["limit"]
    assert measuring.limited(locked) == CONNECTIONS["locked"]
    assert measuring.limited(answers.locked(554, "::1", "x", "administrator")) == CONNECTIONS["locked"]
