"""The filters want another envelope than the client's: tell the server, after the verdict and before DATA.

More recipients only: one RCPT for each. Any other change: RSET, XFORWARD again if the client sent it, MAIL, and RCPT
for all recipients (RFC 5321 sections 4.1.1.5 and 4.1.4). Commands are sent in a group where the server offers
PIPELINING; otherwise the rest is not sent after a refusal. DATA follows only when the server has accepted everything.
A transaction may have 10,000 recipients: commands are made and sent GROUP at a time.
"""

from __future__ import annotations

from itertools import chain, islice
from typing import TYPE_CHECKING, Final

from proxsmtp_tp.session import xclient
from proxsmtp_tp.session.parts import PendingReply
from proxsmtp_tp.session.state import Expect
from proxsmtp_tp.smtp.replies import Reply
from proxsmtp_tp.telemetry.facts import Refusal
from proxsmtp_tp.telemetry.quoting import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxsmtp_tp.session.dialogue import Dialogue
    from proxsmtp_tp.smtp.envelope import Envelope

OURS: Final[frozenset[Expect]] = frozenset(
    {Expect.OUR_RESTART, Expect.OUR_XFORWARD_AGAIN, Expect.OUR_MAIL, Expect.OUR_RCPT}
)
"""What these commands expect."""

GROUP = 500
"""Commands that wait for a reply at most: to make and send them takes about a millisecond, then other connections are
served. Each reply allows one more."""

_DSN_OF_MAIL = frozenset({b"RET", b"ENVID"})
_DSN_OF_RCPT = frozenset({b"NOTIFY", b"ORCPT"})


def commands(d: Dialogue, wanted: Envelope, size: int) -> Iterator[PendingReply]:
    """The commands that make the server's envelope the wanted one; `size` is that of the message, for SIZE."""
    known = d.envelope
    count = len(known.recipients)
    same_sender = (known.sender, known.sender_parameters) == (wanted.sender, wanted.sender_parameters)
    same_start = wanted.recipients[:count] == known.recipients
    if same_sender and same_start and wanted.recipient_parameters[:count] == known.recipient_parameters:
        return _recipients(d, wanted, count)
    restart = [PendingReply(Expect.OUR_RESTART, b"RSET\r\n")]
    forwarded = [PendingReply(Expect.OUR_XFORWARD_AGAIN, line) for line in xclient.lines_again(d)]
    if (ident := xclient.ident_again(d)) is not None:
        forwarded.append(PendingReply(Expect.OUR_XFORWARD, ident))
    return chain(restart, forwarded, (_mail(d, wanted, size),), _recipients(d, wanted, 0))


def _mail(d: Dialogue, wanted: Envelope, size: int) -> PendingReply:
    words = []
    for word in wanted.sender_parameters.split():
        name = word.partition(b"=")[0].upper()
        if name == b"SIZE":
            words.append(b"SIZE=%d" % size)
        elif name not in _DSN_OF_MAIL or b"DSN" in d.capabilities.keywords:
            words.append(word)
    line = b" ".join([b"MAIL FROM:<%s>" % (wanted.sender or b""), *words])
    return PendingReply(Expect.OUR_MAIL, line + b"\r\n", wanted.sender or b"")


def _recipients(d: Dialogue, wanted: Envelope, start: int) -> Iterator[PendingReply]:
    given = zip(wanted.recipients[start:], wanted.recipient_parameters[start:], strict=True)
    for address, parameters in given:
        words = [
            word
            for word in parameters.split()
            if word.partition(b"=")[0].upper() not in _DSN_OF_RCPT or b"DSN" in d.capabilities.keywords
        ]
        line = b" ".join([b"RCPT TO:<%s>" % address, *words])
        yield PendingReply(Expect.OUR_RCPT, line + b"\r\n", address)


def ask_next(d: Dialogue) -> None:
    """Send the next commands, as many as may wait for a reply."""
    if d.message is not None:
        space = GROUP - len(d.outstanding) - len(d.queued)
        for command in islice(d.message.envelope_commands, max(space, 0)):
            d.ask(command)


def answered(d: Dialogue, pending: PendingReply, reply: Reply) -> None:
    """The server has answered one of the commands. After a refusal those that were not sent are dropped."""
    message = d.message
    if message is None or reply.positive:
        return
    if message.refusal is None:
        message.refusal = _refusal(reply)
        message.envelope_commands = iter(())
        d.queued = ()
        if pending.expect in {Expect.OUR_MAIL, Expect.OUR_RCPT}:
            command = "MAIL" if pending.expect is Expect.OUR_MAIL else "RCPT"
            recipient = pending.address if command == "RCPT" else None
            sender = pending.address if command == "MAIL" else None
            d.unseen_effects.append(Refusal(command, d.server, sender, recipient, reply.wire))
        d.log(f"client={d.client}, server={d.server}: the server refuses the envelope that the filters want")


def _refusal(reply: Reply) -> Reply:
    return Reply.of(451, f"4.3.0 The server refuses the changed envelope: {printable(reply.wire)}")


def pending(d: Dialogue) -> bool:
    """Whether the server has still to answer one of the commands."""
    return any(each.expect in OURS for each in chain(d.outstanding, d.queued))
