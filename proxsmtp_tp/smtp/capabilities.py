"""What a server offers, and what of it a client may see (RFC 5321 section 4.1.1.1).

A keyword that is kept is a promise that we can carry its commands; what we cannot carry is taken out here,
cleanly, and its commands are refused by the session. EXTENSIONS is the one table of what stays and what goes.

A keyword that is not in it is kept. An extension adds parameters or verbs (RFC 5321 section 2.2), and both pass: a line
of an unknown verb, with one reply. No unknown verb opens a way for text, since a 3xx to it ends the connection; a
client and a server that agree on something private could hide it in any command, so taking the keyword away would
stop nobody, and break what works without us.

Names: an MTA that finds its own name in the greeting or in the answer to EHLO reports a mail loop. Where
the client did not choose the server itself, the name is hidden, and with it the text behind it, where
servers repeat it (as proxsmtpd 1.10 does).
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from proxsmtp_tp.smtp.commands import AUTH_VERBS
from proxsmtp_tp.smtp.replies import Reply

PASSTHRU_NAME: Final = b"smtp.passthru"
"""The name that hides a server's, as proxsmtpd 1.10 has it."""
FILTERED: Final = b"XFILTERED"
"""What stands for a keyword that was the last line, as proxsmtpd 1.10 has it: the reply keeps its shape."""

_KEYWORD = re.compile(rb"[ \t]*[^ \t=]*")
_HOST_NAME = re.compile(rb"[\w-]+(\.[\w-]+)+")
_SIZE_DIGITS = 20  # RFC 1870 section 3


class Extension(NamedTuple):
    """Where it goes, its `verbs` are refused, and MAIL and RCPT with one of its `parameters` (`NAME`, `NAME=VALUE`)."""

    stays: bool
    why: str
    verbs: tuple[bytes, ...] = ()
    parameters: tuple[bytes, ...] = ()


def _stays(why: str) -> Extension:
    return Extension(True, why)


def _goes(why: str, *verbs: bytes, parameters: tuple[bytes, ...] = ()) -> Extension:
    return Extension(False, why, verbs, parameters)


