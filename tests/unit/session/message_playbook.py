"""Playbooks of one message, up to the verdict and up to the server's 354."""

from __future__ import annotations

from proxsmtp_tp.filters.verdict import Action, Verdict
from proxsmtp_tp.session.effects import (
    StartFilter,
)
from proxsmtp_tp.session.events import (
    FilterVerdict,
)
from proxsmtp_tp.session.options import Options
from proxsmtp_tp.smtp.envelope import Envelope
from proxsmtp_tp.smtp.replies import Reply
from tests.unit.session.playbook import C, Playbook, S, addressed

FILTERED = Options(filtered=True)
TEXT = b"Subject: x\r\n\r\nbody\r\n"
PASS = FilterVerdict(Verdict(Action.PASS, None, "exit 0", size=len(TEXT)))
REJECT = FilterVerdict(Verdict(Action.REJECT, Reply.of(550, "Content Rejected; spam"), "exit 1"))
DISCARD = FilterVerdict(Verdict(Action.DISCARD, Reply.of(250, "taken"), "exit 1"))

STARTED = StartFilter(Envelope(b"a@client.example", b"", [b"b@mx.example"], [b""]), b"client.example")


def judging(options: Options = FILTERED) -> Playbook:
    """A message has been sent to the filter; the verdict is awaited."""
    play = addressed(options)
    play.session.feed(C(b"DATA\r\n"))
    play.session.feed(C(TEXT + b".\r\n"))
    return play


def sending(options: Options = FILTERED) -> Playbook:
    """The filter has passed it, and the server has said 354."""
    play = judging(options)
    play.session.feed(PASS)
    play.session.feed(S("354 go"))
    return play
