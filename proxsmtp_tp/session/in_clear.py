"""A session in clear with a server that must not get mail in clear (UpstreamTls encrypt and more).

The client may still ask for TLS, so it keeps the connection: MAIL, RCPT and AUTH are refused for now. The refusal is
temporary, because only this gateway demands it, and not the server.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from proxsmtp_tp.smtp import answers
from proxsmtp_tp.smtp.replies import SmtpError
from proxsmtp_tp.tls.levels import Demand

if TYPE_CHECKING:
    from proxsmtp_tp.session.dialogue import Dialogue
    from proxsmtp_tp.smtp.commands import Command


def check(d: Dialogue, command: Command) -> None:
    """MAIL, RCPT or AUTH. Raises SmtpError if mail to this server must not be in clear, and the session is."""
    if d.options.tls is None or d.tls.client is not None:
        return
    server = "" if d.server.startswith("/") else d.server
    demand = Demand(d.options.upstream_tls.rule_for(server, d.tls.port))
    if not demand.wants_tls:
        return
    offered = b"STARTTLS" in d.capabilities.keywords
    reason = "the client did not ask for TLS" if offered else "there is no STARTTLS"
    text = f"{command.verb.decode()} is refused in clear: {reason} (UpstreamTls: {demand.rule})"
    d.log_once(b"in clear", f"client={d.client}, server={d.server}: {text}", logging.WARNING)
    raise SmtpError(answers.UPSTREAM_IN_CLEAR if offered else answers.UPSTREAM_TLS_NOT_OFFERED)
