"""The client's commands. A line is read only when it can be handled; what arrives earlier waits."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from proxsmtp_tp.session import effects, limiting, message, refusing, size, without_tls, xclient
from proxsmtp_tp.session.dialogue import TRACED
from proxsmtp_tp.session.parts import PendingReply
from proxsmtp_tp.session.state import Expect, Phase
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.smtp.capabilities import MESSAGE_VERBS, REFUSED_VERBS, TLS_KEYWORDS, refused_parameter
from proxsmtp_tp.smtp.commands import (
    AUTH_VERBS,
    Command,
    guess_mail,
    guess_rcpt,
    is_safe_when_cut,
    parse_command,
    read_mail,
    read_rcpt,
)
from proxsmtp_tp.smtp.lines import COMMAND_LIMIT, LineTooLong
from proxsmtp_tp.smtp.replies import SmtpError
from proxsmtp_tp.telemetry.quoting import shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxsmtp_tp.session import events
    from proxsmtp_tp.session.dialogue import Dialogue
    from proxsmtp_tp.smtp.commands import EnvelopeCommand

    _Reader = Callable[[Command], EnvelopeCommand]

LINES_PER_FEED = 50
"""Lines handled in one feed: a few milliseconds at most, then other connections are served."""

LINE_OCTETS_PER_FEED = 16384
"""Octets of lines handled in one feed, for the same reason: a few of the largest lines, each full of parameters."""

TEXT_PER_FEED = 65536
"""Octets of message text handled in one feed, for the same reason: in the worst case they cost 3 ms."""

RECIPIENTS_LIMIT = 100_000
"""Octets of recipients in one transaction: RECIPIENTS is one string in the environment of the filter, and Linux limits
such a string to 128 KiB (execve(2), MAX_ARG_STRLEN). RFC 5321 requires 100 recipients (4.5.3.1.8), and 452 above a
limit."""

RECIPIENTS_KEPT = 1 << 20
"""Octets of RCPT lines, with their parameters, that are kept in memory until the transaction ends: 1700 recipients with
all parameters of RFC 3461."""

RECIPIENT_OVERHEAD = 64
"""Octets that one recipient costs in addition to its line: two objects and their places in two lists."""

BDAT_LIMIT = 1 << 40
"""The largest chunk size that is accepted, in octets: no message is larger, and Python's integers have no limit."""


def client_data(d: Dialogue, event: events.ClientData) -> None:
    """ClientData, in every phase in which lines are read or wait."""
    d.lines.feed(event.data)


def client_full(d: Dialogue, event: events.ClientFull) -> None:
    """ClientFull: while the client does not read, its commands are not handled, so it gets no more replies."""
    d.flow.client_full = event.full


def closed(d: Dialogue, event: events.ClientClosed) -> None:
    """ClientClosed while commands are read. If the client may still read (a half close), pending replies are sent."""
    d.client_gone = True
    without_tls.client_leaves(d)
    if not event.half:
        d.end(None)


def closed_in_text(d: Dialogue, _event: events.ClientClosed | None = None) -> None:
    """ClientClosed in the middle of a message or chunk: the message is discarded."""
    d.log(f"client={d.client}: the client closed the connection in the middle of a message", logging.WARNING)
    d.end(None)


def closed_settling(d: Dialogue, event: events.ClientClosed) -> None:
    """ClientClosed while a complete message waits for its final reply.

    A client that closed only its sending half still gets the reply. If the connection is gone: once the final dot was
    sent to the server, the server decides about the message. Before that the message is discarded, because the client
    got no 2xx and will send it again.
    """
    d.client_gone = True
    if event.half:
        return
    if d.message is not None and d.message.sent:
        d.lines.take()  # the client cannot get replies to the commands that follow
        return
    d.log(f"client={d.client}: the client closed the connection before its message was judged", logging.WARNING)
    d.end(None)


def pump(d: Dialogue) -> None:
    """Handle the client's octets, as many as can be handled now and in one feed. Called after every event."""
    d.flow.lines_left = False
    start = len(d.lines)
    acted = 0
    while _readable(d):
        octets = start - len(d.lines)
        enough = TEXT_PER_FEED if d.phase is Phase.DATA else LINE_OCTETS_PER_FEED
        if acted == LINES_PER_FEED or octets >= enough:
            d.flow.lines_left = True
            return
        acted += 1
        if d.phase is Phase.DATA:
            message.text(d, d.lines.take(TEXT_PER_FEED - octets))
        elif d.phase is Phase.SKIPPING:
            _skip(d)
        elif d.data.waiting is not None:
            command, d.data.waiting = d.data.waiting, None
            _data(d, command)
        elif not _next_line(d):
            if d.client_gone and not d.outstanding:
                d.end(None)
            return