EXTENSIONS: Final[dict[bytes, Extension]] = {
    # IANA's registry of SMTP service extensions, in its order.
    b"SEND": _stays("MAIL by another name (RFC 821 section 3.4)"),
    b"SOML": _stays("MAIL by another name (RFC 821 section 3.4)"),
    b"SAML": _stays("MAIL by another name (RFC 821 section 3.4)"),
    b"VRFY": _stays("a question: one line, one reply (RFC 5321 section 3.5)"),
    b"EXPN": _stays("a question: one line, one reply (RFC 5321 section 3.5)"),
    b"HELP": _stays("a question: one line, one reply (RFC 5321 section 4.1.1.8)"),
    b"TURN": _goes("client and server change roles: the server's mail would meet no filter (RFC 821)", b"TURN"),
    b"8BITMIME": _stays("message text passes octet by octet (RFC 6152)"),
    b"SIZE": _stays(
        "the server's limit, or MessageSizeLimit where that is lower; checked here where a filter judges (RFC 1870)"
    ),
    b"VERB": _goes("Sendmail's: replies that answer no command, while it works", b"VERB", b"XVRB"),
    b"ONEX": _stays("Sendmail's: says that one message will come, no more"),
    b"CHUNKING": _goes("BDAT has no end-of-data line; messages reach filters by DATA only (RFC 3030)", b"BDAT"),
    b"BINARYMIME": _goes(
        "needs CHUNKING: bare CR, LF and NUL have no safe form in DATA (RFC 3030 section 3)",
        parameters=(b"BODY=BINARYMIME",),
    ),
    b"CHECKPOINT": _goes(
        "resumes a transaction in its middle: a filter would see half a message (RFC 1845)", parameters=(b"TRANSID",)
    ),
    b"DELIVERBY": _stays("parameters pass as they are (RFC 2852)"),
    b"PIPELINING": _stays("every reply goes to its command, so commands may come in groups (RFC 2920)"),
    b"DSN": _stays("parameters pass as they are (RFC 3461)"),
    b"ETRN": _stays("the server sends its mail by another connection: one line, one reply (RFC 1985)"),
    b"ENHANCEDSTATUSCODES": _stays("the server's replies pass as they are; ours have them, too (RFC 2034)"),
    b"STARTTLS": _goes("a message that is encrypted past us cannot be judged (RFC 3207)", b"STARTTLS"),
    b"NO-SOLICITING": _stays("parameters pass as they are (RFC 3865)"),
    b"MTRK": _stays("parameters pass as they are (RFC 3885)"),
    b"SUBMITTER": _stays("parameters pass as they are (RFC 4405)"),
    b"ATRN": _goes("client and server change roles, as with TURN (RFC 2645)", b"ATRN", b"XTRN"),
    b"AUTH": _stays(
        "the exchange passes line by line, unseen (RFC 4954); PLAIN and LOGIN go with STARTTLS (AuthWithoutTls)"
    ),
    b"BURL": _goes("the server would fetch the message itself, past the filter (RFC 4468)", b"BURL"),
    b"FUTURERELEASE": _stays("parameters pass as they are (RFC 4865)"),
    b"CONPERM": _stays("parameters pass as they are (RFC 4141)"),
    b"CONNEG": _stays("replies to RCPT of several lines are one reply (RFC 4141)"),
    b"UTF8SMTP": _goes(
        "obsolete; ALT-ADDRESS names a second address, of which no filter is told (RFC 5336)",
        parameters=(b"ALT-ADDRESS",),
    ),
    b"SMTPUTF8": _stays("addresses pass octet by octet (RFC 6531)"),
    b"MT-PRIORITY": _stays("parameters pass as they are (RFC 6710)"),
    b"RRVS": _stays("parameters pass as they are (RFC 7293)"),
    b"REQUIRETLS": _stays("only with TLS is it offered at all; MAIL with it is refused with 530 (RFC 8689)"),
    b"LIMITS": _stays("of ours, no command counts against a limit of the server's (RFC 9422)"),
    # Drafts, and what servers have of their own.
    b"PIPECONNECT": _goes("commands before EHLO is answered, by what was offered once: without us (Exim 4.95)"),
    b"PIPE_CONNECT": _goes("Exim 4.94's PIPECONNECT"),
    b"X_PIPE_CONNECT": _goes("Exim 4.92's PIPECONNECT"),
    b"PRDR": _goes(
        "answers one message with a reply for each recipient, a verdict is one for all (draft-hall-prdr)",
        parameters=(b"PRDR",),
    ),
    b"XEXDATA": _goes("Courier's PRDR: one reply with a code for each recipient", parameters=(b"EXDATA",)),
    b"XSECURITY": _goes("Courier's REQUIRETLS: there is no TLS to the server", parameters=(b"SECURITY",)),
    b"XVERP": _stays("Courier's and Postfix's: parameters pass as they are"),
    b"XCLIENT": _goes("tells the server who the client is: ours to say, and no client's", b"XCLIENT"),
    b"XREMOTEIP": _goes("Momentum's XCLIENT", b"XREMOTEIP", b"XSETCONTEXT"),
    b"XPROXY": _goes("Exchange's XCLIENT", b"XPROXY"),
    b"XPROXYFROM": _goes("Exchange's XCLIENT", b"XPROXYFROM"),
    b"XPROXYTO": _goes("has the server hand the connection on to another, unseen from there on", b"XPROXYTO"),
    b"XFORWARD": _stays("for clients that may send it (XForwardClients); filters learn what the server accepted"),
    b"X-EXPS": _stays("Exchange's AUTH among its own; LOGIN goes with STARTTLS (AuthWithoutTls)"),
    b"X-ANONYMOUSTLS": _goes("Exchange's STARTTLS among its own", b"X-ANONYMOUSTLS"),
    b"X-LINK2STATE": _goes("Exchange's routing tables: octets that are neither command nor message", b"X-LINK2STATE"),
    b"XEXCH50": _goes("sends binary blocks outside DATA", b"XEXCH50"),
    b"XMESSAGECONTEXT": _goes("sends binary blocks by BDAT before the message", parameters=(b"XMESSAGECONTEXT",)),
    b"XSHADOW": _stays("Exchange's: a copy is a message like another, and is judged"),
    b"XOORG": _stays("Exchange's: parameters pass as they are"),
    b"XRDST": _stays("Exchange's: parameters pass as they are"),
    b"XUSR": _stays("Sendmail's: says that this is a submission, one line, one reply"),
    b"XADR": _stays("Oracle's: a question, one line, one reply"),
    b"XSTA": _stays("Oracle's: a question, one line, one reply"),
    b"XCIR": _stays("Oracle's: a question, one line, one reply"),
    b"XGEN": _stays("Oracle's: a question, one line, one reply"),
}
"""What becomes of each keyword of EHLO, and why. What is not here stays."""

