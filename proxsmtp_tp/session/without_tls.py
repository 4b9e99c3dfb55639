"""Sessions in which the proxy has removed STARTTLS: they stay in clear, although both peers could have used TLS.

No password crosses the network in clear because of the proxy (AuthWithoutTls). If the server refuses a command because
TLS is missing, the client gets a temporary failure, so that no mail bounces. A client that leaves because TLS is
missing is named in the log.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final

from proxsmtp_tp.session.measuring import tls as counter
from proxsmtp_tp.session.state import Expect
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.smtp.capabilities import shows_password
from proxsmtp_tp.telemetry.quoting import shown

if TYPE_CHECKING:
    from proxsmtp_tp.session.dialogue import Dialogue
    from proxsmtp_tp.session.parts import PendingReply
    from proxsmtp_tp.smtp.commands import Command
    from proxsmtp_tp.smtp.replies import Reply

MADE_TEMPORARY: Final = frozenset({Expect.MAIL, Expect.RCPT, Expect.DATA, Expect.OUR_DATA, Expect.AUTH})
"""Commands that a server may refuse for lack of TLS or a login (RFC 3207 section 4, RFC 4954 section 6). A refusal of
any other command is passed on unchanged."""
_WANTS_TLS = re.compile(
    rb"\bSTARTTLS\b|\b5\.7\.1[01]\b|\b(?:TLS|SSL|encryption)\b[^\r\n]*(?:requir|need|must)"
    rb"|(?:requir|need|must)[^\r\n]*\b(?:TLS|SSL|encryption)\b",
    re.IGNORECASE,
)
_WANTS_LOGIN = re.compile(rb"\b(?:un)?authenticat|\brelay|\blog ?in\b", re.IGNORECASE)
_EXCEPT = "to exclude the server: RuleExceptDestination: {server}, or install-rules --except-destination {server}"


def shows_password_here(d: Dialogue, command: Command) -> bool:
    """Whether this AUTH would show the password, while without the proxy the client could have used TLS."""
    mechanism = command.argument.split(None, 1)[:1]
    if not d.removed.tls or d.options.auth_without_tls or not mechanism or not shows_password(mechanism[0]):
        return False
    text = "a login that shows the password is refused, because STARTTLS is not offered (AuthWithoutTls)"
    d.log_once(b"AUTH", f"client={d.client}, server={d.server}: {text}", logging.WARNING)
    return True


def made_temporary(d: Dialogue, pending: PendingReply, reply: Reply) -> Reply:
    """Of a 5xx of the server: the reply, or 451 if it refuses for lack of the TLS or the login that the proxy has
    removed.
    """
    if not d.removed.tls or pending.expect not in MADE_TEMPORARY:
        return reply
    lacks_tls = d.tls.server is None  # UpstreamTls may have begun it for the server's leg
    if lacks_tls and (reply.code in {530, 538} or _WANTS_TLS.search(reply.wire)):
        instead, lack = answers.SERVER_WANTS_TLS, "TLS"
    elif (
        d.removed.auth and not d.authenticated and pending.expect is not Expect.AUTH and _WANTS_LOGIN.search(reply.wire)
    ):
        instead, lack = answers.SERVER_WANTS_LOGIN, "a login, which is not offered without TLS (AuthWithoutTls)"
    else:
        return reply
    text = f"the server requires {lack}: {shown(reply.wire)}; {_EXCEPT.format(server=d.server)}"
    counts = counter("server", "strip", "required") if instead is answers.SERVER_WANTS_TLS else None
    d.log_once(b"530", f"client={d.client}, server={d.server}: {text}", logging.WARNING, counts)
    return instead


def client_leaves(d: Dialogue) -> None:
    """The client closes: log it if it did not send MAIL, because then it probably requires TLS."""
    if d.removed.tls and not d.said_mail and not d.authenticated:
        text = "the client left without MAIL, and STARTTLS is not offered: it probably requires TLS"
        counts, instead = counter("client", "strip", "left"), _EXCEPT.format(server=d.server)
        d.log_once(b"QUIT", f"client={d.client}, server={d.server}: {text}; {instead}", logging.INFO, counts)
