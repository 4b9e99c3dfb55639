"""STARTTLS (RFC 3207), where a Tls line of the configuration says more than strip.

The client's STARTTLS goes to the server, the server's 220 to the client, and then the client's hello decides:

pass       both sides keep their own TLS, and nothing is judged any more (`passing`)
terminate  first TLS with the server, then TLS with the client; then both begin a new session (RFC 3207 section 4.2)
refuse     an alert, and the end

No octet that came in clear is acted on after STARTTLS: octets of the client after it, or of the server after its 220,
end the connection. From the 220 on nothing more is said in clear to either side.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from proxsmtp_tp.config.settings import TlsDane
from proxsmtp_tp.session import effects, passing
from proxsmtp_tp.session.measuring import tls as counter
from proxsmtp_tp.session.parts import DataCommand, OwnCommands, PendingReply, RemovedOffers
from proxsmtp_tp.session.passing import name
from proxsmtp_tp.session.state import Expect, Phase
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.smtp.capabilities import NO_CAPABILITIES, TlsShown
from proxsmtp_tp.smtp.lines import AUTH_LIMIT, LineBuffer
from proxsmtp_tp.smtp.login import NO_EXCHANGE, NO_LOGIN
from proxsmtp_tp.smtp.replies import ReplyReader, SmtpError
from proxsmtp_tp.telemetry.quoting import shown
from proxsmtp_tp.tls.alerts import Alert
from proxsmtp_tp.tls.facts import Side, TlsFacts
from proxsmtp_tp.tls.levels import Demand, TlsaState
from proxsmtp_tp.tls.policy import TlsAction

if TYPE_CHECKING:
    from proxsmtp_tp.session import events
    from proxsmtp_tp.session.dialogue import Dialogue
    from proxsmtp_tp.smtp.commands import Command
    from proxsmtp_tp.smtp.replies import Reply

_SMTP = b"smtp"
"""The protocol of mail in ALPN. A client that offers only other protocols (RFC 7301 section 3.2) must not get our
certificate: it may be a browser that an attacker has directed here (ALPACA)."""

_BEHIND = counter("client", "undecided", "octets_behind")


# Before STARTTLS.


def connected(d: Dialogue, port: int) -> None:
    """The server is known: find the Tls lines that fit."""
    d.tls.port = port
    if d.options.tls is not None:
        d.tls.candidates = d.options.tls.by_address(d.client, address(d), port)


def address(d: Dialogue) -> str:
    """The server's address for the policy; "": it is a unix socket."""
    return "" if d.server.startswith("/") else d.server


def in_policy(d: Dialogue) -> bool:
    """Whether a Tls line other than strip may apply; otherwise STARTTLS is removed."""
    return d.tls.candidates is not None and d.tls.candidates.keeps_starttls


def tls_shown(d: Dialogue) -> TlsShown:
    """What the client sees of TLS in the reply to EHLO."""
    if d.tls.client is not None:
        return TlsShown.VERIFIED if verified(d) else TlsShown.STARTED
    if d.tls.server is not None:
        return TlsShown.SERVER_ONLY
    return TlsShown.OFFERED if in_policy(d) else TlsShown.REMOVED


def verified(d: Dialogue) -> bool:
    """Whether both legs have TLS, and the server is known by its certificate: then REQUIRETLS can be honoured."""
    return d.tls.client is not None and d.tls.server is not None and d.tls.server.verified.proven


# STARTTLS.


def command(d: Dialogue, said: Command) -> None:
    """The client's STARTTLS. SmtpError: it is refused with this reply."""
    if d.tls.client is not None:
        raise SmtpError(answers.TLS_ALREADY)
    if b"STARTTLS" not in d.capabilities.keywords or d.tls.server is not None:  # UpstreamTls has begun it already
        raise SmtpError(answers.TLS_NOT_OFFERED)
    if said.argument:
        raise SmtpError(answers.STARTTLS_SYNTAX)
    if len(d.lines):
        d.log(f"client={d.client}: octets behind STARTTLS: closing", logging.WARNING, _BEHIND)
        d.end_after_replies = answers.BEHIND_STARTTLS
        return
    certain = d.tls.candidates.certain if d.tls.candidates is not None else None
    if certain is not None and certain.action is TlsAction.REFUSE:
        counts = counter("client", "refuse", "address")
        d.log(
            f"client={d.client}, server={d.server}: STARTTLS is refused (Tls: {certain.rule})", logging.WARNING, counts
        )
        d.end_after_replies = answers.TLS_REFUSED
        return
    if d.tls.place is not None and (busy := d.tls.place.begin()):
        counts = counter("client", "undecided", "busy")
        d.log(f"client={d.client}: STARTTLS is refused for now: {busy}", logging.WARNING, counts)
        # With 454 many clients go on in clear, and a client that takes all places could cause that.
        d.end_after_replies = answers.closing(answers.TLS_BUSY)
        return
    d.ask(PendingReply(Expect.STARTTLS, said.line))


