"""The client's bytes and the end of its connection. A line is read only when it can be handled; until then it waits.

What a command does is in `verbs`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from proxsmtp_tp.session import encrypting, message, refusing, starttls, verbs, without_tls, xclient
from proxsmtp_tp.session.parts import PendingReply
from proxsmtp_tp.session.state import Expect, Phase
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.smtp.capabilities import REFUSED_VERBS
from proxsmtp_tp.smtp.commands import AUTH_VERBS, is_safe_when_cut, parse_command
from proxsmtp_tp.smtp.lines import COMMAND_LIMIT, LineTooLong
from proxsmtp_tp.smtp.replies import SmtpError

if TYPE_CHECKING:
    from proxsmtp_tp.session import events
    from proxsmtp_tp.session.dialogue import Dialogue
    from proxsmtp_tp.smtp.commands import Command

# Members that every event compares (see `state._Name`).
_AUTH: Final = Phase.AUTH
_COMMAND: Final = Phase.COMMAND
_DATA: Final = Phase.DATA
_SKIPPING: Final = Phase.SKIPPING

LINES_PER_FEED: Final = 50
"""Lines handled in one feed: a few milliseconds at most, then other connections are served."""

LINE_OCTETS_PER_FEED: Final = 16384
"""Octets of lines handled in one feed, for the same reason: a few of the largest lines, each full of parameters."""

TEXT_PER_FEED: Final = 65536
"""Octets of message text handled in one feed, for the same reason: in the worst case they cost 3 ms."""


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
    starttls.client_leaves(d)
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
    start = d.lines.left
    acted = 0
    while not _nothing_waits(d) and _readable(d):
        octets = start - d.lines.left
        enough = TEXT_PER_FEED if d.phase is _DATA else LINE_OCTETS_PER_FEED
        if acted == LINES_PER_FEED or octets >= enough:
            d.flow.lines_left = True
            return
        acted += 1
        if d.phase is _DATA:
            message.text(d, d.lines.take(TEXT_PER_FEED - octets))
        elif d.phase is _SKIPPING:
            verbs.skip_chunk(d)
        elif d.data.waiting is not None:
            command, d.data.waiting = d.data.waiting, None
            verbs.data(d, command)
        elif d.tls.waiting is not None:
            command, d.tls.waiting = d.tls.waiting, None
            _handled(d, command)
        elif not _next_line(d):
            if d.client_gone and not d.outstanding:
                d.end(None)
            return


def _nothing_waits(d: Dialogue) -> bool:
    """Whether there is neither input nor an end to be handled: the usual case after a reply of the server."""
    return (
        not d.lines.left
        and not d.client_gone
        and d.data.waiting is None
        and d.tls.waiting is None
        and d.end_after_replies is None
        and d.end_after_transaction is None
    )


def _readable(d: Dialogue) -> bool:
    """Whether the client's next line or text can be handled now. Ends the connection if it is to end at this point."""
    if d.phase is _DATA or d.phase is _SKIPPING:
        if d.client_gone and not d.lines.left:  # it closed the connection before its DATA or BDAT was handled
            closed_in_text(d)
        return d.lines.left > 0
    if d.phase is not _COMMAND and d.phase is not _AUTH:
        return False
    if d.end_after_replies is not None or (not d.first_transaction_allowed and d.unwanted()):
        if not d.outstanding:
            d.end(d.end_after_replies or d.end_after_transaction)
        return False
    if d.data.waiting is not None or d.tls.waiting is not None:
        return not d.outstanding and not d.queued and not d.tls.asking
    return not d.queued and not d.flow.client_full and d.may_ask()


def _next_line(d: Dialogue) -> bool:
    """Handle one line; False if there is no complete line yet."""
    fault: SmtpError | None = None
    try:
        line = d.lines.next_line()
        if line is None:
            return False
        ended = line.endswith(b"\r\n")
    except LineTooLong as too_long:
        line, ended, fault = b"", too_long.ended, too_long
    d.progress = d.progress or not d.outstanding  # a pipelined command does not extend the deadline of a silent server
    try:
        if fault is not None:
            raise fault
        if d.phase is _AUTH:
            _continuation(d, line)
        else:
            _line(d, line)
    except SmtpError as error:
        _fault(d, error)
    if not ended:
        _stop_reading(d)
    return True


def _handled(d: Dialogue, command: Command) -> None:
    """The command that has waited for DNS, or for TLS with the server."""
    try:
        if not encrypting.encrypts_first(d, command):
            verbs.handle(d, command)
    except SmtpError as error:
        _fault(d, error)


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
    d.tracing.login_tried = d.tracing.login_tried or secret  # a trace may begin later
    if d.tracing.on:
        d.trace("CLIENT <", d.tracing.command(command))
    if command.verb != b"QUIT" and d.unwanted():
        d.end_after_replies = d.end_after_transaction
        return
    if not d.client_known and command.verb not in xclient.BEFORE | REFUSED_VERBS | {b"LHLO"}:
        d.log_once(b"EHLO", f"client={d.client}: {command.verb.decode()} before EHLO or HELO is refused (XClient)")
        raise SmtpError(answers.EHLO_FIRST)
    if d.options.tls is None or not encrypting.encrypts_first(d, command):
        verbs.handle(d, command)


def _fault(d: Dialogue, error: SmtpError) -> None:
    if d.phase is _AUTH:  # the server waits for a line: cancel AUTH, and pass its reply on to the client
        d.phase = _COMMAND
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
    """A line of an AUTH exchange: it must be one line (RFC 4954 section 4). Nothing depends on what it says."""
    d.trace("CLIENT <", b"(%d octets of AUTH)" % len(line))
    if not line.endswith(b"\r\n") or line.count(b"\r") != 1 or b"\0" in line:
        raise SmtpError(answers.LINE_TOO_LONG)
    if len(line) > COMMAND_LIMIT:
        _check_long_auth(d, line, continues=True)
    d.login_exchange.response(line)
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
