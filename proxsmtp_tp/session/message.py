"""From DATA to the reply that settles the message.

Three ways for the text: to the filter (Sink.FILTER), to the server as it comes (Sink.STREAM), nowhere because the final
reply is known (Sink.DISCARD). In the first the server hears DATA only after a PASS, so it never sees a byte of a
message that was not judged, nor of one whose client or filter went away. In all of them the client gets 2xx only when
the server said 2xx to that message, or the filter discarded it.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from proxsmtp_tp.filters.verdict import Action
from proxsmtp_tp.session import effects, size
from proxsmtp_tp.session.dialogue import INTERRUPTED, Message, PendingReply, shown
from proxsmtp_tp.session.state import Expect, Phase, Sink
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.smtp.headers import HeaderInserter

if TYPE_CHECKING:
    from proxsmtp_tp.session import events
    from proxsmtp_tp.session.dialogue import Dialogue
    from proxsmtp_tp.smtp.replies import Reply

FILTERED = "FILTERED"
SKIPPED = "SKIPPED"
FILTER_ERROR = "FILTER-ERROR"
REFUSED = "REFUSED"
"""What `status=` says of a message, besides the text of a filter that did not pass it: as proxsmtpd 1.10 does."""

_SYMBOL = re.compile(r"\\(?P<escaped>.)|%(?P<symbol>.)")
_ESCAPES = {"r": "\r", "n": "\n", "t": "\t"}


def skipped(d: Dialogue) -> bool:
    """Whether this connection's messages are left alone (Skip: authenticated)."""
    return d.options.skip_authenticated and d.authenticated


def must_filter(d: Dialogue) -> bool:
    """Whether this connection's messages are judged."""
    return d.options.filtered and not skipped(d)


def tells_envelope(d: Dialogue) -> bool:
    """Whether somebody acts on what we read in MAIL and RCPT: then the server must read the same (promise 7)."""
    return must_filter(d)


# Beginning.


def begin_filtered(d: Dialogue) -> None:
    """The server has accepted sender and recipients: the message goes to the filter, with a 354 of ours."""
    d.effects.append(effects.StartFilter(d.envelope, d.helo, d.remote, d.remote_helo))
    d.pass_on(answers.START_DATA)
    _begin(d, Sink.FILTER)


def begin_stream(d: Dialogue, reply: Reply) -> None:
    """The server said 354 and nothing judges: the message goes through as it comes."""
    d.pass_on(reply)
    _begin(d, Sink.STREAM, None if skipped(d) else header_inserter(d))


def _begin(d: Dialogue, sink: Sink, inserter: HeaderInserter | None = None) -> None:
    d.message = Message(sink, inserter, size.limit(d, filtered=sink is Sink.FILTER))
    d.unseen_effects.append(effects.MessageClock(running=True))
    d.phase = Phase.DATA


# While it arrives.


def text(d: Dialogue, data: bytes) -> None:
    """Bytes of the client's message."""
    message = _message(d)
    decoder = message.decoder
    out = decoder.feed(data) if message.relay is None else message.relay.feed(data)
    d.progress = True
    if decoder.bare_newlines and d.options.refuse_bare_newlines and message.final_reply is None:
        d.log(f"client={d.client}: bare CR or LF in the message (BareNewline: reject)", logging.WARNING)
        refuse_rest(d, answers.BARE_NEWLINE_IN_TEXT)
    if message.size_limit is not None and decoder.size > message.size_limit and message.final_reply is None:
        d.log(f"client={d.client}, server={d.server}: the message has more than {message.size_limit} octets")
        refuse_rest(d, answers.MESSAGE_TOO_LARGE)
    if message.sink is Sink.FILTER and out:
        d.effects.append(effects.FilterData(out))
    elif message.sink is Sink.STREAM:
        d.send(out if message.relay is not None else _encoded(message, out, last=decoder.done))
    if decoder.done:
        _complete(d, message)


def _complete(d: Dialogue, message: Message) -> None:
    d.lines.put_back(message.decoder.rest)
    d.phase = Phase.SETTLING
    if message.sink is Sink.FILTER:
        d.effects.append(effects.FilterFinish())
    elif message.sink is Sink.STREAM:
        _end_sent(d, message)
    else:
        reply = message.final_reply or answers.SERVER_LOST
        settle(d, reply, INTERRUPTED if reply.code == 421 else REFUSED)


def refuse_rest(d: Dialogue, reply: Reply) -> None:
    """The message will get this reply, whatever is still to come of it: stop keeping it, but read it to its end."""
    message = _message(d)
    if d.server_in_text():
        d.drop_server(abort=True)
    d.release_filter()
    message.sink = Sink.DISCARD
    message.final_reply = message.final_reply or reply


# The verdict.


