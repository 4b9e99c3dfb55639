"""The server's replies. Each is matched to the command that it answers (state.EXPECTED)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from proxsmtp_tp.session import ehlo, encrypting, limiting, measuring, message, starttls, without_tls, wrapped, xclient
from proxsmtp_tp.session.parts import PendingReply
from proxsmtp_tp.session.state import EXPECTED, Expect, Phase, Sink, last_line_decides
from proxsmtp_tp.session.timing import NOOPS_LIMIT
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.smtp.replies import Reply, ReplyError
from proxsmtp_tp.telemetry.facts import Refusal
from proxsmtp_tp.telemetry.metrics import SERVER_REPLIES
from proxsmtp_tp.telemetry.quoting import printable, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxsmtp_tp.session import events
    from proxsmtp_tp.session.dialogue import Dialogue


# Members that every reply compares (see `state._Name`).
_DATA: Final = Expect.DATA
_ENDED: Final = Phase.ENDED
_SERVER_REPLIES: Final = SERVER_REPLIES  # a name of another module is looked up, unless it is Final there
_MAIL: Final = Expect.MAIL
_MESSAGE: Final = Expect.MESSAGE
_OUR_DATA: Final = Expect.OUR_DATA
_RCPT: Final = Expect.RCPT

REPLIES_PER_FEED: Final = 50
"""Replies handled in one feed: some milliseconds, then other connections are served."""

OCTETS_PER_FEED: Final = 65536
"""Octets of replies handled in one feed, for the same reason: one reply of the largest size (replies.TOTAL_LIMIT)."""


def connected(d: Dialogue, event: events.Connected) -> None:
    """Connected: wait for the server's greeting, or, with TlsWrapped, for the client's hello."""
    d.record.measured.append(measuring.ACCEPTED)
    d.server = event.server
    starttls.connected(d, event.port)
    d.trace("SERVER", b"connected: " + event.server.encode())
    if wrapped.applies(d):
        wrapped.begin(d)
    else:
        d.outstanding.append(PendingReply(Expect.GREETING))


def connect_failed(d: Dialogue, event: events.ConnectFailed) -> None:
    """ConnectFailed: end the client's connection, as if it had failed to connect to the server itself."""
    d.record.measured.append(measuring.NO_SERVER)
    d.log(f"client={d.client}: no connection to the server: {event.reason}", logging.WARNING)
    d.server_gone = True
    d.end_unserved(answers.unreachable(event.reason))


def data(d: Dialogue, event: events.ServerData) -> None:
    """ServerData in any phase."""
    d.replies.feed(event.data)
    _act(d)


def go_on(d: Dialogue, _event: events.Continue) -> None:
    """Continue: handle the replies that the last feed left."""
    if d.flow.replies_left:
        _act(d)


