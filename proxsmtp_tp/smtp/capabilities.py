"""Which extensions of the server the client sees in the reply to EHLO (RFC 5321 section 4.1.1.1).

A keyword is kept only if the proxy can carry its commands. Other keywords are removed here, and the session refuses
their commands. EXTENSIONS is the one table of what is kept and what is removed.

An unknown keyword is kept. An extension adds parameters or verbs (RFC 5321 section 2.2), and both pass: an unknown verb
is one line with one reply. It cannot carry a message past the filter, because a 3xx reply to it ends the connection. A
client and a server that agree on something private could hide it in any command, so removing unknown keywords would
prevent nothing, and would break extensions that work without the proxy.

Names: an MTA that finds its own name in the greeting or in the reply to EHLO reports a mail loop. If the client did not
choose the server itself, the server's name is replaced, and the text after it is removed, because some servers repeat
the name there (as proxsmtpd 1.10 does).
"""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache
from typing import Final, NamedTuple

from proxsmtp_tp.smtp.commands import AUTH_VERBS
from proxsmtp_tp.smtp.replies import Reply

PASSTHRU_NAME: Final = b"smtp.passthru"
"""The name that replaces the server's, as in proxsmtpd 1.10."""
FILTERED: Final = b"XFILTERED"
"""What replaces a removed keyword on the last line of the reply, as in proxsmtpd 1.10."""

_KEYWORD = re.compile(rb"[ \t]*[^ \t=]*")
_HOST_NAME = re.compile(rb"[\w-]+(\.[\w-]+)+")
_SIZE_DIGITS = 20  # RFC 1870 section 3

REMEMBERED: Final = 256
"""Replies to EHLO whose result a worker remembers: of the servers that most mail goes to."""
REMEMBERED_OCTETS: Final = 1024
"""The longest reply that is remembered; usual ones have 200 to 400 octets. All together take 2 MiB at most."""


