"""What each command of the client does: one function for each verb that the proxy handles itself."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from proxsmtp_tp.session import effects, limiting, message, refusing, size, starttls, without_tls, xclient
from proxsmtp_tp.session.dialogue import TRACED
from proxsmtp_tp.session.parts import PendingReply
from proxsmtp_tp.session.state import Expect, Phase
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.smtp.capabilities import MESSAGE_VERBS, REFUSED_VERBS, TLS_KEYWORDS, refused_parameter
from proxsmtp_tp.smtp.commands import AUTH_VERBS, Command, guess_mail, guess_rcpt, read_mail, read_rcpt
from proxsmtp_tp.smtp.login import LoginExchange
from proxsmtp_tp.smtp.replies import SmtpError
from proxsmtp_tp.telemetry.quoting import shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxsmtp_tp.session.dialogue import Dialogue
    from proxsmtp_tp.smtp.commands import EnvelopeCommand

RECIPIENTS_LIMIT: Final = 100_000
"""Octets of recipients in one transaction: RECIPIENTS is one string in the environment of the filter, and Linux limits
such a string to 128 KiB (execve(2), MAX_ARG_STRLEN). RFC 5321 requires 100 recipients (4.5.3.1.8), and 452 above a
limit."""

RECIPIENTS_KEPT: Final = 1 << 20
"""Octets of RCPT lines, with their parameters, that are kept in memory until the transaction ends: 1700 recipients with
all parameters of RFC 3461."""

RECIPIENT_OVERHEAD: Final = 64
"""Octets that one recipient costs in addition to its line: two objects and their places in two lists."""

BDAT_LIMIT: Final = 1 << 40
"""The largest chunk size that is accepted, in octets: no message is larger, and Python's integers have no limit."""


def handle(d: Dialogue, command: Command) -> None:
    """Handle one command. SmtpError: it is refused with this reply."""
    verb = command.verb
    if verb == b"MAIL":  # a table is slower than a comparison: it has what no message needs
        _mail(d, command)
    elif verb == b"RCPT":
        _rcpt(d, command)
    elif verb == b"DATA":
        data(d, command)
    else:
        _HANDLERS.get(verb, _other)(d, command)


def _ehlo(d: Dialogue, command: Command) -> None:
    d.tls.unused = False
    expect = Expect.EHLO if command.verb == b"EHLO" else Expect.HELO
    d.ask(PendingReply(expect, command.line, command.argument))


def _mail(d: Dialogue, command: Command) -> None:
    d.said_mail = True
    if refusing.rejected(d, b"MAIL"):
        d.record.begin()
        d.unseen_effects.append(d.record.rejected(d, guess_mail(command).address, d.options.reject))
        return
    said = _envelope_command(d, command, is_mail=True)
    if (limited := limiting.at_mail(d, said.address)) is not None:
        refusing.refuse_limited(d, limited)
        return
    if (ident := xclient.ident(d)) is not None:
        d.ask(PendingReply(Expect.OUR_XFORWARD, ident))
    d.ask(PendingReply(Expect.MAIL, said.line, said.address, said.parameters))


def _envelope_command(d: Dialogue, command: Command, *, is_mail: bool) -> EnvelopeCommand:
    """Read MAIL or RCPT. If the proxy uses the address, all servers must read it in the same way; if not, the line
    passes unchanged.
    """
    try:
        if message.tells_envelope(d):
            said = read_mail(command) if is_mail else read_rcpt(command)
        else:
            said = guess_mail(command) if is_mail else guess_rcpt(command)
    except SmtpError:
        line = "(hidden)" if d.options.hide_addresses else shown(command.line[:TRACED])
        d.log_once(
            b"odd " + command.verb, f"client={d.client}: refused, because servers read it in more than one way: {line}"
        )
        raise
    if said.parameters:
        _check_parameters(d, command.verb, said.parameters)
    return said


def _check_parameters(d: Dialogue, verb: bytes, parameters: bytes) -> None:
    """Raise SmtpError for a parameter that cannot be honoured: REQUIRETLS, or one of an extension that is not
    offered.
    """
    if not starttls.verified(d) and any(
        word.partition(b"=")[0] == b"REQUIRETLS" for word in parameters.upper().split()
    ):
        d.log_once(b"REQUIRETLS", f"client={d.client}: MAIL with REQUIRETLS is refused: there is no TLS to the server")
        raise SmtpError(answers.NO_REQUIRETLS)
    refused = refused_parameter(parameters)
    if refused is not None:
        d.log_once(
            refused, f"client={d.client}: {verb.decode()} with {refused.decode()} is not offered through this proxy"
        )
        raise SmtpError(answers.PARAMETER_NOT_OFFERED)
    if verb == b"MAIL":
        size.check_declared(d, parameters, size.limit(d, filtered=message.must_filter(d)))


def _rcpt(d: Dialogue, command: Command) -> None:
    if refusing.rejected(d, b"RCPT"):
        return
    said = _envelope_command(d, command, is_mail=False)
    told = d.recipient_octets + len(said.address) + 1
    kept = d.recipient_lines + len(said.line) + RECIPIENT_OVERHEAD
    if kept > RECIPIENTS_KEPT or (message.must_filter(d) and told > RECIPIENTS_LIMIT):
        d.log_once(b"RCPT", f"client={d.client}: RCPT is refused: too many recipients in one transaction")
        d.record.recipient_refused(said.address, answers.TOO_MANY_RECIPIENTS.code)
        refusing.refuse_recipient(d, answers.TOO_MANY_RECIPIENTS)
        return
    if (limited := limiting.at_rcpt(d, said.address)) is not None:
        d.record.recipient_refused(said.address, limited.code)
        refusing.refuse_recipient(d, limited)
        return
    d.recipient_octets = told
    d.recipient_lines = kept
    d.ask(PendingReply(Expect.RCPT, said.line, said.address, said.parameters))


