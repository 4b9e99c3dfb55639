"""Decisions about time: deadlines, keep-alives, and the end of the worker."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from proxsmtp_tp.session import measuring, starttls
from proxsmtp_tp.session.parts import PendingReply
from proxsmtp_tp.session.state import Expect, Phase, Reason, Wait
from proxsmtp_tp.smtp import answers

if TYPE_CHECKING:
    from proxsmtp_tp.session import events
    from proxsmtp_tp.session.dialogue import Dialogue

_OVERDUE: Final = {
    Wait.REPLY: answers.SERVER_TIMED_OUT,
    Wait.START: answers.SERVER_TIMED_OUT,
    Wait.FINAL: answers.SERVER_TIMED_OUT,
    Wait.SENDING: answers.SERVER_TIMED_OUT,
    Wait.COMMAND: answers.CLIENT_TIMED_OUT,
    Wait.QUIT: answers.SHUTTING_DOWN,
    Wait.TEXT: answers.CLIENT_TIMED_OUT,
    Wait.VERDICT: answers.FILTER_TIMED_OUT,
    Wait.READING: answers.CLIENT_TIMED_OUT,
    Wait.HANDSHAKE: answers.SERVER_TIMED_OUT,  # only a client in clear gets it: UpstreamTls, and the server is slow
    Wait.PASSING: answers.CLIENT_TIMED_OUT,
    Wait.NOTHING: answers.SHUTTING_DOWN,
}

_OF_TLS: Final = frozenset({Wait.HANDSHAKE, Wait.PASSING})


def deadline_passed(d: Dialogue, event: events.DeadlinePassed) -> None:
    """DeadlinePassed: end with 421, which names the slow side. Before the greeting: see `end_unserved`."""
    sending = event.wait is Wait.SENDING and d.phase is Phase.DATA  # only the driver knows which side is slow
    if event.wait is not d.current_wait() and not sending:
        return  # in the meantime the session waits for something else
    if event.wait is not Wait.QUIT:
        counts = starttls.timed_out(d) if event.wait in _OF_TLS else None
        d.log(
            f"client={d.client}, server={d.server}: timed out waiting for {event.wait.value}", logging.WARNING, counts
        )
    if event.wait is Wait.GREETING:
        d.end_unserved(answers.SERVER_TIMED_OUT)
    else:
        last = (d.end_after_transaction if event.wait is Wait.QUIT else None) or _OVERDUE[event.wait]
        d.end(last, reset=event.wait is Wait.PASSING)


def message_timed_out(d: Dialogue, _event: events.MessageTimedOut) -> None:
    """MessageTimedOut: end the connection, whichever side is slow."""
    if d.phase is not Phase.SKIPPING and (d.message is None or d.message.sent):
        return
    d.log(f"client={d.client}, server={d.server}: the message took too long (MessageTimeOut)", logging.WARNING)
    d.end(answers.MESSAGE_TIMED_OUT)


NOOPS_LIMIT: Final = 8
"""NOOPs of ours in one session: Exim closes at the eleventh command that is no mail (smtp_accept_max_nonmail), so two
are left for the client. Postfix accepts a hundred (smtpd_junk_command_limit)."""


def keep_alive(d: Dialogue, _event: events.KeepAlive) -> None:
    """KeepAlive: send NOOP if the server waits between its 250 to RCPT and our DATA, while the message is filtered."""
    m = d.message
    if d.ours.noops >= NOOPS_LIMIT:
        return
    if m is not None and m.filtering and m.verdict is None and not d.outstanding and not d.server_gone:
        d.ours.noops += 1
        d.ask(PendingReply(Expect.OUR_NOOP, b"NOOP\r\n"))


def wind_down(d: Dialogue, event: events.WindDown) -> None:
    """WindDown: begin no new transaction. `client.pump` ends the connection when none is running.

    After a reload, connections accepted before it may finish one transaction and send QUIT; then they get 421. (421 in
    place of the greeting would refuse the connection, and some clients take 421 in place of 221 for a refused message.)
    When the daemon stops, idle connections get 421 at once. A passed connection may go on until Shutdown: nobody here
    knows where its transactions end. Only TlsPassTimeOut ends it.
    """
    if d.phase is Phase.PASSING and event.reason is Reason.AGE:
        text = f"client={d.client}, server={d.server}: the passed connection has lasted too long"
        d.log(text, logging.WARNING, measuring.tls("both", "pass", "too_long"))
        d.end(None, reset=True)
        return
    if event.reason is Reason.RELOAD and d.end_after_transaction is not None:
        return  # it was told already, or has to end sooner
    d.first_transaction_allowed = event.reason is Reason.RELOAD
    if d.phase is Phase.GREETING and not d.first_transaction_allowed:
        d.end(answers.SHUTTING_DOWN)
        return
    d.end_after_transaction = d.end_after_transaction or (
        answers.SESSION_TOO_LONG if event.reason is Reason.AGE else answers.SHUTTING_DOWN
    )


def shutdown(d: Dialogue, event: events.Shutdown) -> None:
    """Shutdown: end with 421 now, even in the middle of a message, which then was not accepted."""
    if event.by_administrator:
        d.log(f"client={d.client}, server={d.server}: closed by an administrator (sessions kill)", logging.WARNING)
        d.end(answers.CLOSED_BY_ADMINISTRATOR, reset=d.phase is Phase.PASSING)
    else:
        d.end(answers.SHUTTING_DOWN, reset=d.phase is Phase.PASSING)
