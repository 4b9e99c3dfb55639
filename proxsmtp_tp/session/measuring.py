"""Which counters are incremented (`telemetry.metrics`): for a 421 the one of the reason for the close, and for each
outcome of TLS one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxsmtp_tp.smtp import answers
from proxsmtp_tp.telemetry.metrics import CLOSED, CONNECTIONS, TLS
from proxsmtp_tp.telemetry.tls_outcomes import NO_LEVEL

if TYPE_CHECKING:
    from proxsmtp_tp.config.tls_lines import TlsLevel
    from proxsmtp_tp.smtp.replies import Reply

_REASONS: dict[bytes, str] = {
    answers.TOO_MANY_ERRORS.wire: "client_errors",
    answers.CLOSING_OUT_OF_STEP.wire: "client_errors",
    answers.CLOSING_BARE_LF.wire: "client_errors",
    answers.BEHIND_STARTTLS.wire: "client_errors",
    answers.OUT_OF_STEP.wire: "server_out_of_step",
    answers.SERVER_BEHIND_STARTTLS.wire: "server_out_of_step",
    answers.XCLIENT_NOT_OFFERED.wire: "server_out_of_step",
    answers.XCLIENT_NOT_ACCEPTED.wire: "server_out_of_step",
    answers.SERVER_LOST.wire: "server_lost",
    answers.SERVER_TIMED_OUT.wire: "server_timed_out",
    answers.CLIENT_TIMED_OUT.wire: "client_timed_out",
    answers.FILTER_TIMED_OUT.wire: "filter_timed_out",
    answers.MESSAGE_TIMED_OUT.wire: "message_timed_out",
    answers.SESSION_TOO_LONG.wire: "session_too_long",
    answers.SHUTTING_DOWN.wire: "stopping",
    answers.CLOSED_BY_ADMINISTRATOR.wire: "administrator",
    answers.INTERNAL_ERROR.wire: "internal_error",
    answers.NO_DESTINATION.wire: "refused",
    answers.DESTINATION_REFUSED.wire: "refused",
    answers.TOO_MANY_OF_CLIENT.wire: "full",
    answers.TOO_MANY_CONNECTIONS.wire: "full",
    answers.closing(answers.TLS_BUSY).wire: "full",
    **{
        answers.closing(refusal).wire: "server_tls"
        for refusal in (
            answers.UPSTREAM_TLS_NOT_OFFERED,
            answers.UPSTREAM_TLS_FAILED,
            answers.UPSTREAM_NOT_VERIFIED,
            answers.UPSTREAM_TLSA_UNKNOWN,
        )
    },
}
_BEGINNINGS = {b"421 4.4.1 ": "no_server", b"421 4.4.2 The server ends": "server", b"421 4.7.1 ": "limit"}
"""Reasons of our replies whose text differs from case to case: it names a server, a limit or a lock."""

ACCEPTED, REFUSED, NO_SERVER = (CONNECTIONS[name] for name in ("accepted", "refused", "no_server"))
"""The counters of clients' connections by their result."""


def reason(reply: Reply) -> str:
    """Why a connection is closed with this 421; a reply that is not our own is the server's."""
    if not reply.own:
        return "server"
    known = _REASONS.get(reply.wire)
    return known or next((why for start, why in _BEGINNINGS.items() if reply.wire.startswith(start)), "other")


def closed(reply: Reply) -> int:
    """The counter of the reason of this 421."""
    return CLOSED[reason(reply)]


def limited(reply: Reply) -> int:
    """The counter of a connection that is answered with this reply because of a limit or a lock of its client."""
    return CONNECTIONS["locked" if b" is locked until " in reply.wire else "limit"]


def tls(side: str, action: str, reason: str, level: TlsLevel | None = None) -> int:
    """The counter of an outcome of TLS (`telemetry.tls_outcomes`); `level`: what the server's leg had to have."""
    return TLS[side, action, level.value if level is not None else NO_LEVEL, reason]