class Extension(NamedTuple):
    """If it is removed, its `verbs` are refused, and so are MAIL and RCPT with one of its `parameters` (`NAME`,
    `NAME=VALUE`).
    """

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
    b"VRFY": _stays("one line, one reply (RFC 5321 section 3.5)"),
    b"EXPN": _stays("one line, one reply (RFC 5321 section 3.5)"),
    b"HELP": _stays("one line, one reply (RFC 5321 section 4.1.1.8)"),
    b"TURN": _goes("client and server change roles: the server's mail would not be filtered (RFC 821)", b"TURN"),
    b"8BITMIME": _stays("message text is passed on unchanged (RFC 6152)"),
    b"SIZE": _stays(
        "the server's limit, or MessageSizeLimit if that is lower; with a filter the proxy checks it (RFC 1870)"
    ),
    b"VERB": _goes("Sendmail's: the server sends replies that answer no command", b"VERB", b"XVRB"),
    b"ONEX": _stays("Sendmail's: announces that only one message will be sent"),
    b"CHUNKING": _goes("BDAT has no end-of-data line; the proxy accepts messages by DATA only (RFC 3030)", b"BDAT"),
    b"BINARYMIME": _goes(
        "needs CHUNKING: bare CR, LF and NUL cannot be sent safely with DATA (RFC 3030 section 3)",
        parameters=(b"BODY=BINARYMIME",),
    ),
    b"CHECKPOINT": _goes(
        "resumes a message in the middle: a filter would see only a part of it (RFC 1845)", parameters=(b"TRANSID",)
    ),
    b"DELIVERBY": _stays("parameters are passed on unchanged (RFC 2852)"),
    b"PIPELINING": _stays("every reply is matched to its command, so commands may be sent in groups (RFC 2920)"),
    b"DSN": _stays("parameters are passed on unchanged (RFC 3461)"),
    b"ETRN": _stays("one line, one reply; the server sends the mail on another connection (RFC 1985)"),
    b"ENHANCEDSTATUSCODES": _stays(
        "the server's replies are passed on; our own replies have enhanced codes too (RFC 2034)"
    ),
    b"STARTTLS": _goes("an encrypted message cannot be filtered (RFC 3207)", b"STARTTLS"),
    b"NO-SOLICITING": _stays("parameters are passed on unchanged (RFC 3865)"),
    b"MTRK": _stays("parameters are passed on unchanged (RFC 3885)"),
    b"SUBMITTER": _stays("parameters are passed on unchanged (RFC 4405)"),
    b"ATRN": _goes("client and server change roles, as with TURN (RFC 2645)", b"ATRN", b"XTRN"),
    b"AUTH": _stays(
        "its lines are passed on unread (RFC 4954); PLAIN and LOGIN are removed with STARTTLS (AuthWithoutTls)"
    ),
    b"BURL": _goes("the server would fetch the message itself, so it would not be filtered (RFC 4468)", b"BURL"),
    b"FUTURERELEASE": _stays("parameters are passed on unchanged (RFC 4865)"),
    b"CONPERM": _stays("parameters are passed on unchanged (RFC 4141)"),
    b"CONNEG": _stays("a reply to RCPT may have several lines (RFC 4141)"),
    b"UTF8SMTP": _goes(
        "obsolete; ALT-ADDRESS names a second address, which filters would not see (RFC 5336)",
        parameters=(b"ALT-ADDRESS",),
    ),
    b"SMTPUTF8": _stays("addresses are passed on unchanged (RFC 6531)"),
    b"MT-PRIORITY": _stays("parameters are passed on unchanged (RFC 6710)"),
    b"RRVS": _stays("parameters are passed on unchanged (RFC 7293)"),
    b"REQUIRETLS": _stays("servers offer it only within TLS; MAIL with REQUIRETLS is refused with 530 (RFC 8689)"),
    b"LIMITS": _stays("commands that the proxy adds do not count against these limits (RFC 9422)"),
    # Drafts, and extensions of single products.
    b"PIPECONNECT": _goes(
        "the client sends commands before the reply to EHLO, based on an earlier session (Exim 4.95)"
    ),
    b"PIPE_CONNECT": _goes("Exim 4.94's PIPECONNECT"),
    b"X_PIPE_CONNECT": _goes("Exim 4.92's PIPECONNECT"),
    b"PRDR": _goes(
        "one reply for each recipient of a message, but a verdict is for the whole message (draft-hall-prdr)",
        parameters=(b"PRDR",),
    ),
    b"XEXDATA": _goes("Courier's PRDR: one reply with a code for each recipient", parameters=(b"EXDATA",)),
    b"XSECURITY": _goes("Courier's REQUIRETLS: there is no TLS to the server", parameters=(b"SECURITY",)),
    b"XVERP": _stays("Courier's and Postfix's: parameters are passed on unchanged"),
    b"XCLIENT": _goes("only the proxy may tell the server the client's address", b"XCLIENT"),
    b"XREMOTEIP": _goes("Momentum's XCLIENT", b"XREMOTEIP", b"XSETCONTEXT"),
    b"XPROXY": _goes("Exchange's XCLIENT", b"XPROXY"),
    b"XPROXYFROM": _goes("Exchange's XCLIENT", b"XPROXYFROM"),
    b"XPROXYTO": _goes("the server would forward the connection to another host, unfiltered", b"XPROXYTO"),
    b"XFORWARD": _stays("for clients that may send it (XForwardClients); filters learn what the server accepted"),
    b"X-EXPS": _stays("Exchange's AUTH between its own servers; LOGIN is removed with STARTTLS (AuthWithoutTls)"),
    b"X-ANONYMOUSTLS": _goes("Exchange's STARTTLS between its own servers", b"X-ANONYMOUSTLS"),
    b"X-LINK2STATE": _goes(
        "Exchange's routing tables: octets that are neither commands nor a message", b"X-LINK2STATE"
    ),
    b"XEXCH50": _goes("sends binary blocks outside DATA", b"XEXCH50"),
    b"XMESSAGECONTEXT": _goes("sends binary blocks by BDAT before the message", parameters=(b"XMESSAGECONTEXT",)),
    b"XSHADOW": _stays("Exchange's: the copy is a message, and is filtered"),
    b"XOORG": _stays("Exchange's: parameters are passed on unchanged"),
    b"XRDST": _stays("Exchange's: parameters are passed on unchanged"),
    b"XUSR": _stays("Sendmail's: announces a submission; one line, one reply"),
    b"XADR": _stays("Oracle's: one line, one reply"),
    b"XSTA": _stays("Oracle's: one line, one reply"),
    b"XCIR": _stays("Oracle's: one line, one reply"),
    b"XGEN": _stays("Oracle's: one line, one reply"),
}
"""Which keywords of EHLO are kept or removed, and why. Others are kept."""

REMOVED: Final[dict[bytes, str]] = {keyword: row.why for keyword, row in EXTENSIONS.items() if not row.stays}
"""Keywords that are removed, and why."""
REFUSED_VERBS: Final = frozenset(verb for row in EXTENSIONS.values() for verb in row.verbs)
"""Verbs of removed extensions: refused with 502, XCLIENT with 554, MESSAGE_VERBS with 451."""
MESSAGE_VERBS: Final = frozenset({b"BDAT", b"BURL"})
"""Verbs that carry a message. A client may remember them from an earlier session (Exim's PIPECONNECT), and a 5xx would
bounce the message."""
_REFUSED_PARAMETERS = frozenset(word for row in EXTENSIONS.values() for word in row.parameters)