def replied(d: Dialogue, _pending: PendingReply, reply: Reply) -> None:
    """The server's reply to STARTTLS. After a refusal the client may go on in clear, or not (UpstreamTls)."""
    where = f"client={d.client}, server={d.server}"
    if not reply.positive:
        words, counts = shown(reply.wire), counter("server", "undecided", "refused")
        d.log_once(b"STARTTLS", f"{where}: the server refuses STARTTLS: {words}", logging.WARNING, counts)
        d.tls.give_place_back()
        d.pass_on(reply)
    elif len(d.replies):
        counts = counter("server", "undecided", "octets_behind")
        d.log(f"{where}: the server sends octets behind its reply to STARTTLS: closing", logging.ERROR, counts)
        d.drop_server(abort=True)
        d.end(answers.SERVER_BEHIND_STARTTLS)
    elif len(d.lines):  # they came while the server was asked
        d.log(f"client={d.client}: octets behind STARTTLS: closing", logging.WARNING, _BEHIND)
        d.drop_server(abort=True)
        d.end(answers.BEHIND_STARTTLS)
    elif d.client_gone:
        d.drop_server(abort=True)
        d.end(None)
    else:
        d.pass_on(reply)
        d.phase = Phase.STARTING_TLS
        d.effects.append(effects.PeekClientHello())


# After the 220.


def client_in_clear(d: Dialogue, _event: events.ClientData) -> None:
    """ClientData in STARTING_TLS: octets that were read before the driver began to look for the hello."""
    _fails(d, "the client goes on in clear after STARTTLS", counter("client", "undecided", "in_clear"))


def server_in_clear(d: Dialogue, event: events.ServerData) -> None:
    """ServerData in STARTING_TLS and ENCRYPTING: the server says something in clear, or by TLS before it was asked.

    With TlsWrapped its greeting comes by TLS, and waits for the client's.
    """
    if d.tls.wrapped and d.tls.action == "terminate":
        d.replies.feed(event.data)
        return
    if d.tls.wrapped:
        counts = counter("server", "undecided", "in_clear")
        _fails(d, "the server speaks in clear where TLS begins with the first octet (TlsWrapped)", counts)
        return
    counts = counter("server", d.tls.action, "octets_behind")
    _fails(d, "the server sends octets behind its reply to STARTTLS", counts, answers.SERVER_BEHIND_STARTTLS)


def client_closed(d: Dialogue, _event: events.ClientClosed) -> None:
    """ClientClosed in STARTING_TLS. A half close is no different: TLS needs both directions."""
    d.client_gone = True
    _fails(d, "the client left while TLS was started", counter("client", d.tls.action, "left"))


def server_closed(d: Dialogue, _event: events.ServerClosed) -> None:
    """ServerClosed in STARTING_TLS. A client whose own TLS starts gets a reply within that."""
    if d.server_gone:
        return  # we have closed this connection ourselves
    if d.tls.wrapped and d.tls.server is not None and len(d.replies):
        d.flow.server_closing = True  # the client gets what the server has said
        return
    d.server_gone = d.record.server_left = True
    if d.tls.server is None:
        _fails(d, "the server left while TLS was started", counter("server", d.tls.action, "left"))
    else:
        d.tls.server, d.tls.refusal = None, answers.SERVER_LOST
        text = f"client={d.client}, server={d.server}: the server left while TLS was started with the client"
        d.log(text, logging.WARNING, counter("server", "terminate", "left"))


def no_hello(d: Dialogue, event: events.ClientHelloFailed) -> None:
    """ClientHelloFailed: the client asked for TLS, and sends something else."""
    counts = counter("client", "undecided", "no_hello")
    when = "with its first octet (TlsWrapped)" if d.tls.wrapped else "after STARTTLS"
    _fails(d, f"the client does not begin TLS {when}: {event.reason}", counts)


