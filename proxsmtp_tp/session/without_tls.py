"""What it means for a session that STARTTLS is taken away: it has to stay in clear, which neither peer has asked for.

A password does not cross the network in clear because of us (AuthWithoutTls); a refusal that the server would not have
given without us is no reason to bounce a mail; who leaves because of it is named in the log.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final

from proxsmtp_tp.session.dialogue import shown
from proxsmtp_tp.session.state import Expect
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.smtp.capabilities import shows_password

if TYPE_CHECKING:
    from proxsmtp_tp.session.dialogue import Dialogue, PendingReply
    from proxsmtp_tp.smtp.commands import Command
    from proxsmtp_tp.smtp.replies import Reply

MADE_TEMPORARY: Final = frozenset({Expect.MAIL, Expect.RCPT, Expect.DATA, Expect.OUR_DATA, Expect.AUTH})
"""What is answered so before TLS or a login (RFC 3207 section 4, RFC 4954 section 6): another 530 is the server's."""
_WANTS_TLS = re.compile(
    rb"\bSTARTTLS\b|\b5\.7\.1[01]\b|\b(?:TLS|SSL|encryption)\b[^\r\n]*(?:requir|need|must)"
    rb"|(?:requir|need|must)[^\r\n]*\b(?:TLS|SSL|encryption)\b",
    re.IGNORECASE,
)
_WANTS_LOGIN = re.compile(rb"\b(?:un)?authenticat|\brelay|\blog ?in\b", re.IGNORECASE)
_EXCEPT = "to except it: RuleExceptDestination: {server}, or install-rules --except-destination {server}"


def shows_password_here(d: Dialogue, command: Command) -> bool:
    """AUTH: whether it would show the password where, without us, the client could have encrypted."""
    mechanism = command.argument.split(None, 1)[:1]
    if not d.removed.tls or d.options.auth_without_tls or not mechanism or not shows_password(mechanism[0]):
        return False
    text = "a login that shows the password is refused, as STARTTLS is not offered (AuthWithoutTls)"
    d.log_once(b"AUTH", f"client={d.client}, server={d.server}: {text}", logging.WARNING)
    return True


def made_temporary(d: Dialogue, pending: PendingReply, reply: Reply) -> Reply:
    """The server's reply; 451 in its place where it refuses for want of the TLS, or of the login, that we took away."""
    if reply.code < 500 or not d.removed.tls or pending.expect not in MADE_TEMPORARY:
        return reply
    if reply.code in {530, 538} or _WANTS_TLS.search(reply.wire):
        instead, lack = answers.SERVER_WANTS_TLS, "TLS"
    elif (
        d.removed.auth and not d.authenticated and pending.expect is not Expect.AUTH and _WANTS_LOGIN.search(reply.wire)
    ):
        instead, lack = answers.SERVER_WANTS_LOGIN, "a login, which is not offered without TLS (AuthWithoutTls)"
    else:
        return reply
    text = f"the server wants {lack}: {shown(reply.wire)}; {_EXCEPT.format(server=d.server)}"
    d.log_once(b"530", f"client={d.client}, server={d.server}: {text}", logging.WARNING)
    return instead


def client_leaves(d: Dialogue) -> None:
    """The client goes: one that had no use for a session in clear probably insists on TLS."""
    if d.removed.tls and not d.said_mail and not d.authenticated:
        text = "left without MAIL where STARTTLS is not offered: it probably insists on TLS"
        d.log_once(b"QUIT", f"client={d.client}, server={d.server}: {text}; {_EXCEPT.format(server=d.server)}")
