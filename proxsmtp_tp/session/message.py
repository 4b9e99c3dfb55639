"""From DATA to the final reply to the message.

The text goes to the filter (Sink.FILTER), to the server as it arrives (Sink.STREAM), or nowhere, because the final
reply is already known (Sink.DISCARD). With a filter the server gets DATA only after a PASS, so it never sees a byte of
a message that was not judged, or whose client or filter failed. The client gets 2xx only if the server answered 2xx to
that message, or the filter discarded it.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final

from proxsmtp_tp.filters.verdict import Action
from proxsmtp_tp.session import changed_envelope, effects, limiting, size
from proxsmtp_tp.session.parts import Message, PendingReply
from proxsmtp_tp.session.record import INTERRUPTED
from proxsmtp_tp.session.state import Expect, Phase, Sink
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.smtp.headers import HeaderInserter
from proxsmtp_tp.telemetry.counters import Counter
from proxsmtp_tp.telemetry.facts import REFUSED
from proxsmtp_tp.telemetry.quoting import shown

if TYPE_CHECKING:
    from proxsmtp_tp.filters.verdict import Verdict
    from proxsmtp_tp.session import events
    from proxsmtp_tp.session.dialogue import Dialogue
    from proxsmtp_tp.smtp.replies import Reply

FILTERED: Final = "FILTERED"
SKIPPED: Final = "SKIPPED"
MONITORED: Final = "MONITORED"
BYPASSED: Final = "BYPASSED"
FILTER_ERROR: Final = "FILTER-ERROR"
"""Values of `status=`, as in proxsmtpd 1.10, except MONITORED (FilterMode) and BYPASSED (the command bypass). For a
message that the filter did not pass, the value is the filter's own text."""

# Members that every piece of a message compares (see `state._Name`).
_FILTER: Final = Sink.FILTER
_STREAM: Final = Sink.STREAM

_FINAL_REPLY: Final = PendingReply(Expect.MESSAGE)
"""The same for all messages, because nothing more is known of it."""

_SYMBOL: Final = re.compile(r"\\(?P<escaped>.)|%(?P<symbol>.)")
_ESCAPES: Final = {"r": "\r", "n": "\n", "t": "\t"}


def skipped(d: Dialogue) -> bool:
    """Whether the messages of this connection are not filtered (Skip: authenticated)."""
    return d.options.skip_authenticated and d.authenticated


def must_filter(d: Dialogue) -> bool:
    """Whether the messages of this connection are filtered, unless the filter is bypassed at DATA."""
    return d.options.filtered and not skipped(d)


def tells_envelope(d: Dialogue) -> bool:
    """Whether the proxy uses the addresses in MAIL and RCPT. Then the server must read the same addresses."""
    return must_filter(d)


# The message begins.


def begin_filtered(d: Dialogue) -> None:
    """The server has accepted sender and recipients: answer 354 ourselves, and send the message to the filter."""
    d.effects.append(
        effects.StartFilter(d.envelope, d.helo, d.remote, d.remote_helo, d.authenticated, d.login, d.tls.legs)
    )
    d.pass_on(answers.START_DATA)
    _begin(d, _FILTER)


def begin_stream(d: Dialogue, reply: Reply) -> None:
    """The server answered 354, and the message is not filtered: send it to the server as it arrives."""
    d.pass_on(reply)
    _begin(d, _STREAM, None if skipped(d) or d.data.bypassed else header_inserter(d))


def _begin(d: Dialogue, sink: Sink, inserter: HeaderInserter | None = None) -> None:
    d.message = Message(sink, inserter, size.limit(d, filtered=sink is _FILTER))
    d.unseen_effects.append(effects.CLOCK_STARTS)
    d.record.text_begins()
    d.phase = Phase.DATA


# The message arrives.


def text(d: Dialogue, data: bytes) -> None:
    """Handle bytes of the client's message."""
    message = _message(d)
    decoder = message.decoder
    out = decoder.feed(data) if message.relay is None else message.relay.feed(data)
    d.progress = True
    if d.record.text is not None:
        d.record.text.received(out, judged=message.sink is _FILTER)
    if decoder.bare_newlines and d.options.refuse_bare_newlines and message.final_reply is None:
        d.log(f"client={d.client}: bare CR or LF in the message (BareNewline: reject)", logging.WARNING)
        refuse_rest(d, answers.BARE_NEWLINE_IN_TEXT)
    if message.size_limit is not None and decoder.size > message.size_limit and message.final_reply is None:
        d.log(f"client={d.client}, server={d.server}: the message has more than {message.size_limit} octets")
        refuse_rest(d, answers.MESSAGE_TOO_LARGE)
    if message.sink is _FILTER and out:
        d.effects.append(effects.FilterData(out))
    elif message.sink is _STREAM:
        _send(d, message, out if message.relay is not None else _encoded(message, out, last=decoder.done))
    if decoder.done:
        _complete(d, message)