def timed_out(d: Dialogue) -> int:
    """The counter for a handshake, or a passed connection, whose deadline has passed."""
    if d.phase is Phase.PASSING:
        return counter("both", "pass", "timed_out")
    server = d.tls.action == "terminate" and d.tls.server is None and d.tls.refusal is None
    return counter("server" if server or d.phase is Phase.ENCRYPTING else "client", d.tls.action, "timed_out")


def _fails(d: Dialogue, why: str, counts: int, last: Reply | None = None) -> None:
    """`last`: for a client that is in clear; one that expects TLS gets nothing (`Dialogue.end`)."""
    d.log(f"client={d.client}, server={d.server}: {why}: closing", logging.WARNING, counts)
    d.drop_server(abort=True)
    d.end(last)


def hello(d: Dialogue, event: events.ClientHelloSeen) -> None:
    """ClientHelloSeen: decide."""
    if d.options.tls is None:
        raise RuntimeError("a ClientHello without a TLS policy")
    d.tls.name = event.hello.server_name
    decision = d.options.tls.decide(d.client, address(d), d.tls.port, event.hello.reliable_name)
    d.tls.rule = decision.rule
    dane = d.options.tls_dane if event.dane and decision.action is TlsAction.TERMINATE else TlsDane.TERMINATE
    rejected = decision.action is TlsAction.TERMINATE and _has_rejected(d)
    if dane is TlsDane.REFUSE:
        text = f"TLS is refused: the server's name has TLSA records (TlsDane): sni={name(d)}"
        d.log(f"client={d.client}, server={d.server}: {text}", logging.WARNING, counter("client", "refuse", "dane"))
        d.effects.append(effects.RefuseTls(Alert.ACCESS_DENIED))
        d.end(None)
    elif decision.action is TlsAction.PASS or dane is TlsDane.PASS or rejected:
        if decision.action is not TlsAction.PASS:
            d.tls.rule = f"{decision.rule}, {'TlsDane' if dane is TlsDane.PASS else 'TlsRejected'}: pass"
        passing.begin(d)
    elif decision.action is TlsAction.TERMINATE and event.hello.alpn and _SMTP not in event.hello.alpn:
        d.effects.append(effects.RefuseTls(Alert.NO_APPLICATION_PROTOCOL))
        _fails(d, "the client's TLS is for another protocol (ALPN)", counter("client", "terminate", "other_protocol"))
    elif decision.action is TlsAction.TERMINATE:
        d.tls.action = "terminate"
        d.effects.append(effects.StartServerTls(d.tls.name, demand(d).rule))
    else:
        text = f"TLS is refused by the server name (Tls: {decision.rule}): sni={name(d)}"
        d.log(f"client={d.client}, server={d.server}: {text}", logging.WARNING, counter("client", "refuse", "name"))
        d.effects.append(effects.RefuseTls(Alert.ACCESS_DENIED))
        d.end(None)


# Both legs are terminated.


def demand(d: Dialogue, tlsa: TlsaState = TlsaState.NONE) -> Demand:
    """What the server's leg must have; with an own TLS of the client at least encrypt."""
    return Demand(d.options.upstream_tls.rule_for(address(d), d.tls.port), client_tls=True, tlsa=tlsa)


def demand_in_clear(d: Dialogue) -> Demand:
    """What the server's leg must have for a client that stays in clear."""
    rule = d.options.upstream_tls.rule_for(address(d), d.tls.port)
    return Demand(rule, tlsa=TlsaState.NONE if d.tls.tlsa is None else d.tls.tlsa)


def started(d: Dialogue, event: events.TlsStarted) -> None:
    """TlsStarted: after the server's side comes the client's, then the new session."""
    if event.side is Side.SERVER:
        _server_started(d, event)
    elif d.tls.server is None and d.tls.refusal is None:
        raise RuntimeError("TLS with the client before TLS with the server")
    else:
        _client_started(d, event.facts)


def _server_started(d: Dialogue, event: events.TlsStarted) -> None:
    d.tls.server = facts = event.facts
    wanted = demand(d, event.tlsa)
    outcome = wanted.unknown or wanted.handshake_done(facts.verified)
    d.tls.level = wanted.level
    if outcome.refusal is not None:
        why = "tlsa_unknown" if wanted.unknown else "unverified"
        _refuse_inside(d, outcome.refusal, outcome.reason, counter("server", "terminate", why, wanted.level))
    else:
        d.effects.append(effects.StartClientTls(verified=facts.verified.vouched))


