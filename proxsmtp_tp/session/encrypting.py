"""UpstreamTls for a client that stays in clear: the server's leg gets TLS before the first address or login goes to it.

The client's first command that may tell something, such as MAIL or AUTH, waits for our STARTTLS, the handshake, and our
EHLO within TLS. Where TLS is demanded and cannot be had, the client gets 451, 454 or 421, and nothing goes to the
server in clear. The level dane is may here, unless UpstreamTls names the server (sni=): then DNS is asked first.
With XClient the order is EHLO, STARTTLS, EHLO, XCLIENT, EHLO: the client's address does not go in clear, either.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from proxsmtp_tp.session import effects, ehlo, refusing, starttls, xclient
from proxsmtp_tp.session.measuring import tls as counter
from proxsmtp_tp.session.parts import PendingReply
from proxsmtp_tp.session.state import Expect, Phase
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.smtp.capabilities import NO_CAPABILITIES, REFUSED_VERBS, rewrite_ehlo
from proxsmtp_tp.smtp.replies import ReplyReader, SmtpError
from proxsmtp_tp.telemetry.quoting import shown
from proxsmtp_tp.tls.facts import Side
from proxsmtp_tp.tls.levels import TlsLevel

if TYPE_CHECKING:
    from proxsmtp_tp.session import events
    from proxsmtp_tp.session.dialogue import Dialogue
    from proxsmtp_tp.smtp.commands import Command
    from proxsmtp_tp.smtp.replies import Reply
    from proxsmtp_tp.tls.levels import Outcome

_CLEAR = frozenset({b"EHLO", b"HELO", b"NOOP", b"RSET", b"HELP", b"QUIT", b"LHLO"}) | REFUSED_VERBS
"""Commands that may go to the server in clear, or never go to it. All others may carry addresses, messages or logins,
and when TLS begins the server forgets what they said (RFC 3207 section 4.2), for example XFORWARD."""


def encrypts_first(d: Dialogue, said: Command) -> bool:
    """Whether this command must wait until the server's leg has TLS. SmtpError: it never will."""
    if said.verb in _CLEAR or d.tls.server is not None:
        return False
    wanted = starttls.demand_in_clear(d)
    if wanted.rule.level is TlsLevel.DANE and wanted.rule.server_name and d.tls.tlsa is None:
        d.tls.waiting, d.tls.asking = said, True
        d.effects.append(effects.LookUpTlsa(wanted.rule))
        return True
    if wanted.unknown is not None:
        counts = counter("server", "clear", "tlsa_unknown", wanted.level)
        raise _refusal(d, wanted.unknown, answers.UPSTREAM_TLSA_UNKNOWN, counts)
    if not wanted.wants_tls:
        return False
    if b"STARTTLS" not in d.capabilities.keywords:
        counts = counter("server", "clear", "not_offered", wanted.level)
        raise _refusal(d, wanted.not_offered(), answers.UPSTREAM_TLS_NOT_OFFERED, counts)
    if d.tls.place is not None and (busy := d.tls.place.begin()):
        counts = counter("client", "clear", "busy")
        d.log_once(b"TLS busy", f"client={d.client}: no TLS with the server for now: {busy}", logging.WARNING, counts)
        raise SmtpError(answers.TLS_BUSY)
    d.tls.waiting = said
    d.ask(PendingReply(Expect.OUR_STARTTLS, b"STARTTLS\r\n"))
    return True


def _refusal(d: Dialogue, outcome: Outcome, otherwise: Reply, counts: int) -> SmtpError:
    """What the client gets in place of TLS with the server. Logged once in a session."""
    d.log_once(
        b"UpstreamTls", f"client={d.client}, server={d.server}: no TLS: {outcome.reason}", logging.WARNING, counts
    )
    return SmtpError(outcome.refusal or otherwise)


def tlsa_found(d: Dialogue, event: events.TlsaFound) -> None:
    """TlsaFound: the command that has waited goes on (`client.pump`)."""
    d.tls.tlsa, d.tls.asking = event.tlsa, False