def _readable(d: Dialogue) -> bool:
    """Whether the client's next line or text can be handled now. Ends the connection if it is to end at this point."""
    if d.phase is Phase.DATA or d.phase is Phase.SKIPPING:
        if d.client_gone and not len(d.lines):  # it closed the connection before its DATA or BDAT was handled
            closed_in_text(d)
        return len(d.lines) > 0
    if d.phase is not Phase.COMMAND and d.phase is not Phase.AUTH:
        return False
    if d.end_after_replies is not None or (not d.first_transaction_allowed and d.unwanted()):
        if not d.outstanding:
            d.end(d.end_after_replies or d.end_after_transaction)
        return False
    if d.data.waiting is not None:
        return not d.outstanding and not d.queued
    return not d.queued and not d.flow.client_full and d.may_ask()


def _next_line(d: Dialogue) -> bool:
    """Handle one line; False if there is no complete line yet."""
    fault: SmtpError | None = None
    try:
        line = d.lines.next_line()
        if line is None:
            return False
        ended = line.endswith(b"\r\n")
    except LineTooLong as error:
        line, ended, fault = b"", error.ended, error
    d.progress = d.progress or not d.outstanding  # a pipelined command does not extend the deadline of a silent server
    try:
        if fault is not None:
            raise fault
        if d.phase is Phase.AUTH:
            _continuation(d, line)
        else:
            _line(d, line)
    except SmtpError as error:
        _fault(d, error)
    if not ended:
        _stop_reading(d)
    return True


def _line(d: Dialogue, line: bytes) -> None:
    try:
        command = parse_command(line)
    except SmtpError:
        d.trace("CLIENT <", b"(%d octets that are no command)" % len(line))
        raise
    secret = command.verb in AUTH_VERBS
    if len(line) > COMMAND_LIMIT:
        if not secret:
            raise SmtpError(answers.LINE_TOO_LONG)
        _check_long_auth(d, line, continues=False)
    d.record.command(command.verb)
    d.tracing.login_tried = d.tracing.login_tried or secret  # also while nothing is traced: it may be later
    if d.tracing.on:
        d.trace("CLIENT <", d.tracing.command(command))
    if command.verb != b"QUIT" and d.unwanted():
        d.end_after_replies = d.end_after_transaction
        return
    if not d.client_known and command.verb not in xclient.BEFORE | REFUSED_VERBS | {b"LHLO"}:
        d.log_once(b"EHLO", f"client={d.client}: {command.verb.decode()} before EHLO or HELO is refused (XClient)")
        raise SmtpError(answers.EHLO_FIRST)
    _HANDLERS.get(command.verb, _other)(d, command)


def _fault(d: Dialogue, error: SmtpError) -> None:
    if d.phase is Phase.AUTH:  # the server waits for a line: cancel AUTH, and pass its reply on to the client
        d.phase = Phase.COMMAND
        d.ask(PendingReply(Expect.AUTH, b"*\r\n"))
        refusing.count_error(d)
    else:
        refusing.refuse(d, error.reply)


def _stop_reading(d: Dialogue) -> None:
    """Read no more commands after a bare LF, which ends no line (RFC 5321 section 2.3.8).

    The octets after it are ambiguous: the rest of the refused line, or the client's next command. To execute them would
    let commands be smuggled; to answer them could put replies out of step; not to answer could make the client hang.
    """
    d.log(f"client={d.client}: bare LF in a command line: closing", logging.WARNING)
    d.end_after_replies = answers.CLOSING_BARE_LF


def _continuation(d: Dialogue, line: bytes) -> None:
    """A line of an AUTH exchange: it is not interpreted, but must be one line (RFC 4954 section 4)."""
    d.trace("CLIENT <", b"(%d octets of AUTH)" % len(line))
    if not line.endswith(b"\r\n") or line.count(b"\r") != 1 or b"\0" in line:
        raise SmtpError(answers.LINE_TOO_LONG)
    if len(line) > COMMAND_LIMIT:
        _check_long_auth(d, line, continues=True)
    d.ask(PendingReply(Expect.AUTH, line))


def _check_long_auth(d: Dialogue, line: bytes, *, continues: bool) -> None:
    """Raise SmtpError if a server that cuts long lines could read the rest of this line as a command.

    In a transaction (where RFC 4954 section 4 forbids AUTH) even base64 text can be a command: DATA.
    """
    if is_safe_when_cut(line, continues=continues) and d.envelope.sender is None and not d.outstanding:
        return
    text = "a long line of AUTH is refused: a server could take it for two commands"
    d.log_once(b"long AUTH", f"client={d.client}: {text}")
    raise SmtpError(answers.LONG_AUTH_SYNTAX)


# One function for each verb that the proxy handles itself.


def _ehlo(d: Dialogue, command: Command) -> None:
    expect = Expect.EHLO if command.verb == b"EHLO" else Expect.HELO
    d.ask(PendingReply(expect, command.line, command.argument))


def _mail(d: Dialogue, command: Command) -> None:
    d.said_mail = True
    if refusing.rejected(d, b"MAIL"):
        d.record.begin()
        d.unseen_effects.append(d.record.rejected(d, guess_mail(command).address, d.options.reject))
        return
    said = _envelope_command(d, command, read_mail, guess_mail)
    if (limited := limiting.at_mail(d)) is not None:
        refusing.refuse_limited(d, limited)
        return
    d.ask(PendingReply(Expect.MAIL, said.line, said.address, said.parameters))


