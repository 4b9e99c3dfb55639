"""Every reply that the proxy gives itself, in one table (RFC 5321 section 4.2.3; enhanced codes: RFC 3463, RFC 5248).

Log, tests and documentation use the names of this table.
"""

from __future__ import annotations

from typing import Final

from proxsmtp_tp.smtp.replies import Reply

# Lines that are no valid command line (RFC 5321 sections 2.3.8 and 4.1.1).
COMMAND_UNRECOGNIZED: Final = Reply.of(500, "5.5.2 Error: command not recognized")
COMMAND_BARE_LF: Final = Reply.of(500, "5.5.2 Error: bare <LF> received, command lines end with <CR><LF>")
COMMAND_BARE_CR: Final = Reply.of(500, "5.5.2 Error: bare <CR> received, command lines end with <CR><LF>")
COMMAND_NUL: Final = Reply.of(500, "5.5.2 Error: NUL in a command line")
LINE_TOO_LONG: Final = Reply.of(500, "5.5.2 Error: line too long")
LONG_AUTH_SYNTAX: Final = Reply.of(501, "5.5.2 Error: a login line of this length is base64, outside of a transaction")

# Arguments of MAIL and RCPT.
SENDER_SYNTAX: Final = Reply.of(501, "5.1.7 Bad sender address syntax")
RECIPIENT_SYNTAX: Final = Reply.of(501, "5.1.3 Bad recipient address syntax")
MAIL_SYNTAX: Final = Reply.of(501, "5.5.4 Syntax: MAIL FROM:<address>")
RCPT_SYNTAX: Final = Reply.of(501, "5.5.4 Syntax: RCPT TO:<address>")
PARAMETER_SYNTAX: Final = Reply.of(555, "5.5.4 Error: what follows the address is no ESMTP parameter")
NO_ARGUMENT: Final = Reply.of(501, "5.5.4 Syntax: DATA takes no argument")
TOO_MANY_RECIPIENTS: Final = Reply.of(452, "4.5.3 Too many recipients: send the rest in another transaction")
NO_REQUIRETLS: Final = Reply.of(
    530, "5.7.10 REQUIRETLS can not be honoured through this proxy"
)  # RFC 8689 section 4.2.1

# Commands and parameters that are not supported.
# A client may use an extension that it remembers from a session without this proxy. Then a command that carries a
# message is refused with 451, and a parameter with 455 (RFC 5321 section 4.2.3): the client tries again, and no mail
# bounces.
NOT_OFFERED: Final = Reply.of(502, "5.5.1 Error: command not implemented")
NO_TLS: Final = Reply.of(502, "5.5.1 Error: TLS is not available through this mail filter")
USE_DATA: Final = Reply.of(451, "4.5.1 Error: not offered through this mail filter, say EHLO again and use DATA")
PARAMETER_NOT_OFFERED: Final = Reply.of(455, "4.5.4 Error: parameter not offered here, say EHLO again and go without")
XCLIENT_REFUSED: Final = Reply.of(554, "5.7.0 Error: not authorized to use XCLIENT")
XFORWARD_REFUSED: Final = Reply.of(554, "5.7.0 Error: not authorized to use XFORWARD")
EHLO_FIRST: Final = Reply.of(503, "5.5.1 Error: send EHLO or HELO first")
LMTP_REFUSED: Final = Reply.of(500, "5.5.1 Error: this is SMTP, LMTP is not carried: use EHLO")
BAD_CHUNK_SIZE: Final = Reply.of(501, "5.5.4 Syntax: BDAT needs a chunk size")

# In sessions in which STARTTLS is removed.
AUTH_NEEDS_TLS: Final = Reply.of(
    454, "4.7.0 This login would show the password: it needs TLS, which is not available through this mail filter"
)  # RFC 4954 section 6
SERVER_WANTS_TLS: Final = Reply.of(451, "4.7.0 The server wants TLS, which is not available through this mail filter")
SERVER_WANTS_LOGIN: Final = Reply.of(
    451, "4.7.0 The server wants a login, which needs TLS, which is not available through this mail filter"
)

# In sessions in which the server's leg must have TLS (UpstreamTls; the enhanced codes are those of Postfix).
UPSTREAM_TLS_NOT_OFFERED: Final = Reply.of(451, "4.7.4 TLS is required, but the server does not offer it")
UPSTREAM_TLS_FAILED: Final = Reply.of(451, "4.7.5 TLS is required, but TLS with the server failed")
UPSTREAM_NOT_VERIFIED: Final = Reply.of(451, "4.7.5 The certificate of the server is not verified")
UPSTREAM_TLSA_UNKNOWN: Final = Reply.of(451, "4.7.5 The TLSA records of the server can not be looked up")

# STARTTLS, where it is offered.
TLS_ALREADY: Final = Reply.of(503, "5.5.1 Error: TLS is already active")
TLS_NOT_OFFERED: Final = Reply.of(502, "5.5.1 Error: the server does not offer STARTTLS")
STARTTLS_SYNTAX: Final = Reply.of(501, "5.5.4 Syntax: STARTTLS takes no argument")
TLS_BUSY: Final = Reply.of(454, "4.7.0 Too many TLS handshakes at once, try again later")
TLS_REFUSED: Final = Reply.of(554, "5.7.1 TLS is refused here")
BEHIND_STARTTLS: Final = Reply.of(
    421, "4.5.0 Closing: STARTTLS must be the last command of a group"
)  # RFC 3207 section 4
SERVER_BEHIND_STARTTLS: Final = Reply.of(421, "4.7.0 The server sends octets behind its reply to STARTTLS, closing")