def refused_parameter(parameters: bytes) -> bytes | None:
    """The first of these ESMTP parameters that belongs to a removed extension, as it is written in EXTENSIONS."""
    for word in parameters.upper().split():
        for known in (word, word.partition(b"=")[0]):
            if known in _REFUSED_PARAMETERS:
                return known
    return None


TLS_KEYWORDS: Final = frozenset({b"STARTTLS", b"X-ANONYMOUSTLS"})
"""Keywords for encryption. If one is removed, the session stays in clear."""
_HIDES_PASSWORD = re.compile(
    rb"(?:SCRAM|GS2|9798|PASSDSS|SRP)(?:-.*)?|GSSAPI|GSS-SPNEGO|EXCHANGEAUTH|KERBEROS_V[45]|NTLM|CRAM-.+|DIGEST-.+|OTP|SKEY"
    rb"|EXTERNAL|ANONYMOUS",
    re.IGNORECASE,
)
"""SASL mechanisms of IANA's registry, and Exchange's, that send neither a password nor a reusable token in clear."""


def shows_password(mechanism: bytes) -> bool:
    """Whether an eavesdropper can log in with what this SASL mechanism sends: PLAIN, LOGIN, XOAUTH2, or an unknown
    one.
    """
    return _HIDES_PASSWORD.fullmatch(mechanism) is None


class TlsShown(Enum):
    """What the client sees of TLS in the reply to EHLO."""

    REMOVED = "STARTTLS is removed"
    OFFERED = "STARTTLS is kept"
    SERVER_ONLY = "the server's leg has TLS, the client's is in clear: no login of that leg, no REQUIRETLS"
    STARTED = "both legs have TLS, and the server is not verified: no REQUIRETLS"
    VERIFIED = "both legs have TLS, and the server is verified"


def _size(parameters: bytes) -> int:
    """The limit that SIZE names; 0 or an invalid size means no limit (RFC 1870 section 4)."""
    words = parameters.split()[:1]
    return int(words[0]) if words and words[0].isdigit() and len(words[0]) <= _SIZE_DIGITS else 0