def data(d: Dialogue, command: Command) -> None:
    """DATA, also one that has waited for the replies to the commands before it (`Dialogue.data.waiting`)."""
    if refusing.rejected(d, b"DATA"):
        return
    d.data.bypassed = message.must_filter(d) and d.data.bypass()
    if d.data.bypassed or not message.must_filter(d):
        d.ask(PendingReply(Expect.DATA, command.line))
    elif d.outstanding or d.queued:
        d.data.waiting = command
    elif command.argument:
        refusing.refuse(d, answers.NO_ARGUMENT)
    elif d.envelope.sender is None or not d.envelope.recipients:
        d.ask(PendingReply(Expect.DATA, command.line))
    else:
        message.begin_filtered(d)


def _rset(d: Dialogue, command: Command) -> None:
    if d.ours.covers_rset:
        # Servers count commands that carry no mail (Exim: smtp_accept_max_nonmail), so they get only one of two RSETs.
        d.ours.covers_rset = False
        d.tell(answers.RESET)
        return
    d.ask(PendingReply(Expect.RSET, command.line))


def _quit(d: Dialogue, command: Command) -> None:
    if d.server_gone:
        d.end(answers.BYE)
        return
    without_tls.client_leaves(d)
    starttls.client_leaves(d)
    d.ask(PendingReply(Expect.QUIT, command.line))


def _auth(d: Dialogue, command: Command) -> None:
    if without_tls.shows_password_here(d, command):
        raise SmtpError(answers.AUTH_NEEDS_TLS)
    d.login_exchange = LoginExchange(command.argument)
    d.ask(PendingReply(Expect.AUTH, command.line))


def _xforward(d: Dialogue, command: Command) -> None:
    if not xclient.may_forward(d):
        d.log_once(command.verb, f"client={d.client}: XFORWARD is refused: not one of XForwardClients", logging.WARNING)
        raise SmtpError(answers.XFORWARD_REFUSED)
    d.client_ident = d.client_ident or b" IDENT=" in command.line.upper()
    d.ask(PendingReply(Expect.XFORWARD, command.line))


def _other(d: Dialogue, command: Command) -> None:
    d.ask(PendingReply(Expect.OTHER, command.line))


def _lhlo(d: Dialogue, _command: Command) -> None:
    """LMTP has one reply for each recipient of a message (RFC 2033 section 4.2). If LHLO passed, the second reply would
    be taken as unexpected, and the session would end with 421.
    """
    d.log_once(b"LHLO", f"client={d.client}: LHLO is refused: only SMTP is supported, not LMTP", logging.WARNING)
    raise SmtpError(answers.LMTP_REFUSED)


_NOT_OFFERED: Final = dict.fromkeys(TLS_KEYWORDS, answers.NO_TLS) | dict.fromkeys(MESSAGE_VERBS, answers.USE_DATA)


def _not_offered(d: Dialogue, command: Command) -> None:
    d.log_once(command.verb, f"client={d.client}: {command.verb.decode()} is not offered through this proxy")
    refusing.refuse(d, _NOT_OFFERED.get(command.verb, answers.NOT_OFFERED))


def _starttls(d: Dialogue, command: Command) -> None:
    if starttls.in_policy(d):
        starttls.command(d, command)
    else:
        _not_offered(d, command)


def _xclient(d: Dialogue, command: Command) -> None:
    d.log_once(command.verb, f"client={d.client}: XCLIENT from a client is refused", logging.WARNING)
    refusing.refuse(d, answers.XCLIENT_REFUSED)


def _bdat(d: Dialogue, command: Command) -> None:
    """BDAT is refused, but its chunk follows without waiting (RFC 3030 section 2): it must not be read as commands."""
    size = command.argument.split()[:1]
    if not size or not size[0].isdigit() or len(size[0]) > 13 or int(size[0]) > BDAT_LIMIT:
        d.log(f"client={d.client}: BDAT with an invalid size: {shown(command.argument[:40])}", logging.WARNING)
        refusing.refuse(d, answers.BAD_CHUNK_SIZE)
        d.end_after_replies = answers.CLOSING_OUT_OF_STEP
        return
    _not_offered(d, command)
    if d.end_after_replies is not None:
        return  # too many errors: the connection ends, and nothing more is read
    d.flow.skip = int(size[0])
    d.trace("CLIENT <", b"(a chunk of %d octets that is skipped)" % d.flow.skip)
    d.phase = Phase.SKIPPING
    d.unseen_effects.append(effects.CLOCK_STARTS)
    skip_chunk(d)


def skip_chunk(d: Dialogue) -> None:
    """Drop octets of a BDAT chunk; after the last one, commands follow."""
    skipped = d.lines.skip(d.flow.skip)
    d.flow.skip -= skipped
    d.progress = d.progress or skipped > 0
    if not d.flow.skip:
        d.phase = Phase.COMMAND
        d.unseen_effects.append(effects.CLOCK_STOPS)


_HANDLERS: Final[dict[bytes, Callable[[Dialogue, Command], None]]] = {
    b"EHLO": _ehlo,
    b"HELO": _ehlo,
    b"LHLO": _lhlo,
    b"SEND": _mail,
    b"SOML": _mail,
    b"SAML": _mail,
    b"RSET": _rset,
    b"QUIT": _quit,
    **dict.fromkeys(AUTH_VERBS, _auth),
    b"XFORWARD": _xforward,
    **dict.fromkeys(REFUSED_VERBS, _not_offered),
    b"STARTTLS": _starttls,
    b"BDAT": _bdat,
    b"XCLIENT": _xclient,
}