# The message.
START_DATA: Final = Reply.of(354, "Start mail input; end with <CRLF>.<CRLF>")
BARE_NEWLINE_IN_TEXT: Final = Reply.of(550, "5.5.2 Message contains bare <CR> or <LF>")
FILTER_FAILED: Final = Reply.of(451, "4.3.0 The filter did not judge the whole message, try again later")
ANSWER_TOO_LATE: Final = Reply.of(451, "4.4.7 The message could not be checked and sent in time, try again later")
DECLARED_TOO_LARGE: Final = Reply.of(552, "5.3.4 Message size exceeds fixed limit")  # RFC 1870 section 6.1
MESSAGE_TOO_LARGE: Final = Reply.of(552, "5.3.4 Error: the message is larger than the size limit")  # section 6.3
SPOOL_FAILED: Final = Reply.of(451, "4.3.0 The checked message can not be read back, try again later")

# The end of the connection: RFC 5321 section 3.8 requires 421 before a close that the client did not request.
RESET: Final = Reply.of(250, "2.0.0 Ok")  # for an RSET that need not be sent, because we have just sent one
BYE: Final = Reply.of(221, "2.0.0 Bye")
TOO_MANY_ERRORS: Final = Reply.of(421, "4.7.0 Error: too many errors")
CLOSING_OUT_OF_STEP: Final = Reply.of(421, "4.5.0 Closing: what follows BDAT can not be told from commands")
CLOSING_BARE_LF: Final = Reply.of(421, "4.5.0 Closing: what follows a bare <LF> can not be told from commands")
OUT_OF_STEP: Final = Reply.of(421, "4.3.0 The server's replies do not fit the commands, closing")
XCLIENT_NOT_OFFERED: Final = Reply.of(421, "4.3.5 The server does not offer XCLIENT to this mail filter, closing")
XCLIENT_NOT_ACCEPTED: Final = Reply.of(421, "4.3.5 The server does not accept XCLIENT from this mail filter, closing")
SERVER_LOST: Final = Reply.of(421, "4.4.2 Lost connection with the server")
SERVER_TIMED_OUT: Final = Reply.of(421, "4.4.2 The server did not answer in time")
CLIENT_TIMED_OUT: Final = Reply.of(421, "4.4.2 Error: timeout exceeded")
FILTER_TIMED_OUT: Final = Reply.of(421, "4.3.0 The message could not be judged in time, try again later")
MESSAGE_TIMED_OUT: Final = Reply.of(421, "4.4.2 Error: the message took too long")
SESSION_TOO_LONG: Final = Reply.of(421, "4.4.2 The connection has lasted too long, connect again")
SHUTTING_DOWN: Final = Reply.of(421, "4.3.2 Service shutting down, try again later")
CLOSED_BY_ADMINISTRATOR: Final = Reply.of(421, "4.3.2 Connection closed by an administrator, try again later")
INTERNAL_ERROR: Final = Reply.of(421, "4.3.0 Internal error, try again later")
NO_DESTINATION: Final = Reply.of(421, "4.4.6 This is a transparent proxy: there is no server behind this connection")
DESTINATION_REFUSED: Final = Reply.of(421, "4.7.1 This is a transparent proxy: it does not relay to this address")
CLIENT_NOT_SERVED: Final = Reply.of(554, "5.7.1 Access denied: not one of the clients of this proxy")
TOO_MANY_OF_CLIENT: Final = Reply.of(421, "4.7.0 Too many connections from your address, try again later")
TOO_MANY_CONNECTIONS: Final = Reply.of(421, "4.7.0 Too many connections, try again later")


def closing(reply: Reply) -> Reply:
    """The same words with 421, because the connection ends with it."""
    return Reply.of(421, *reply.texts)


def server_leaves(words: str) -> Reply:
    """The server ends the session between two messages; `words` is the text of its reply."""
    return Reply.of(421, f"4.4.2 The server ends the session: {words}")


def unreachable(reason: str) -> Reply:
    """The reply in place of a greeting if there is no connection to the server. `reason` names address and error."""
    return Reply.of(421, f"4.4.1 No connection to the server: {reason}")


LIMITED: Final = {
    "ClientConnections": "Too many connections from your address at once",
    "ClientConnectionRate": "Too many connections from your address",
    "ClientServers": "Your address has connected to too many servers",
    "ClientMessages": "Too many messages from your address",
    "ClientRecipients": "Too many recipients from your address",
    "ClientRejects": "Servers have refused too many recipients of your address",
    "ClientSpam": "Too many messages from your address were refused",
}
"""The text of the reply, by the directive of the limit."""


def limited(code: int, directive: str, seconds: int) -> Reply:
    """The client has reached the limit `directive`, which admits one more event in `seconds` (0: not known)."""
    when = f"in {seconds} s" if seconds else "later"
    return Reply.of(code, f"4.7.1 {LIMITED[directive]} ({directive}), try again {when}")


def locked(code: int, client: str, until: str, reason: str) -> Reply:
    """The client is locked. `reason` is a directive, or `administrator`."""
    return Reply.of(code, f"{code // 100}.7.1 {client} is locked until {until} ({reason})")
