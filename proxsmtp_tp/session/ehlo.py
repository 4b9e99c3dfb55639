"""The beginning of a session: decisions on the server's greeting, and on its replies to EHLO, HELO and our XCLIENT."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from proxsmtp_tp.session import measuring, starttls, xclient
from proxsmtp_tp.session.parts import PendingReply
from proxsmtp_tp.session.state import Expect, Phase
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.smtp.capabilities import NO_CAPABILITIES, REMOVED, TlsShown, hide_greeting, rewrite_ehlo
from proxsmtp_tp.smtp.login import NO_LOGIN
from proxsmtp_tp.telemetry.quoting import shown

if TYPE_CHECKING:
    from proxsmtp_tp.session.dialogue import Dialogue
    from proxsmtp_tp.smtp.replies import Reply


def greeting(d: Dialogue, _pending: PendingReply, reply: Reply) -> None:
    if d.options.hidden_name is not None and reply.positive:
        reply = hide_greeting(reply, d.options.hidden_name)
    d.phase = Phase.COMMAND
    d.pass_on(reply)


def ehlo(d: Dialogue, pending: PendingReply, reply: Reply) -> None:
    if not reply.positive:
        d.pass_on(reply)
        return
    if d.options.xclient and not d.xclient_sent and _goes_to_tls(d, reply):
        d.client_known = True  # before the first command that needs it, it is told within TLS
    elif d.options.xclient and not d.xclient_sent:
        line = xclient.command(d, pending, reply)
        if line is not None:
            d.xclient_sent = True
            d.ask(PendingReply(Expect.OUR_XCLIENT, line, pending.address, pending.line, reply))
            return
        if not goes_on_without_xclient(d):
            return
    _introduced(d, pending.expect, pending.address, reply)


def _goes_to_tls(d: Dialogue, reply: Reply) -> bool:
    """Whether UpstreamTls encrypts the server's leg for this client in clear, before its first transaction."""
    if d.options.tls is None or d.tls.server is not None or d.tls.client is not None:
        return False
    offered = b"STARTTLS" in rewrite_ehlo(reply, hide_name=None)[1].keywords
    return offered and starttls.demand_in_clear(d).wants_tls


def goes_on_without_xclient(d: Dialogue, refusal: Reply | None = None) -> bool:
    """The server has refused XCLIENT, or does not offer it: whether the session goes on; otherwise it was ended."""
    if refusal is None:
        return _goes_on_unknown(d, "the server does not offer XCLIENT with ADDR", answers.XCLIENT_NOT_OFFERED)
    return _goes_on_unknown(d, f"XCLIENT refused: {shown(refusal.wire)}", answers.XCLIENT_NOT_ACCEPTED)


def _goes_on_unknown(d: Dialogue, why: str, last: Reply) -> bool:
    """Decide whether the session goes on although the server does not learn the client's address (XClientRequired).

    False: it was ended with `last`.
    """
    where = f"client={d.client}, server={d.server}"
    if not d.options.xclient_required:
        d.log_once(b"XCLIENT unknown", f"{where}: {why}", logging.WARNING)
        d.client_known = True
        return True
    d.log(f"{where}: {why}: closing (with XClientRequired: off the session would go on)", logging.ERROR)
    d.end(last)
    return False


def _introduced(d: Dialogue, expect: Expect, helo: bytes, reply: Reply) -> None:
    """EHLO or HELO was accepted: pass the reply on, with the capabilities that the proxy supports; reset the state."""
    if expect is Expect.HELO:
        d.capabilities = NO_CAPABILITIES
        if d.options.hidden_name is not None:
            reply = hide_greeting(reply, d.options.hidden_name)
    else:
        tls = starttls.tls_shown(d)
        clear_auth = d.options.auth_without_tls or tls is not TlsShown.REMOVED
        reply, d.capabilities = rewrite_ehlo(
            reply,
            hide_name=d.options.hidden_name,
            xforward=xclient.may_forward(d),
            clear_auth=clear_auth,
            size_limit=d.options.size_limit,
            tls=tls,
        )
        if d.capabilities.tls and tls is TlsShown.REMOVED and not d.removed.tls:
            d.removed.tls = True
            d.record.measured.append(measuring.tls("client", "strip", "removed"))
        d.removed.auth = d.removed.auth or (d.capabilities.tls and d.capabilities.clear_auth and not clear_auth)
        if d.tracing.on:
            _log_removed(d, tls)
    d.helo = helo
    d.new_transaction()
    d.pass_on(reply)


def _log_removed(d: Dialogue, tls: TlsShown) -> None:
    """With -d 4: log each keyword that is removed from the reply, once in a connection."""
    kept = {b"STARTTLS"} if tls is TlsShown.OFFERED else set()
    for keyword in d.capabilities.keywords.keys() & REMOVED.keys() - kept:
        text = f"client={d.client}, server={d.server}: {keyword.decode()} is not offered: {REMOVED[keyword]}"
        d.log_once(b"250 " + keyword, text, logging.DEBUG)


def our_xclient(d: Dialogue, pending: PendingReply, reply: Reply) -> None:
    """After XCLIENT the server begins a new session (Postfix XCLIENT_README): send EHLO or HELO again."""
    if reply.positive:
        d.client_known = True
        d.authenticated = False
        d.login = NO_LOGIN
        d.ask(PendingReply(Expect.OUR_EHLO, pending.parameters, pending.address))
        return
    if goes_on_without_xclient(d, reply) and pending.reply is not None:
        _introduced(d, _introduction(pending.parameters), pending.address, pending.reply)


def our_ehlo(d: Dialogue, pending: PendingReply, reply: Reply) -> None:
    if reply.positive:
        _introduced(d, _introduction(pending.line), pending.address, reply)
    else:
        d.pass_on(reply)


def _introduction(line: bytes) -> Expect:
    return Expect.HELO if line[:4].upper() == b"HELO" else Expect.EHLO