REMOVED: Final[dict[bytes, str]] = {keyword: row.why for keyword, row in EXTENSIONS.items() if not row.stays}
"""Keywords that are taken out, and why."""
REFUSED_VERBS: Final = frozenset(verb for row in EXTENSIONS.values() for verb in row.verbs)
"""Commands of theirs: refused with 502, XCLIENT with 554, MESSAGE_VERBS with 451."""
MESSAGE_VERBS: Final = frozenset({b"BDAT", b"BURL"})
"""Those that bring a message, which a 5xx would bounce: a client may know them from before (Exim's PIPECONNECT)."""
_REFUSED_PARAMETERS = frozenset(word for row in EXTENSIONS.values() for word in row.parameters)


def refused_parameter(parameters: bytes) -> bytes | None:
    """The first of the ESMTP parameters that belongs to an extension which is not offered, as EXTENSIONS has it."""
    for word in parameters.upper().split():
        for known in (word, word.partition(b"=")[0]):
            if known in _REFUSED_PARAMETERS:
                return known
    return None


TLS_KEYWORDS: Final = frozenset({b"STARTTLS", b"X-ANONYMOUSTLS"})
"""Where one of them is taken away, the session has to stay in clear."""
_HIDES_PASSWORD = re.compile(
    rb"(?:SCRAM|GS2|9798|PASSDSS|SRP)(?:-.*)?|GSSAPI|GSS-SPNEGO|EXCHANGEAUTH|KERBEROS_V[45]|NTLM|CRAM-.+|DIGEST-.+|OTP|SKEY"
    rb"|EXTERNAL|ANONYMOUS",
    re.IGNORECASE,
)
"""IANA's SASL mechanisms, and Exchange's, that do not send a password, or a token as good as one, to be read."""


def shows_password(mechanism: bytes) -> bool:
    """Whether who listens can log in with what this SASL mechanism sends (PLAIN, LOGIN, XOAUTH2; one nobody knows)."""
    return _HIDES_PASSWORD.fullmatch(mechanism) is None


class Capabilities:
    """What a server offered in its own words: before anything was taken out.

    `keywords` maps each keyword (upper case) to its parameters (verbatim); `xclient` and `xforward` are the
    attribute names (upper case) of these two, empty where not offered; `size` is the limit of SIZE, 0 for none; `tls`,
    `clear_auth`: it offers STARTTLS, and AUTH by a mechanism that shows the password.
    """

    __slots__ = ("clear_auth", "keywords", "pipelining", "size", "tls", "xclient", "xforward")

    def __init__(self, keywords: dict[bytes, bytes] | None = None) -> None:
        self.keywords = keywords or {}
        self.pipelining = b"PIPELINING" in self.keywords
        self.size = _size(self.keywords.get(b"SIZE", b""))
        self.tls = not TLS_KEYWORDS.isdisjoint(self.keywords)
        offered = self.keywords.get(b"AUTH", b"") + b" " + self.keywords.get(b"X-EXPS", b"")
        self.clear_auth = any(map(shows_password, offered.split()))
        self.xclient = frozenset(self.keywords.get(b"XCLIENT", b"").upper().split())
        self.xforward = frozenset(self.keywords.get(b"XFORWARD", b"").upper().split())