class Capabilities:
    """What the server offered, before keywords were removed. Never changed: sessions share it.

    `keywords` maps each keyword (upper case) to its parameters (verbatim); `xclient` and `xforward` are the
    attribute names (upper case) of these two, empty where not offered; `size` is the limit of SIZE, 0 for none; `tls`:
    it offers STARTTLS; `clear_auth`: it offers AUTH with a mechanism that shows the password.
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
    """Keyword (upper case) and parameters of a line; `AUTH=LOGIN`, the form before RFC 2554, is AUTH too."""
    word = _KEYWORD.match(text)
    end = word.end() if word else 0
    return text[:end].strip().upper(), text[end:].strip(b" \t=")


def rewrite_ehlo(  # noqa: PLR0913  (one argument for each thing that is rewritten)
    reply: Reply,
    *,
    hide_name: bytes | None,
    xforward: bool = True,
    clear_auth: bool = True,
    size_limit: int = 0,
    tls: TlsShown = TlsShown.REMOVED,
) -> tuple[Reply, Capabilities]:
    """The server's reply to EHLO as the client may see it, and what the server offered.

    `hide_name` replaces the server's name and the text after it on the first line; None keeps them. `xforward`: keep
    XFORWARD. `clear_auth`: keep AUTH mechanisms that show the password although STARTTLS is removed. `size_limit`: our
    own limit in octets, 0 for none; SIZE shows it if it is lower. `tls`: what is shown of STARTTLS, REQUIRETLS and
    mechanisms that need the client's own TLS with the server. A refusal is returned unchanged, and so is a reply
    without any change.
    """
    if not reply.positive:
        return reply, NO_CAPABILITIES
    name, *offered = reply.texts
    rewrite = _remembered if len(reply.wire) <= REMEMBERED_OCTETS else _rewritten
    kept, capabilities = rewrite(tuple(offered), xforward, clear_auth, size_limit, tls)
    if kept is None and hide_name in {None, name}:
        return reply, capabilities
    return Reply.joined(reply.code, [hide_name or name, *(offered if kept is None else kept)]), capabilities


def _rewritten(
    offered: tuple[bytes, ...], xforward: bool, clear_auth: bool, size_limit: int, tls: TlsShown
) -> tuple[tuple[bytes, ...] | None, Capabilities]:
    """The lines after the first one as the client may see them (None: unchanged), and what was offered."""
    keywords: dict[bytes, bytes] = {}
    for text in offered:
        keyword, parameters = _split(text)
        # If a keyword comes twice (one line for each group of attributes), its parameters are joined.
        known = keywords.get(keyword)
        keywords[keyword] = parameters if known is None else known + b" " + parameters
    capabilities = Capabilities(keywords)
    clear_auth = clear_auth or not capabilities.tls
    lines = [_shown(_lowered(text, size_limit), xforward=xforward, clear_auth=clear_auth) for text in offered]
    if tls is not TlsShown.REMOVED:
        lines = [_shown_with_tls(text, line, tls) for text, line in zip(offered, lines, strict=True)]
    kept = [line for line in lines if line is not None]
    if lines and lines[-1] is None:
        kept.append(FILTERED)
    return (None if kept == [*offered] else tuple(kept)), capabilities


NO_CAPABILITIES: Final = Capabilities()

_remembered = lru_cache(REMEMBERED)(_rewritten)
"""Sessions with servers that offer the same share one result: each is smaller by a kilobyte, and begins sooner."""


def _lowered(text: bytes, size_limit: int) -> bytes:
    """The SIZE line, with our own limit if that is lower."""
    keyword, parameters = _split(text)
    if keyword != b"SIZE" or not size_limit or 0 < _size(parameters) <= size_limit:
        return text
    return b"SIZE %d" % size_limit


def _shown(text: bytes, *, xforward: bool, clear_auth: bool) -> bytes | None:
    """A line as the client may see it; None if it is removed."""
    keyword, parameters = _split(text)
    if keyword in REMOVED or (keyword == b"XFORWARD" and not xforward):
        return None
    mechanisms = parameters.split()
    if clear_auth or keyword not in AUTH_VERBS or not any(map(shows_password, mechanisms)):
        return text
    left = b" ".join(mechanism for mechanism in mechanisms if not shows_password(mechanism))
    return text.lstrip()[: len(keyword) + 1] + left if left else None


def _shown_with_tls(text: bytes, shown: bytes | None, tls: TlsShown) -> bytes | None:
    """The same where STARTTLS is not removed; `shown` is what `_shown` says."""
    keyword, parameters = _split(text)
    if tls is TlsShown.OFFERED:
        return text if keyword == b"STARTTLS" else shown
    if tls is TlsShown.SERVER_ONLY and keyword in AUTH_VERBS:
        return None
    if shown is None or (keyword == b"REQUIRETLS" and tls is not TlsShown.VERIFIED):
        return None
    mechanisms = parameters.split()
    if keyword not in AUTH_VERBS or mechanisms == (left := _over_two_legs(mechanisms)):
        return shown
    return text.lstrip()[: len(keyword) + 1] + b" ".join(left) if left else None


def _over_two_legs(mechanisms: list[bytes]) -> list[bytes]:
    """The SASL mechanisms that work if the client's TLS ends at the proxy.

    EXTERNAL needs the client's own certificate (RFC 4422 appendix A), and -PLUS binds the login to the TLS connection
    (RFC 5802 section 6). A client that could have used -PLUS says so in the same mechanism without it, and the server
    refuses that as a downgrade; so that goes too, if another one is left.
    """
    plus = {name.upper().removesuffix(b"-PLUS") for name in mechanisms if name.upper().endswith(b"-PLUS")}
    left = [name for name in mechanisms if name.upper() != b"EXTERNAL" and not name.upper().endswith(b"-PLUS")]
    return [name for name in left if name.upper() not in plus] or left


def hide_greeting(reply: Reply, name: bytes) -> Reply:
    """A greeting, or the reply to HELO, with the server's name and the text after it replaced.

    Further lines are kept, because MTAs look for their name only in the first; but the name is replaced there too, if
    they repeat it (as Postfix's postscreen does). A refusal is returned unchanged.
    """
    if not reply.positive:
        return reply
    texts = reply.texts
    own = texts[0].partition(b" ")[0].rstrip(b".")
    if len(texts) > 1 and _HOST_NAME.fullmatch(own):
        again = re.compile(rb"(?<![\w.-])%s(?![\w-]|\.\w)" % re.escape(own), re.IGNORECASE)
        return Reply.joined(reply.code, [name, *(again.sub(name, text) for text in texts[1:])])
    return Reply.joined(reply.code, [name, *texts[1:]])