def _envelope_command(d: Dialogue, command: Command, read: _Reader, guess: _Reader) -> EnvelopeCommand:
    """Read MAIL or RCPT. The address must have one reading if the proxy uses it; otherwise the line passes
    unchanged.
    """
    try:
        said = read(command) if message.tells_envelope(d) else guess(command)
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
    if any(word.partition(b"=")[0] == b"REQUIRETLS" for word in parameters.upper().split()):
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
    said = _envelope_command(d, command, read_rcpt, guess_rcpt)
    told = d.recipient_octets + len(said.address) + 1
    kept = d.recipient_lines + len(said.line) + RECIPIENT_OVERHEAD
    if kept > RECIPIENTS_KEPT or (message.must_filter(d) and told > RECIPIENTS_LIMIT):
        d.log_once(b"RCPT", f"client={d.client}: RCPT is refused: too many recipients in one transaction")
        d.record.recipient_refused(said.address, answers.TOO_MANY_RECIPIENTS.code)
        refusing.refuse_recipient(d, answers.TOO_MANY_RECIPIENTS)
        return
    if (limited := limiting.at_rcpt(d)) is not None:
        d.record.recipient_refused(said.address, limited.code)
        refusing.refuse_recipient(d, limited)
        return
    d.recipient_octets = told
    d.recipient_lines = kept
    d.ask(PendingReply(Expect.RCPT, said.line, said.address, said.parameters))


def _data(d: Dialogue, command: Command) -> None:
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
    if (
        d.ours.covers_rset
    ):  # servers count commands that are no mail (Exim: smtp_accept_max_nonmail); without the proxy there is one RSET
        d.ours.covers_rset = False
        d.tell(answers.RESET)
        return
    d.ask(PendingReply(Expect.RSET, command.line))


def _quit(d: Dialogue, command: Command) -> None:
    if d.server_gone:
        d.end(answers.BYE)
        return
    without_tls.client_leaves(d)
    d.ask(PendingReply(Expect.QUIT, command.line))


def _auth(d: Dialogue, command: Command) -> None:
    if without_tls.shows_password_here(d, command):
        raise SmtpError(answers.AUTH_NEEDS_TLS)
    d.ask(PendingReply(Expect.AUTH, command.line))


def _xforward(d: Dialogue, command: Command) -> None:
    if not xclient.may_forward(d):
        d.log_once(command.verb, f"client={d.client}: XFORWARD is refused: not one of XForwardClients", logging.WARNING)
        raise SmtpError(answers.XFORWARD_REFUSED)
    d.ask(PendingReply(Expect.XFORWARD, command.line))


def _other(d: Dialogue, command: Command) -> None:
    d.ask(PendingReply(Expect.OTHER, command.line))


def _lhlo(d: Dialogue, _command: Command) -> None:
    """LMTP has one reply for each recipient of a message (RFC 2033 section 4.2). If LHLO passed, the second reply would
    be taken as unexpected, and the session would end with 421.
    """
    d.log_once(b"LHLO", f"client={d.client}: LHLO is refused: only SMTP is supported, not LMTP", logging.WARNING)
    raise SmtpError(answers.LMTP_REFUSED)


_NOT_OFFERED = dict.fromkeys(TLS_KEYWORDS, answers.NO_TLS) | dict.fromkeys(MESSAGE_VERBS, answers.USE_DATA)


def _not_offered(d: Dialogue, command: Command) -> None:
    d.log_once(command.verb, f"client={d.client}: {command.verb.decode()} is not offered through this proxy")
    refusing.refuse(d, _NOT_OFFERED.get(command.verb, answers.NOT_OFFERED))


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
        return  # nothing more is read
    d.flow.skip = int(size[0])
    d.trace("CLIENT <", b"(a chunk of %d octets that is skipped)" % d.flow.skip)
    d.phase = Phase.SKIPPING
    d.unseen_effects.append(effects.MessageClock(running=True))
    _skip(d)


def _skip(d: Dialogue) -> None:
    skipped = d.lines.skip(d.flow.skip)
    d.flow.skip -= skipped
    d.progress = d.progress or skipped > 0
    if not d.flow.skip:
        d.phase = Phase.COMMAND
        d.unseen_effects.append(effects.MessageClock(running=False))


_HANDLERS: dict[bytes, Callable[[Dialogue, Command], None]] = {
    b"EHLO": _ehlo,
    b"HELO": _ehlo,
    b"LHLO": _lhlo,
    b"MAIL": _mail,
    b"SEND": _mail,
    b"SOML": _mail,
    b"SAML": _mail,
    b"RCPT": _rcpt,
    b"DATA": _data,
    b"RSET": _rset,
    b"QUIT": _quit,
    **dict.fromkeys(AUTH_VERBS, _auth),
    b"XFORWARD": _xforward,
    **dict.fromkeys(REFUSED_VERBS, _not_offered),
    b"BDAT": _bdat,
    b"XCLIENT": _xclient,
}