def _split(text: bytes) -> tuple[bytes, bytes]:
    """Keyword (upper case) and parameters of a line; `AUTH=LOGIN`, as before RFC 2554, is AUTH as well."""
    word = _KEYWORD.match(text)
    end = word.end() if word else 0
    return text[:end].strip().upper(), text[end:].strip(b" \t=")


def rewrite_ehlo(
    reply: Reply,
    *,
    hide_name: bytes | None,
    xforward: bool = True,
    clear_auth: bool = True,
    size_limit: int = 0,
) -> tuple[Reply, Capabilities]:
    """The server's answer to EHLO as the client may see it, and what the server offered.

    `hide_name` replaces the server's name and the text behind it on the first line; None leaves it. `xforward`: this
    client may send it. `clear_auth`: mechanisms of AUTH that show the password stay where STARTTLS goes.
    `size_limit`: a limit of our own, 0 for none, that the client sees in SIZE where it is lower. A refusal is returned
    as it is, and so is a reply where nothing was to be done.
    """
    if not reply.positive:
        return reply, Capabilities()
    texts = reply.texts
    keywords: dict[bytes, bytes] = {}
    for text in texts[1:]:
        keyword, parameters = _split(text)
        # A keyword that comes twice (one line for each group of attributes) is offered once, with all of them.
        known = keywords.get(keyword)
        keywords[keyword] = parameters if known is None else known + b" " + parameters
    capabilities = Capabilities(keywords)
    clear_auth = clear_auth or not capabilities.tls
    lines = [_shown(_lowered(text, size_limit), xforward=xforward, clear_auth=clear_auth) for text in texts[1:]]
    kept = [hide_name or texts[0], *(line for line in lines if line is not None)]
    if lines and lines[-1] is None:
        kept.append(FILTERED)
    return (reply if kept == [*texts] else Reply.joined(reply.code, kept)), capabilities


def _size(parameters: bytes) -> int:
    """The limit that SIZE names; 0, and what is no size, is none (RFC 1870 section 4)."""
    words = parameters.split()[:1]
    return int(words[0]) if words and words[0].isdigit() and len(words[0]) <= _SIZE_DIGITS else 0


def _lowered(text: bytes, size_limit: int) -> bytes:
    """The line of SIZE with our own limit, where that is lower."""
    keyword, parameters = _split(text)
    if keyword != b"SIZE" or not size_limit or 0 < _size(parameters) <= size_limit:
        return text
    return b"SIZE %d" % size_limit


def _shown(text: bytes, *, xforward: bool, clear_auth: bool) -> bytes | None:
    """A line as the client may see it; None: not at all."""
    keyword, parameters = _split(text)
    if keyword in REMOVED or (keyword == b"XFORWARD" and not xforward):
        return None
    mechanisms = parameters.split()
    if clear_auth or keyword not in AUTH_VERBS or not any(map(shows_password, mechanisms)):
        return text
    left = b" ".join(mechanism for mechanism in mechanisms if not shows_password(mechanism))
    return text.lstrip()[: len(keyword) + 1] + left if left else None


def hide_greeting(reply: Reply, name: bytes) -> Reply:
    """A greeting, or the answer to HELO, with the server's name and the text behind it replaced.

    Further lines stay (MTAs look for their name in the first), but for the name where they repeat it, as those of
    Postfix's postscreen do. A refusal is returned as it is.
    """
    if not reply.positive:
        return reply
    texts = reply.texts
    own = texts[0].partition(b" ")[0].rstrip(b".")
    if len(texts) > 1 and _HOST_NAME.fullmatch(own):
        again = re.compile(rb"(?<![\w.-])%s(?![\w-]|\.\w)" % re.escape(own), re.IGNORECASE)
        return Reply.joined(reply.code, [name, *(again.sub(name, text) for text in texts[1:])])
    return Reply.joined(reply.code, [name, *texts[1:]])