def _complete(d: Dialogue, message: Message) -> None:
    d.lines.put_back(message.decoder.rest)
    if d.tracing.on:
        d.trace("CLIENT <", b"(a message of %d octets)" % message.decoder.size)
    d.phase = Phase.SETTLING
    if d.record.text is not None:
        d.record.text.complete_at = d.record.ticks()
    if message.sink is _FILTER:
        d.effects.append(effects.FilterFinish())
    elif message.sink is _STREAM:
        _end_sent(d, message)
    else:
        reply = message.final_reply or answers.SERVER_LOST
        settle(d, reply, INTERRUPTED if reply.code == 421 else REFUSED)


def refuse_rest(d: Dialogue, reply: Reply) -> None:
    """Give the message this final reply, once it is complete: read the rest of it, but do not keep or send it."""
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
        return  # the run was aborted before the verdict came
    given = event.verdict
    _log_errors(d, given)
    if d.record.text is not None:
        d.record.text.verdict_at = d.record.ticks()
    if given.action is Action.PASS and d.phase is Phase.SETTLING:
        message.verdict = given
        _send_envelope(d, given)
        return
    if given.action is Action.REJECT and given.said and not given.unjudged:
        limiting.message_rejected(d)
    reply = (
        given.reply or answers.FILTER_FAILED
    )  # a PASS before the end of the message: the filter did not judge all of it
    message.verdict = given
    if d.phase is Phase.DATA:
        refuse_rest(d, reply)
    else:
        d.release_filter()
        settle(d, reply, FILTER_ERROR)


def _log_errors(d: Dialogue, given: Verdict) -> None:
    """What the filter wrote to standard error. The quotes end where the text does, whatever is in it."""
    if given.errors:
        judged = given.monitored or given
        level = logging.WARNING if judged.action is not Action.PASS and not judged.said else logging.INFO
        d.log(f'client={d.client}: the filter wrote to standard error: "{given.errors}"', level)


def settle(d: Dialogue, reply: Reply, status: str) -> None:
    """Give the message a final reply of our own, and reset the server's transaction."""
    given = _message(d).verdict
    if given is not None and given.action is not Action.PASS:
        d.report(given.said or FILTER_ERROR, reply, filtered=given.detail)
    else:
        d.report(status, reply)
    d.pass_on(reply)
    _over(d, reply)
    if d.server_gone:
        d.end(None if reply.code == 421 else answers.SERVER_LOST)
    else:
        d.ask(PendingReply(Expect.OUR_RSET, b"RSET\r\n"))


# After PASS: the message is sent to the server.


def _send_envelope(d: Dialogue, given: Verdict) -> None:
    """Tell the server what the filters changed in the envelope; then DATA."""
    inserted = header_inserter(d)
    size_sent = given.size + (inserted.size if inserted is not None else 0)
    if given.envelope is not None:
        _message(d).envelope_commands = changed_envelope.commands(d, given.envelope, size_sent)
        changed_envelope.ask_next(d)
    if not changed_envelope.pending(d):
        d.ask(PendingReply(Expect.OUR_DATA, b"DATA\r\n"))


def our_envelope(d: Dialogue, pending: PendingReply, reply: Reply) -> None:
    """Handle the server's reply to a command of a changed envelope."""
    changed_envelope.answered(d, pending, reply)
    changed_envelope.ask_next(d)
    if changed_envelope.pending(d):
        return
    message = _message(d)
    if message.refusal is None:
        d.ask(PendingReply(Expect.OUR_DATA, b"DATA\r\n"))
        return
    d.release_filter()
    settle(d, message.refusal, _judged(message))


def our_data(d: Dialogue, _pending: PendingReply, reply: Reply) -> None:
    """Handle the server's reply to our DATA."""
    message = _message(d)
    if reply.code // 100 != 3:
        d.release_filter()
        settle(d, reply, _judged(message))
        return
    message.inserter = header_inserter(d)
    message.reading = True
    d.effects.append(effects.ReadMessage())


def _judged(message: Message) -> str:
    """`status=` of a message that the filter passed, or that passes in spite of the filter (FilterMode monitor)."""
    given = message.verdict
    return FILTERED if given is None or given.monitored is None else MONITORED