def verdict(d: Dialogue, event: events.FilterVerdict) -> None:
    """FilterVerdict in Phase.DATA (early) or Phase.SETTLING."""
    message = d.message
    if message is None or not message.filtering:
        return  # it was aborted while the verdict was on its way
    given = event.verdict
    if given.action is Action.PASS and d.phase is Phase.SETTLING:
        message.verdict = given
        d.ask(PendingReply(Expect.OUR_DATA, b"DATA\r\n"))
        return
    reply = given.reply or answers.FILTER_FAILED  # a PASS before the end of the message judges half of it
    message.verdict = given
    if d.phase is Phase.DATA:
        refuse_rest(d, reply)
    else:
        d.release_filter()
        settle(d, reply, FILTER_ERROR)


def settle(d: Dialogue, reply: Reply, status: str) -> None:
    """The final reply is ours: give it, and have the server forget the envelope."""
    given = _message(d).verdict
    if given is not None and given.action is not Action.PASS:
        d.log_message(given.said or FILTER_ERROR, reply, filtered=given.detail)
    else:
        d.log_message(status, reply)
    d.pass_on(reply)
    _over(d, reply)
    if d.server_gone:
        d.end(None if reply.code == 421 else answers.SERVER_LOST)
    else:
        d.ask(PendingReply(Expect.OUR_RSET, b"RSET\r\n"))


# To the server, after PASS.


def our_data(d: Dialogue, _pending: PendingReply, reply: Reply) -> None:
    """The server's reply to our DATA."""
    message = _message(d)
    if reply.code // 100 != 3:
        d.release_filter()
        message.verdict = None
        settle(d, reply, FILTERED)
        return
    message.inserter = header_inserter(d)
    message.reading = True
    d.effects.append(effects.ReadMessage())


def header_inserter(d: Dialogue) -> HeaderInserter | None:
    r"""What adds the Header directive to a message; None: none.

    Symbols: %i client, %l our address, %d date, %% a percent sign, any other is left out; \r, \n, \t, any other \x is x
    (proxsmtpd.conf(5)). Received lines belong on top (RFC 5321 section 4.4), others at the end of the header.
    """
    template = d.options.header
    if not template:
        return None
    values = {"i": d.client, "l": d.local, "d": d.clock(), "%": "%"}

    def meant(found: re.Match[str]) -> str:
        escaped = found["escaped"]
        return values.get(found["symbol"], "") if escaped is None else _ESCAPES.get(escaped, escaped)

    text = _SYMBOL.sub(meant, template)
    line = text.encode("utf-8", "surrogateescape").rstrip(b"\r\n") + b"\r\n"
    return HeaderInserter(line, on_top=line[:9].lower() == b"received:")


def _encoded(message: Message, text: bytes, *, last: bool) -> bytes:
    """Wire for the server of a piece of text, with the configured header in its place."""
    if message.inserter is not None:
        text = message.inserter.feed(text) + (message.inserter.finish() if last else b"")
    wire = message.encoder.feed(text)
    return wire + message.encoder.finish() if last else wire


def chunk(d: Dialogue, event: events.MessageChunk) -> None:
    """MessageChunk while the server takes the message."""
    message = _message(d)
    if not message.reading:
        return
    d.progress = True
    d.send(_encoded(message, event.data, last=False))


def chunks_end(d: Dialogue, _event: events.MessageEnd) -> None:
    """MessageEnd: the whole message has been handed over; now the server decides."""
    message = _message(d)
    if not message.reading:
        return
    d.send(_encoded(message, b"", last=True))
    d.release_filter()
    _end_sent(d, message)


def unreadable(d: Dialogue, event: events.MessageUnreadable) -> None:
    """MessageUnreadable: the server must not take the half that it has."""
    d.log(f"client={d.client}: the judged message can not be read back: {event.reason}", logging.ERROR)
    d.drop_server(abort=True)
    _message(d).verdict = None
    d.release_filter()
    settle(d, answers.SPOOL_FAILED, FILTER_ERROR)


def _end_sent(d: Dialogue, message: Message) -> None:
    message.reading = False
    message.sent = True
    d.unseen_effects.append(effects.MessageClock(running=False))
    d.outstanding.append(PendingReply(Expect.MESSAGE))
    d.sync = True


def final(d: Dialogue, _pending: PendingReply, reply: Reply) -> None:
    """The server's word on the message."""
    d.log_message(FILTERED if _message(d).verdict else SKIPPED if skipped(d) else "RELAYED", reply)
    d.pass_on(reply)
    _over(d, reply)


def refused_early(d: Dialogue, reply: Reply) -> None:
    """The server refuses a message before its end: its reply settles the message, and it is not relied on any more."""
    d.log(f"client={d.client}, server={d.server}: refused before the end of data: {shown(reply.wire)}")
    d.drop_server(abort=True)
    if d.phase is Phase.DATA:
        refuse_rest(d, reply)
    else:
        _message(d).verdict = None
        d.release_filter()
        settle(d, reply, FILTERED)


def _over(d: Dialogue, reply: Reply) -> None:
    message = _message(d)
    if reply.positive:
        d.refusals.errors = 0  # ERROR_LIMIT is for those who deliver nothing
    if not message.sent:
        d.unseen_effects.append(effects.MessageClock(running=False))
    d.new_transaction()
    d.phase = Phase.COMMAND


def _message(d: Dialogue) -> Message:
    if d.message is None:
        raise RuntimeError("no message in this phase")
    return d.message