def our_starttls(d: Dialogue, _pending: PendingReply, reply: Reply) -> None:
    """The server's reply to our own STARTTLS."""
    where = f"client={d.client}, server={d.server}"
    if not reply.positive:
        words, counts = shown(reply.wire), counter("server", "clear", "refused")
        d.log_once(b"STARTTLS", f"{where}: the server refuses STARTTLS: {words}", logging.WARNING, counts)
        d.tls.give_place_back()
        d.tls.waiting = None
        refusing.refuse(d, answers.UPSTREAM_TLS_FAILED)
    elif len(d.replies):
        counts = counter("server", "clear", "octets_behind")
        d.log(f"{where}: the server sends octets behind its reply to STARTTLS: closing", logging.ERROR, counts)
        d.drop_server(abort=True)
        d.end(answers.SERVER_BEHIND_STARTTLS)
    else:
        d.phase = Phase.ENCRYPTING
        d.tls.action = "clear"
        rule = starttls.demand_in_clear(d).rule
        d.effects.append(effects.StartServerTls("", rule))


def encrypted(d: Dialogue, event: events.TlsStarted) -> None:
    """TlsStarted in ENCRYPTING: say EHLO again, then the command that has waited."""
    wanted = starttls.demand_in_clear(d)
    outcome = wanted.handshake_done(event.facts.verified)
    if outcome.refusal is not None:
        counts = counter("server", "clear", "unverified", wanted.level)
        _end_unencrypted(d, outcome.refusal, outcome.reason, counts)
        return
    d.tls.give_place_back()
    d.tls.server = event.facts
    d.phase = Phase.COMMAND
    d.replies = ReplyReader()
    d.capabilities = NO_CAPABILITIES
    d.xclient_sent = False  # the server has forgotten it
    text = f"client={d.client}, server={d.server}: TLS with the server only: {event.facts.log_value(Side.SERVER)}"
    d.log(text, logging.INFO, counter("server", "clear", "started", wanted.level))
    d.ask(PendingReply(Expect.OUR_EHLO_IN_TLS, b"EHLO " + d.helo + b"\r\n"))


def not_encrypted(d: Dialogue, event: events.TlsFailed) -> None:
    """TlsFailed in ENCRYPTING."""
    wanted = starttls.demand_in_clear(d)
    outcome = wanted.failed(event.reason)
    counts = counter("server", "clear", "failed", wanted.level)
    _end_unencrypted(d, outcome.refusal or answers.UPSTREAM_TLS_FAILED, outcome.reason, counts)


def _end_unencrypted(d: Dialogue, refusal: Reply, reason: str, counts: int) -> None:
    d.log(f"client={d.client}, server={d.server}: no TLS with the server: {reason}: closing", logging.WARNING, counts)
    d.drop_server(abort=True)
    d.end(answers.closing(refusal))


def our_ehlo_in_tls(d: Dialogue, _pending: PendingReply, reply: Reply) -> None:
    """The server's reply to our EHLO within TLS: the client is not told. With XClient the server then learns the
    client's address, and gets EHLO once more; otherwise the command that has waited goes on.
    """
    if not reply.positive:
        counts = counter("server", "clear", "ehlo_refused")
        words = shown(reply.wire)
        _end_unencrypted(d, answers.UPSTREAM_TLS_FAILED, f"EHLO within TLS is refused: {words}", counts)
        return
    d.capabilities = rewrite_ehlo(reply, hide_name=None)[1]
    if d.options.xclient and not d.xclient_sent:
        line = xclient.command(d, PendingReply(Expect.EHLO, address=d.helo), reply)
        if line is not None:
            d.xclient_sent = True
            d.ask(PendingReply(Expect.OUR_XCLIENT_IN_TLS, line))
        else:
            ehlo.goes_on_without_xclient(d)


def our_xclient_in_tls(d: Dialogue, _pending: PendingReply, reply: Reply) -> None:
    """The server's reply to our XCLIENT within TLS: if it was accepted, the server begins a new session."""
    if reply.positive:
        d.capabilities = NO_CAPABILITIES
        d.ask(PendingReply(Expect.OUR_EHLO_IN_TLS, b"EHLO " + d.helo + b"\r\n"))
    else:
        ehlo.goes_on_without_xclient(d, reply)
