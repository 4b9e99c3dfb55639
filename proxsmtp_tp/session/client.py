"""What the client's commands mean. A line is read only when it may be acted on: what comes too early waits."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from proxsmtp_tp.session import effects, message, refusing, size, without_tls, xclient
from proxsmtp_tp.session.dialogue import TRACED, PendingReply, shown
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

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxsmtp_tp.session import events
    from proxsmtp_tp.session.dialogue import Dialogue
    from proxsmtp_tp.smtp.commands import EnvelopeCommand

    _Reader = Callable[[Command], EnvelopeCommand]

LINES_PER_FEED = 50
"""Lines acted on in one feed: a few milliseconds at most, after which other connections have their turn."""

LINE_OCTETS_PER_FEED = 16384
"""Octets of lines acted on in one feed, for the same reason: a few of the largest lines, each full of parameters."""

TEXT_PER_FEED = 65536
"""Octets of text acted on in one feed, for the same reason: the worst text there is costs 3 ms."""

RECIPIENTS_LIMIT = 100_000
"""Octets of recipients in one transaction: RECIPIENTS is one string of the filter's environment, which Linux limits
to 128 KiB (execve(2), MAX_ARG_STRLEN). RFC 5321 asks for 100 recipients (4.5.3.1.8), and for 452 past a limit."""

RECIPIENTS_KEPT = 1 << 20
"""Octets of RCPT lines in one transaction, parameters included: what is remembered until it ends. 1700 recipients with
all that RFC 3461 lets a sender say of each."""

RECIPIENT_OVERHEAD = 64
"""Octets that one recipient costs in addition to its line: two objects and their places in two lists."""

BDAT_LIMIT = 1 << 40
"""Octets of a chunk that we are ready to count: no message is larger, and Python's integers have no end."""


def client_data(d: Dialogue, event: events.ClientData) -> None:
    """ClientData in every phase where lines are read, or wait."""
    d.lines.feed(event.data)


def client_full(d: Dialogue, event: events.ClientFull) -> None:
    """ClientFull: who does not read gets nothing more to read."""
    d.flow.client_full = event.full


def closed(d: Dialogue, event: events.ClientClosed) -> None:
    """ClientClosed in a phase of commands: what was asked before is still answered, if somebody may still listen."""
    d.client_gone = True
    without_tls.client_leaves(d)
    if not event.half:
        d.end(None)


def closed_in_text(d: Dialogue, _event: events.ClientClosed | None = None) -> None:
    """ClientClosed in the middle of a message or chunk: it never was one."""
    d.log(f"client={d.client}: the client went away in the middle of a message", logging.WARNING)
    d.end(None)


def closed_settling(d: Dialogue, event: events.ClientClosed) -> None:
    """ClientClosed while a complete message waits for its final reply.

    A client that only closed its sending half hears what became of its message. After the final dot the server decides,
    even if nobody hears it. Before it, a client whose connection is gone, and who did not get its 2xx, will send the
    message again: so it is given up.
    """
    d.client_gone = True
    if event.half:
        return
    if d.message is not None and d.message.sent:
        d.lines.take()  # it will never know what became of what it said next
        return
    d.log(f"client={d.client}: the client went away before its message was judged", logging.WARNING)
    d.end(None)


def pump(d: Dialogue) -> None:
    """Act on the client's octets as far as they may be acted on now, and as one feed may. Called after every event."""
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
        elif d.waiting_data is not None:
            command, d.waiting_data = d.waiting_data, None
            _data(d, command)
        elif not _next_line(d):
            if d.client_gone and not d.outstanding:
                d.end(None)
            return


def _readable(d: Dialogue) -> bool:
    """Whether the client's next line, or text, may be acted on now. Ends the connection where its time has come."""
    if d.phase is Phase.DATA or d.phase is Phase.SKIPPING:
        if d.client_gone and not len(d.lines):  # it was gone before its DATA or BDAT was acted on
            closed_in_text(d)
        return len(d.lines) > 0
    if d.phase is not Phase.COMMAND and d.phase is not Phase.AUTH:
        return False
    if d.end_after_replies is not None or (not d.first_transaction_allowed and d.unwanted()):
        if not d.outstanding:
            d.end(d.end_after_replies or d.end_after_transaction)
        return False
    if d.waiting_data is not None:
        return not d.outstanding and not d.queued
    return not d.queued and not d.flow.client_full and d.may_ask()