def _act(d: Dialogue) -> None:
    """Handle the replies that have arrived, as many as one feed may (REPLIES_PER_FEED)."""
    d.flow.replies_left = False
    enough = d.replies.left - OCTETS_PER_FEED
    acted = 0
    while d.replies.left:
        if d.phase is _ENDED or d.server_gone:
            return
        if acted == REPLIES_PER_FEED or d.replies.left <= enough:
            d.flow.replies_left = True
            return
        acted += 1
        try:
            reply = d.replies.next(tolerant=bool(d.outstanding) and last_line_decides(d.outstanding[0].expect))
        except ReplyError as error:
            _out_of_step(d, str(error))
            return
        if reply is None:
            break
        d.progress = True
        if 200 <= reply.code <= 599:
            d.record.measured.append(_SERVER_REPLIES + reply.code // 100)
        if d.tracing.on:
            _trace(d, reply)
        _reply(d, reply)
    if d.flow.server_closing and d.phase is not _ENDED and not d.server_gone:
        _lost(d)


def _trace(d: Dialogue, reply: Reply) -> None:
    if d.outstanding:
        d.tracing.asked(d.outstanding[0].line, auth=d.outstanding[0].expect is Expect.AUTH)
    d.trace("SERVER <", d.tracing.reply(reply))


def _reply(d: Dialogue, reply: Reply) -> None:
    if reply.code == 421:
        _leaves(d, reply)
        return
    if not d.outstanding:
        _unsolicited(d, reply)
        return
    pending = d.answered()
    d.ours.noop_refusal = None
    if reply.code >= 400 and pending.expect in _OF_CLIENT:
        d.record.refused_there(pending.line)
    if not _fits(pending.expect, reply.code // 100):
        _out_of_step(d, f"{reply.code} cannot answer {pending.expect.value}")
        return
    if reply.code >= 500:
        reply = without_tls.made_temporary(d, pending, reply)
    _handle(d, pending, reply)
    if d.phase is not _ENDED:
        d.release_local_replies()
        d.ask_queued()


def _fits(expect: Expect, kind: int) -> bool:
    """Whether a reply with this first digit can answer the command. 2xx can answer all but DATA, ours and the client's:
    so the table need not be asked.
    """
    return (kind == 2 and expect is not _DATA and expect is not _OUR_DATA) or kind in EXPECTED[expect]


def _handle(d: Dialogue, pending: PendingReply, reply: Reply) -> None:
    """Call the function for the command. A table is slower than a comparison: it has what no message needs."""
    expect = pending.expect
    if expect is _MAIL:
        _mail(d, pending, reply)
    elif expect is _RCPT:
        _rcpt(d, pending, reply)
    elif expect is _DATA:
        _data(d, pending, reply)
    elif expect is _MESSAGE:
        message.final(d, pending, reply)
    else:
        _HANDLERS[expect](d, pending, reply)


def _out_of_step(d: Dialogue, why: str) -> None:
    d.log(f"client={d.client}, server={d.server}: out of step with the server: {why}", logging.ERROR)
    _give_up(d, answers.OUT_OF_STEP)


_OF_CLIENT: Final = frozenset(
    {Expect.EHLO, Expect.HELO, Expect.MAIL, Expect.RCPT, Expect.DATA, Expect.RSET, Expect.QUIT, Expect.OTHER}
    | {Expect.AUTH, Expect.XFORWARD, Expect.STARTTLS}
)
"""Commands of the client: their refusals are counted for the last line of the session."""


def _leaves(d: Dialogue, reply: Reply) -> None:
    d.log(f"client={d.client}, server={d.server}: the server closes: {shown(reply.wire)}", logging.WARNING)
    d.record.server_left = True
    if d.message is not None:
        d.message.answered = d.message.sent  # 421 after the end of data is a final reply: the message was not accepted
    _give_up(d, reply)


def _give_up(d: Dialogue, reply: Reply) -> None:
    """Close the connection to the server; the client gets this reply in place of the server's next one."""
    if d.phase is Phase.DATA:
        d.drop_server(abort=True)
        message.refuse_rest(d, reply)
    else:
        d.drop_server(abort=True)
        d.end(reply)


def _unsolicited(d: Dialogue, reply: Reply) -> None:
    """A reply that answers no command. Only a refusal in the middle of a message is valid: it refuses the message."""
    if reply.negative and d.server_in_text():
        message.refused_early(d, reply)
    else:
        _out_of_step(d, f"{reply.code} answers no command")


def closed(d: Dialogue, _event: events.ServerClosed) -> None:
    """ServerClosed in any phase except ENDED: what the server sent before is handled first."""
    if d.server_gone:
        return  # we have closed this connection ourselves
    if d.flow.replies_left:
        d.flow.server_closing = True
    else:
        _lost(d)


def _lost(d: Dialogue) -> None:
    d.server_gone = d.record.server_left = True
    refusal = d.ours.noop_refusal
    lost = answers.SERVER_LOST if refusal is None else answers.server_leaves(printable(refusal.wire))
    if d.phase is Phase.DATA:
        if message.must_filter(d) or (d.message and d.message.sink is not Sink.DISCARD):
            d.log(
                f"client={d.client}, server={d.server}: the server closed the connection during a message",
                logging.WARNING,
            )
        message.refuse_rest(d, lost)
        return
    if d.outstanding and d.outstanding[0].expect is Expect.QUIT:
        d.end(answers.BYE)
        return
    if d.phase is Phase.GREETING:
        d.log(
            f"client={d.client}, server={d.server}: the server closed the connection before its greeting",
            logging.WARNING,
        )
        d.end_unserved(answers.SERVER_LOST)
        return
    when = f"before it answered {d.outstanding[0].expect.value}" if d.outstanding else "between two commands"
    d.log(f"client={d.client}, server={d.server}: the server closed the connection {when}", logging.WARNING)
    d.end(lost)


# One function for each kind of command that a reply can answer.


def _mail(d: Dialogue, pending: PendingReply, reply: Reply) -> None:
    if reply.positive:
        if d.record.open:  # the server takes a second MAIL, as if it had come after RSET
            d.report_unfinished()
        d.record.begin()
        envelope = d.own_envelope()
        envelope.sender = pending.address
        envelope.sender_parameters = pending.parameters
    else:
        _refused(d, "MAIL", pending, reply)
    d.pass_on(reply)


def _rcpt(d: Dialogue, pending: PendingReply, reply: Reply) -> None:
    if reply.positive:
        envelope = d.own_envelope()
        envelope.recipients.append(pending.address)
        envelope.recipient_parameters.append(pending.parameters)
    else:
        _refused(d, "RCPT", pending, reply)
    limiting.recipient_answered(d, reply)
    d.pass_on(reply)


def _refused(d: Dialogue, command: str, pending: PendingReply, reply: Reply) -> None:
    """The server refused MAIL, RCPT or DATA: a log line, and a part of the transaction's event."""
    sender = pending.address if command == "MAIL" else d.envelope.sender
    recipient = pending.address if command == "RCPT" else None
    d.unseen_effects.append(Refusal(command, d.server, sender, recipient, reply.wire))
    if recipient is not None:
        d.record.recipient_refused(recipient, reply.code)
    elif command == "MAIL" and not d.record.open:
        d.record.begin()
        d.unseen_effects.append(d.record.refused_sender(d, pending.address, reply))


def _data(d: Dialogue, pending: PendingReply, reply: Reply) -> None:
    if not reply.intermediate:
        _refused(d, "DATA", pending, reply)
        d.pass_on(reply)
    elif d.data.bypassed or not message.must_filter(d):
        message.begin_stream(d, reply)
    elif d.envelope.recipients:
        _out_of_step(d, "354 to DATA without an accepted sender")  # recipients would get an empty, unfiltered message
    else:
        # RFC 2920 section 3.1 lets a server answer 354 without an accepted recipient; a lone dot would then end the
        # text. But a server that accepted a recipient after all would take the lone dot for an empty message.
        _out_of_step(d, "354 to DATA without an accepted recipient")


def _rset(d: Dialogue, _pending: PendingReply, reply: Reply) -> None:
    if reply.positive:
        d.new_transaction()
    d.pass_on(reply)


def _our_rset(d: Dialogue, _pending: PendingReply, reply: Reply) -> None:
    """The reply to our RSET. If it is refused (Exim's `554 Too many nonmail commands`), the session ends.

    The server may still have the old envelope, so no further message may be sent. The client gets 421 in reply to its
    next command, unless that is QUIT.
    """
    if reply.positive:
        return
    d.log(f"client={d.client}, server={d.server}: the server refuses RSET: {shown(reply.wire)}", logging.WARNING)
    last = answers.server_leaves(printable(reply.wire))
    d.drop_server(abort=True)
    d.release_local_replies()
    if d.outstanding or d.queued or d.end_after_transaction is not None:
        d.end(last)
    else:
        d.end_after_transaction = last
        d.first_transaction_allowed = d.said_mail = True


def _our_noop(d: Dialogue, _pending: PendingReply, reply: Reply) -> None:
    """The reply to our NOOP. A server that refuses it gets no other NOOP; it may close the connection next."""
    if not reply.positive:
        text = f"client={d.client}, server={d.server}: NOOP (KeepAlives) refused: {shown(reply.wire)}"
        d.log_once(b"OUR NOOP", text, logging.WARNING)
        d.ours.noops = NOOPS_LIMIT
        d.ours.noop_refusal = reply


def _our_xforward(d: Dialogue, _pending: PendingReply, reply: Reply) -> None:
    """The reply to our XFORWARD IDENT. A server that refuses it takes the mail without, and gets no other one."""
    if not reply.positive:
        text = f"client={d.client}, server={d.server}: XFORWARD IDENT refused: {shown(reply.wire)}"
        d.log_once(b"OUR XFORWARD", text)
        d.ident_refused = True


def _quit(d: Dialogue, _pending: PendingReply, reply: Reply) -> None:
    d.drop_server(abort=False)
    d.end(reply)


def _auth(d: Dialogue, _pending: PendingReply, reply: Reply) -> None:
    if reply.intermediate and reply.code != 334:
        # RFC 4954 section 4 allows no other 3xx; 354 would ask for message text.
        _out_of_step(d, f"{reply.code} cannot answer AUTH")
        return
    d.phase = Phase.AUTH if reply.intermediate else Phase.COMMAND
    if reply.intermediate:
        d.login_exchange.challenge(reply.wire[4:])
    elif reply.positive:
        d.authenticated = True
        d.login = d.login_exchange.login
    d.pass_on(reply)


def _xforward(d: Dialogue, pending: PendingReply, reply: Reply) -> None:
    if reply.positive:
        xclient.remember_xforward(d, pending.line)
    d.pass_on(reply)


def _other(d: Dialogue, _pending: PendingReply, reply: Reply) -> None:
    d.pass_on(reply)


_HANDLERS: Final[dict[Expect, Callable[[Dialogue, PendingReply, Reply], None]]] = {
    Expect.GREETING: ehlo.greeting,
    Expect.EHLO: ehlo.ehlo,
    Expect.HELO: ehlo.ehlo,
    Expect.RSET: _rset,
    Expect.QUIT: _quit,
    Expect.AUTH: _auth,
    Expect.XFORWARD: _xforward,
    Expect.STARTTLS: starttls.replied,
    Expect.OTHER: _other,
    Expect.OUR_DATA: message.our_data,
    Expect.OUR_RSET: _our_rset,
    Expect.OUR_NOOP: _our_noop,
    Expect.OUR_XCLIENT: ehlo.our_xclient,
    Expect.OUR_EHLO: ehlo.our_ehlo,
    Expect.OUR_STARTTLS: encrypting.our_starttls,
    Expect.OUR_EHLO_IN_TLS: encrypting.our_ehlo_in_tls,
    Expect.OUR_XCLIENT_IN_TLS: encrypting.our_xclient_in_tls,
    Expect.OUR_RESTART: message.our_envelope,
    Expect.OUR_XFORWARD_AGAIN: message.our_envelope,
    Expect.OUR_MAIL: message.our_envelope,
    Expect.OUR_RCPT: message.our_envelope,
    Expect.OUR_XFORWARD: _our_xforward,
}
