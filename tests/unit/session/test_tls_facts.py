"""What the filter is told of TLS."""

from __future__ import annotations

from dataclasses import replace

from proxsmtp_tp.session.effects import StartFilter
from proxsmtp_tp.session.options import Options
from proxsmtp_tp.tls.facts import NO_TLS, Legs, Side, Verified
from tests.unit.session.playbook import C, Playbook, S, client, introduced, server
from tests.unit.session.tls_playbook import TERMINATE, terminated, tls, within

FILTERED = replace(TERMINATE, filtered=True)


def told(play: Playbook) -> Legs:
    """The facts in StartFilter of a message."""
    play = (
        play
        >> C("MAIL FROM:<a@b.example>") << server("MAIL FROM:<a@b.example>") >> S("250 ok") << client("250 ok")
        >> C("RCPT TO:<c@d.example>") << server("RCPT TO:<c@d.example>") >> S("250 ok") << client("250 ok")
    )  # fmt: skip
    assert play
    (start,) = (effect for effect in play.session.feed(C("DATA")) if isinstance(effect, StartFilter))
    return start.tls


def test_both_legs() -> None:
    legs = told(within(terminated(FILTERED, Verified.NAME), "SIZE"))
    assert legs == Legs(tls(Side.CLIENT).facts, tls(Side.SERVER, Verified.NAME).facts)


def test_in_clear() -> None:
    assert told(introduced(FILTERED, "STARTTLS")) == NO_TLS
    assert told(introduced(replace(Options(), filtered=True), "SIZE")) == NO_TLS
