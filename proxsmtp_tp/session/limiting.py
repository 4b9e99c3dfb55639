"""The limits of a client (Client* directives) and locks: at which points of the dialogue they refuse, and how.

    at the greeting  421  the client is locked (or 554, LockReply), ClientConnections and ClientConnectionRate,
                          ClientServers
    at MAIL          450  ClientMessages, ClientRejects, ClientSpam; a client that was locked meanwhile: 421 or 554
    at RCPT          450  ClientRecipients, ClientRejects

A transaction that has begun is not cut: its recipients that were accepted stay, and its message is taken. Each limit is
logged once in a session, and each refusal is counted.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from proxsmtp_tp.config.rates import ClientLimit
from proxsmtp_tp.session import effects
from proxsmtp_tp.session.limits import Locked
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.telemetry.counters import Counter
from proxsmtp_tp.telemetry.facts import LimitHit, LimitRefusal

if TYPE_CHECKING:
    from proxsmtp_tp.session.dialogue import Dialogue
    from proxsmtp_tp.session.limits import Exceeded, Finding
    from proxsmtp_tp.smtp.replies import Reply

_COUNTED: Final = {
    ClientLimit.CONNECTION_RATE: (Counter.LIMITED_CONNECTION_RATE, Counter.SHADOW_CONNECTION_RATE),
    ClientLimit.CONNECTIONS: (Counter.LIMITED_CONNECTIONS, Counter.SHADOW_CONNECTIONS),
    ClientLimit.SERVERS: (Counter.LIMITED_SERVERS, Counter.SHADOW_SERVERS),
    ClientLimit.MESSAGES: (Counter.LIMITED_MESSAGES, Counter.SHADOW_MESSAGES),
    ClientLimit.RECIPIENTS: (Counter.LIMITED_RECIPIENTS, Counter.SHADOW_RECIPIENTS),
    ClientLimit.REJECTS: (Counter.LIMITED_REJECTS, Counter.SHADOW_REJECTS),
    ClientLimit.SPAM: (Counter.LIMITED_SPAM, Counter.SHADOW_SPAM),
}

_NO_RECIPIENT_REFUSED: Final = frozenset({500, 501, 502, 503, 504, 530, 535, 538, 552, 555})
"""5xx to RCPT that say nothing about the recipient: syntax, sequence, login, TLS, a full mailbox (RFC 5321 section
4.2.3)."""


def at_greeting(d: Dialogue, server: str) -> Reply | None:
    """The reply in place of the greeting, if the client is locked or over a limit; None: it is served."""
    if d.refusals.limits is None:
        return None
    return _reply(d, d.refusals.limits.connection(server), 421, "CONNECT")


def at_mail(d: Dialogue, sender: bytes) -> Reply | None:
    """The reply to MAIL, if it must be refused; None: it is sent to the server."""
    if d.refusals.limits is None:
        return None
    if not d.record.open:
        d.record.limits = ()  # of a MAIL that was refused, and of the greeting: these have events of their own
    reply = _reply(d, d.refusals.limits.message(), 450, "MAIL", sender)
    d.refusals.mail_limited = reply is not None
    return reply


def at_rcpt(d: Dialogue, recipient: bytes) -> Reply | None:
    """The reply to RCPT, if it must be refused; None: it is sent to the server.

    After a MAIL that was refused here RCPT is an error, which the server answers: no recipient is counted.
    """
    if d.refusals.limits is None or d.refusals.mail_limited:
        return None
    return _reply(d, d.refusals.limits.recipient(), 450, "RCPT", d.envelope.sender, recipient)


def recipient_answered(d: Dialogue, reply: Reply) -> None:
    """The server has answered RCPT: 5xx in a transaction counts for ClientRejects."""
    if (
        d.refusals.limits is None
        or reply.code < 500
        or reply.code in _NO_RECIPIENT_REFUSED
        or d.envelope.sender is None
    ):
        return
    _log_outcome(d, d.refusals.limits.happened(ClientLimit.REJECTS))


def message_rejected(d: Dialogue) -> None:
    """The filter, which did not fail, has refused a message for good (5xx): it counts for ClientSpam."""
    if d.refusals.limits is not None:
        _log_outcome(d, d.refusals.limits.happened(ClientLimit.SPAM))


def reply_to(refused: Exceeded | Locked, code: int) -> Reply:
    """The reply to the client: which limit it has reached, and when it may try again. `code` is 421 or 450."""
    if isinstance(refused, Locked):
        return answers.locked(int(refused.reply.value), refused.client, refused.until, refused.reason)
    return answers.limited(code, refused.limit.value, refused.seconds)


def _reply(  # noqa: PLR0913, PLR0917
    d: Dialogue,
    finding: Finding | None,
    code: int,
    command: str,
    sender: bytes | None = None,
    recipient: bytes | None = None,
) -> Reply | None:
    if finding is None:
        return None
    for exceeded in finding.shadow:
        _count_shadow(d, exceeded)
    refused = finding.refused
    if refused is None:
        return None
    reply = reply_to(refused, code)
    d.unseen_effects.append(LimitRefusal(command, sender, recipient, reply.wire))
    if isinstance(refused, Locked):
        d.unseen_effects.append(effects.Count(Counter.LIMITED_LOCKED))
        text = f"refused with {reply.code}: locked until {refused.until} ({refused.reason})"
        _remember(d, b"limit locked", LimitHit(refused.reason, "", "locked", until=refused.until))
        d.log_once(b"limit locked", f"client={d.client}: {text}", logging.WARNING)
    else:
        d.unseen_effects.append(effects.Count(_COUNTED[refused.limit][0]))
        text = f"refused with {reply.code}: {_over(refused)}, for {refused.seconds} s"
        _remember(d, _key(refused), _hit(refused, "close" if code == 421 else "defer"))
        d.log_once(_key(refused), f"client={d.client}: {text}", logging.WARNING)
    return reply


def _log_outcome(d: Dialogue, finding: Finding | None) -> None:
    if finding is None:
        return
    for reached in (finding.refused, *finding.shadow):
        if reached is not None and not isinstance(reached, Locked):
            hit = _hit(reached, "shadow" if reached.rate.shadow else "reached")
            _remember(d, b"reached " + _key(reached), hit)
            d.log_once(b"reached " + _key(reached), f"client={d.client}: {_over(reached)}", logging.WARNING)


def _count_shadow(d: Dialogue, exceeded: Exceeded) -> None:
    d.unseen_effects.append(effects.Count(_COUNTED[exceeded.limit][1]))
    text = f"would be refused for {exceeded.seconds} s: {_over(exceeded)}"
    _remember(d, b"shadow " + _key(exceeded), _hit(exceeded, "shadow"))
    d.log_once(b"shadow " + _key(exceeded), f"client={d.client}: {text}", logging.WARNING)


def _remember(d: Dialogue, key: bytes, hit: LimitHit) -> None:
    """An event, once for each key in a session, before its log line. The event of the transaction has it, too."""
    if key not in d.logged_once:
        d.unseen_effects.append(hit)
    known = {(one.limit, one.action) for one in d.record.limits}
    if (hit.limit, hit.action) not in known:
        d.record.limits += (hit,)


def _hit(exceeded: Exceeded, action: str) -> LimitHit:
    return LimitHit(exceeded.limit.value, str(exceeded.rate), action, exceeded.seconds)


def _over(exceeded: Exceeded) -> str:
    return f"{exceeded.limit.value} {exceeded.rate} is reached"


def _key(exceeded: Exceeded) -> bytes:
    return exceeded.limit.value.encode()