def _next_line(d: Dialogue) -> bool:
    """Act on one line; False when there is none yet."""
    fault: SmtpError | None = None
    try:
        line = d.lines.next_line()
        if line is None:
            return False
        ended = line.endswith(b"\r\n")
    except LineTooLong as error:
        line, ended, fault = b"", error.ended, error
    d.progress = d.progress or not d.outstanding  # a pipelined command buys a silent server no time
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
    command = parse_command(line)
    secret = command.verb in AUTH_VERBS
    if len(line) > COMMAND_LIMIT:
        if not secret:
            raise SmtpError(answers.LINE_TOO_LONG)
        _check_long_auth(d, line, continues=False)
    d.trace("CLIENT <", command.verb + b" ..." if secret else line)
    if command.verb != b"QUIT" and d.unwanted():
        d.end_after_replies = d.end_after_transaction
        return
    if not d.client_known and command.verb not in xclient.BEFORE | REFUSED_VERBS | {b"LHLO"}:
        d.log_once(b"EHLO", f"client={d.client}: {command.verb.decode()} before EHLO or HELO is refused (XClient)")
        raise SmtpError(answers.EHLO_FIRST)
    _HANDLERS.get(command.verb, _other)(d, command)


def _fault(d: Dialogue, error: SmtpError) -> None:
    if d.phase is Phase.AUTH:  # the server waits for a line: cancel, and let its answer be the client's
        d.phase = Phase.COMMAND
        d.ask(PendingReply(Expect.AUTH, b"*\r\n"))
        refusing.count_error(d)
    else:
        refusing.refuse(d, error.reply)


def _stop_reading(d: Dialogue) -> None:
    """Behind a bare LF, which ends no line (RFC 5321 section 2.3.8).

    What follows is the rest of a refused line for one client, and the next command for another, which waits for its
    reply: run it, and it is smuggled; answer it, and replies are out of step; be silent, and the other one hangs.
    """
    d.log(f"client={d.client}: bare LF in a command line: closing", logging.WARNING)
    d.end_after_replies = answers.CLOSING_BARE_LF


def _continuation(d: Dialogue, line: bytes) -> None:
    """A line of an AUTH exchange: opaque, but one line (RFC 4954 section 4)."""
    if not line.endswith(b"\r\n") or line.count(b"\r") != 1 or b"\0" in line:
        raise SmtpError(answers.LINE_TOO_LONG)
    if len(line) > COMMAND_LIMIT:
        _check_long_auth(d, line, continues=True)
    d.ask(PendingReply(Expect.AUTH, line))


def _check_long_auth(d: Dialogue, line: bytes, *, continues: bool) -> None:
    """A server that cuts long lines would take the rest for a command, of which nobody is told: SmtpError for such.

    In a transaction (where RFC 4954 section 4 forbids AUTH) even base64 can be one: DATA.
    """
    if is_safe_when_cut(line, continues=continues) and d.envelope.sender is None and not d.outstanding:
        return
    text = "a long line of AUTH is refused: a server could take it for two commands"
    d.log_once(b"long AUTH", f"client={d.client}: {text}")
    raise SmtpError(answers.LONG_AUTH_SYNTAX)


# One function for each verb that means something to us.


def _ehlo(d: Dialogue, command: Command) -> None:
    expect = Expect.EHLO if command.verb == b"EHLO" else Expect.HELO
    d.ask(PendingReply(expect, command.line, command.argument))


def _mail(d: Dialogue, command: Command) -> None:
    d.said_mail = True
    if refusing.rejected(d, b"MAIL"):
        d.log(f"client={d.client}, from={shown(command.argument)}, status=REJECTED, server={d.server}")
        return
    said = _envelope_command(d, command, read_mail, guess_mail)
    d.ask(PendingReply(Expect.MAIL, said.line, said.address, said.parameters))