def failed(d: Dialogue, event: events.TlsFailed) -> None:
    """TlsFailed: never clear again. The client learns of the server's failure by a reply within its own TLS."""
    if event.side is Side.CLIENT:
        counts = counter("client", "terminate", "certificate_rejected" if event.rejected else "failed")
        text = f"TLS with the client failed: {event.reason}: closing"
        d.log(f"client={d.client}, server={d.server}: {text}", logging.WARNING, counts)
        if event.rejected and d.tls.refusal is None:  # a refused session is no evidence about the next one
            _learn_rejection(d)
        d.drop_server(abort=True)
        d.end(None)
        return
    wanted = demand(d, event.tlsa)
    outcome = wanted.failed(f"TLS with the server failed: {event.reason}")
    counts = counter("server", "terminate", "failed", wanted.level)
    _refuse_inside(d, outcome.refusal or answers.UPSTREAM_TLS_FAILED, outcome.reason, counts)


def _refuse_inside(d: Dialogue, refusal: Reply, reason: str, counts: int) -> None:
    """Start TLS with the client, only to say why the session ends. An alert would tell it nothing, and some clients
    then try again in clear (Postfix with level may).
    """
    text = f"TLS is started with the client only to refuse it: {reason}; sni={name(d)}"
    d.log(f"client={d.client}, server={d.server}: {text}", logging.WARNING, counts)
    d.tls.refusal = answers.closing(refusal)
    d.tls.server = None
    d.drop_server(abort=True)
    d.effects.append(effects.StartClientTls(verified=False))


def _client_started(d: Dialogue, facts: TlsFacts) -> None:
    d.tls.client = facts
    d.tls.give_place_back()
    if d.tls.wrapped:
        d.phase = Phase.GREETING
        d.outstanding.append(PendingReply(Expect.GREETING))
        d.flow.replies_left = len(d.replies) > 0
    else:
        d.phase = Phase.COMMAND
        _forget(d)
    if d.tls.refusal is not None:
        d.end(d.tls.refusal)
    elif d.tls.server is not None:
        legs = f"client_tls={facts.log_value(Side.CLIENT)}, server_tls={d.tls.server.log_value(Side.SERVER)}"
        counts = counter("both", "terminate", "started", d.tls.level)
        d.log(f"client={d.client}, server={d.server}: TLS is terminated: {legs}, sni={name(d)}", logging.INFO, counts)
        d.tls.unused = True


def client_leaves(d: Dialogue) -> None:
    """The client closes, or says QUIT: log it if this is all that it has done in TLS."""
    if d.tls.unused:
        text = "the client left after the TLS handshake: it probably does not accept the certificate"
        counts = counter("client", "terminate", "unused")
        d.log_once(b"TLS unused", f"client={d.client}, server={d.server}: {text}", logging.WARNING, counts)
        d.tls.unused = False
        _learn_rejection(d)


def _has_rejected(d: Dialogue) -> bool:
    """Whether this client has rejected our certificate for this server and name lately (TlsRejected: pass)."""
    return d.tls.rejections is not None and d.tls.rejections.known(d.server, d.tls.port, d.tls.name)


def _learn_rejection(d: Dialogue) -> None:
    """The client does not accept our certificate: with TlsRejected: pass its next attempt passes."""
    if d.tls.rejections is not None:
        d.tls.rejections.learn(d.server, d.tls.port, d.tls.name)
        text = f"its TLS to this server passes from now on, not judged (TlsRejected: pass): sni={name(d)}"
        counts = counter("client", "pass", "learned")
        d.log(f"client={d.client}, server={d.server}: {text}", logging.WARNING, counts)


def _forget(d: Dialogue) -> None:
    """Forget all that was said in clear (RFC 3207 section 4.2); the server forgets it, too. Only counters of errors
    and of our NOOPs stay.
    """
    d.new_transaction()
    d.lines, d.replies = LineBuffer(AUTH_LIMIT), ReplyReader()
    d.outstanding.clear()
    d.queued = ()
    d.sync = False
    d.capabilities = NO_CAPABILITIES
    noops, d.ours, d.removed = d.ours.noops, OwnCommands(), RemovedOffers()
    d.ours.noops = noops  # the server counts them for the connection
    d.helo = b""
    d.ident_refused = d.authenticated = False
    d.login, d.login_exchange = NO_LOGIN, NO_EXCHANGE
    d.xclient_sent = False
    d.client_known = not d.options.xclient
    bypass, d.data = d.data.bypass, DataCommand()
    d.data.bypass = bypass
    d.flow.asked_octets = 0