def header_inserter(d: Dialogue) -> HeaderInserter | None:
    r"""Make the object that adds the header of the Header directive to a message; None without the directive.

    Symbols: %i client, %l our address, %d date, %% a percent sign, any other is removed; \r, \n, \t, any other \x is x
    (proxsmtpd.conf(5)). Received lines go on top (RFC 5321 section 4.4), others to the end of the header.
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
    """A piece of text as it is sent to the server, with the configured header inserted."""
    if message.inserter is not None:
        text = message.inserter.feed(text) + (message.inserter.finish() if last else b"")
    encoder = message.encoder
    if encoder is None:
        raise RuntimeError("a relayed message is not encoded")
    wire = encoder.feed(text)
    return wire + encoder.finish() if last else wire


def chunk(d: Dialogue, event: events.MessageChunk) -> None:
    """MessageChunk: send it to the server, the last one with the end of data."""
    message = _message(d)
    if not message.reading:
        return
    d.progress = True
    if d.record.text is not None:
        d.record.text.read_back(event.data)
    _send(d, message, _encoded(message, event.data, last=event.last))
    if event.last:
        d.release_filter()
        _end_sent(d, message)


def chunks_end(d: Dialogue, _event: events.MessageEnd) -> None:
    """MessageEnd: send the end of data; now the server decides."""
    message = _message(d)
    if not message.reading:
        return
    _send(d, message, _encoded(message, b"", last=True))
    d.release_filter()
    _end_sent(d, message)


def unreadable(d: Dialogue, event: events.MessageUnreadable) -> None:
    """MessageUnreadable: the server must not accept the part that it has."""
    d.log(f"client={d.client}: the judged message cannot be read back: {event.reason}", logging.ERROR)
    d.drop_server(abort=True)
    d.release_filter()
    settle(d, answers.SPOOL_FAILED, FILTER_ERROR)


def answer_late(d: Dialogue, _event: events.AnswerLate) -> None:
    """AnswerLate: the client may soon give up, and send the message again. So the server must not get it any more.

    Once our end of data is sent, only the server's reply counts (RFC 1047).
    """
    message = _message(d)
    if message.sent:
        return
    where = f"client={d.client}, server={d.server}"
    d.log(f"{where}: no answer to the message within AnswerWithin: it is deferred", logging.WARNING)
    waits_for_server = message.reading or any(each.expect in _BETWEEN for each in (*d.outstanding, *d.queued))
    if waits_for_server:
        d.drop_server(abort=True)
    d.release_filter()
    settle(d, answers.ANSWER_TOO_LATE, FILTER_ERROR)


_BETWEEN: Final = changed_envelope.OURS | {Expect.OUR_DATA}
"""Commands between the verdict and the text."""


def _send(d: Dialogue, message: Message, wire: bytes) -> None:
    message.octets_sent += len(wire)
    d.send(wire)


def _end_sent(d: Dialogue, message: Message) -> None:
    if d.tracing.on:
        d.trace("SERVER >", b"(a message of %d octets as sent with the final dot)" % message.octets_sent)
    message.reading = False
    message.sent = True
    if d.record.text is not None:
        d.record.text.sent_at = d.record.ticks()
    d.unseen_effects.append(effects.CLOCK_STOPS)
    d.outstanding.append(_FINAL_REPLY)
    d.sync = True


def final(d: Dialogue, _pending: PendingReply, reply: Reply) -> None:
    """Handle the server's final reply to the message."""
    given = _message(d).verdict
    if given is not None and given.monitored is not None:
        _log_monitored(d, given, given.monitored, reply)
    elif d.data.bypassed:
        d.report(BYPASSED, reply)
        d.unseen_effects.append(effects.Count(Counter.BYPASSED))
    else:
        d.report(FILTERED if given is not None else SKIPPED if skipped(d) else "RELAYED", reply)
    d.pass_on(reply)
    _over(d, reply)


def _log_monitored(d: Dialogue, given: Verdict, said: Verdict, reply: Reply) -> None:
    d.report(MONITORED, reply, filtered=given.detail)
    d.unseen_effects.append(effects.Count(Counter.MONITORED))
    if said.action is not Action.PASS:
        d.unseen_effects.append(effects.Count(Counter.MONITORED_REFUSED))


def refused_early(d: Dialogue, reply: Reply) -> None:
    """The server refuses a message before its end: this is the final reply, and the connection to the server ends."""
    d.log(f"client={d.client}, server={d.server}: refused by the server before the end of data: {shown(reply.wire)}")
    d.drop_server(abort=True)
    if d.phase is Phase.DATA:
        refuse_rest(d, reply)
    else:
        d.release_filter()
        settle(d, reply, _judged(_message(d)))


def _over(d: Dialogue, reply: Reply) -> None:
    message = _message(d)
    if reply.positive:
        d.refusals.errors = 0  # ERROR_LIMIT is for clients that deliver nothing
    if not message.sent:
        d.unseen_effects.append(effects.CLOCK_STOPS)
    d.new_transaction()
    d.phase = Phase.COMMAND


def _message(d: Dialogue) -> Message:
    if d.message is None:
        raise RuntimeError("no message in this phase")
    return d.message