def _envelope_command(d: Dialogue, command: Command, read: _Reader, guess: _Reader) -> EnvelopeCommand:
    """MAIL or RCPT: with one reading where somebody is told of it, as it is where nobody is."""
    try:
        said = read(command) if message.tells_envelope(d) else guess(command)
    except SmtpError:
        line = shown(command.line[:TRACED])
        d.log_once(
            b"odd " + command.verb, f"client={d.client}: refused, since servers read it in more than one way: {line}"
        )
        raise
    if said.line is not command.line:
        d.trace("SERVER >", said.line)
    if said.parameters:
        _check_parameters(d, command.verb, said.parameters)
    return said


def _check_parameters(d: Dialogue, verb: bytes, parameters: bytes) -> None:
    """SmtpError for a promise that cannot be kept here: to require TLS, or of an extension that is not offered."""
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
        d.log_once(b"RCPT", f"client={d.client}: more recipients than can be remembered, or a filter told of")
        d.tell(answers.TOO_MANY_RECIPIENTS)
        d.refusals.recipients += 1
        if d.refusals.recipients > refusing.OVERSHOOT:
            refusing.count_error(d)
        return
    d.recipient_octets = told
    d.recipient_lines = kept
    d.ask(PendingReply(Expect.RCPT, said.line, said.address, said.parameters))


def _data(d: Dialogue, command: Command) -> None:
    if refusing.rejected(d, b"DATA"):
        return
    if not message.must_filter(d):
        d.ask(PendingReply(Expect.DATA, command.line))
    elif d.outstanding or d.queued:
        d.waiting_data = command
    elif command.argument:
        refusing.refuse(d, answers.NO_ARGUMENT)
    elif d.envelope.sender is None or not d.envelope.recipients:
        d.ask(PendingReply(Expect.DATA, command.line))
    else:
        message.begin_filtered(d)


def _rset(d: Dialogue, command: Command) -> None:
    if (
        d.ours.covers_rset
    ):  # servers count what is no mail (Exim: smtp_accept_max_nonmail), and without us it were one RSET
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
    """LMTP gives one message a reply for each recipient (RFC 2033 section 4.2); passed on, the second would be 421."""
    d.log_once(b"LHLO", f"client={d.client}: LHLO is refused: LMTP is not carried, only SMTP", logging.WARNING)
    raise SmtpError(answers.LMTP_REFUSED)


_NOT_OFFERED = dict.fromkeys(TLS_KEYWORDS, answers.NO_TLS) | dict.fromkeys(MESSAGE_VERBS, answers.USE_DATA)


def _not_offered(d: Dialogue, command: Command) -> None:
    d.log_once(command.verb, f"client={d.client}: {command.verb.decode()} is not offered through this proxy")
    refusing.refuse(d, _NOT_OFFERED.get(command.verb, answers.NOT_OFFERED))


def _xclient(d: Dialogue, command: Command) -> None:
    d.log_once(command.verb, f"client={d.client}: XCLIENT from a client is refused", logging.WARNING)
    refusing.refuse(d, answers.XCLIENT_REFUSED)


def _bdat(d: Dialogue, command: Command) -> None:
    """BDAT is not offered, but its chunk follows unasked (RFC 3030 section 2): it must not be read as commands."""
    size = command.argument.split()[:1]
    if not size or not size[0].isdigit() or len(size[0]) > 13 or int(size[0]) > BDAT_LIMIT:
        d.log(f"client={d.client}: BDAT with a size that is none: {command.argument[:40]!r}", logging.WARNING)
        refusing.refuse(d, answers.BAD_CHUNK_SIZE)
        d.end_after_replies = answers.CLOSING_OUT_OF_STEP
        return
    _not_offered(d, command)
    if d.end_after_replies is not None:
        return  # nothing is read any more
    d.flow.skip = int(size[0])
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
