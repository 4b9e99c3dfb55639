"""What a server offers, and what of it a client may see (RFC 5321 section 4.1.1.1).

A keyword that is kept is a promise that we can carry its commands; what we cannot carry is taken out here,
cleanly, and its commands are refused by the session. EXTENSIONS is the one table of what stays and what goes; a
keyword that is not in it is kept: it adds parameters or verbs, and both pass.

Names: an MTA that finds its own name in the greeting or in the answer to EHLO reports a mail loop. Where
the client did not choose the server itself, the name is hidden, and with it the text behind it, where
servers repeat it (as proxsmtpd 1.10 does).
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from proxsmtp_tp.smtp.replies import Reply

PASSTHRU_NAME: Final = b"smtp.passthru"
"""The name that hides a server's, as proxsmtpd 1.10 has it."""
FILTERED: Final = b"XFILTERED"
"""What stands for a keyword that was the last line, as proxsmtpd 1.10 has it: the reply keeps its shape."""

_HOST_NAME = re.compile(rb"[\w-]+(\.[\w-]+)+")


class Extension(NamedTuple):
    """Where it goes, its `verbs` and a MAIL with one of its `parameters` (`NAME`, `NAME=VALUE`) are refused."""

    stays: bool
    why: str
    verbs: tuple[bytes, ...] = ()
    parameters: tuple[bytes, ...] = ()


def _stays(why: str) -> Extension:
    return Extension(True, why)


def _goes(why: str, *verbs: bytes, parameters: tuple[bytes, ...] = ()) -> Extension:
    return Extension(False, why, verbs, parameters)


EXTENSIONS: Final[dict[bytes, Extension]] = {
    b"PIPELINING": _stays("every reply goes to its command, so commands may come in groups (RFC 2920)"),
    b"SIZE": _stays("the server's limit, which it checks itself (RFC 1870)"),
    b"8BITMIME": _stays("message text passes octet by octet (RFC 6152)"),
    b"DSN": _stays("parameters pass as they are (RFC 3461)"),
    b"ENHANCEDSTATUSCODES": _stays("the server's replies pass as they are; ours have them, too (RFC 2034)"),
    b"SMTPUTF8": _stays("addresses pass octet by octet (RFC 6531)"),
    b"AUTH": _stays("the exchange passes line by line, unseen (RFC 4954)"),
    b"X-EXPS": _stays("Exchange's AUTH among its own"),
    b"ETRN": _stays("a command like another (RFC 1985)"),
    b"VRFY": _stays("a command like another (RFC 5321 section 3.5)"),
    b"LIMITS": _stays("of ours, no command counts against a limit of the server's (RFC 9422)"),
    b"XFORWARD": _stays("for clients that may send it (XForwardClients); filters learn what the server accepted"),
    b"REQUIRETLS": _stays("only with TLS is it offered at all; MAIL with it is refused with 530 (RFC 8689)"),
    b"STARTTLS": _goes("a message that is encrypted past us cannot be judged (RFC 3207)", b"STARTTLS"),
    b"X-ANONYMOUSTLS": _goes("Exchange's STARTTLS among its own", b"X-ANONYMOUSTLS"),
    b"CHUNKING": _goes("BDAT has no end-of-data line; messages reach filters by DATA only (RFC 3030)", b"BDAT"),
    b"BINARYMIME": _goes(
        "needs CHUNKING: bare CR, LF and NUL have no safe form in DATA (RFC 3030 section 3)",
        parameters=(b"BODY=BINARYMIME",),
    ),
    b"BURL": _goes("the server would fetch the message itself, past the filter (RFC 4468)", b"BURL"),
    b"CHECKPOINT": _goes(
        "resumes a transaction in its middle: a filter would see half a message (RFC 1845)", parameters=(b"TRANSID",)
    ),
    b"PRDR": _goes(
        "answers one message with a reply for each recipient, a verdict is one for all (draft-hall-prdr)",
        parameters=(b"PRDR",),
    ),
    b"XCLIENT": _goes("tells the server who the client is: ours to say, and no client's", b"XCLIENT"),
    b"XEXCH50": _goes("sends binary blocks outside DATA", b"XEXCH50"),
}
"""What becomes of each keyword of EHLO, and why. What is not here stays."""

REMOVED: Final[dict[bytes, str]] = {keyword: row.why for keyword, row in EXTENSIONS.items() if not row.stays}
"""Keywords that are taken out, and why."""
REFUSED_VERBS: Final = frozenset(verb for row in EXTENSIONS.values() for verb in row.verbs)
"""Commands of theirs: refused with 502, XCLIENT with 554."""
_REFUSED_PARAMETERS = frozenset(word for row in EXTENSIONS.values() for word in row.parameters)


def refused_parameter(parameters: bytes) -> bytes | None:
    """The first of MAIL's ESMTP parameters that belongs to an extension which is not offered, as EXTENSIONS has it."""
    for word in parameters.upper().split():
        for known in (word, word.partition(b"=")[0]):
            if known in _REFUSED_PARAMETERS:
                return known
    return None


class Capabilities:
    """What a server offered in its own words: before anything was taken out.

    `keywords` maps each keyword (upper case) to its parameters (verbatim); `xclient` and `xforward` are the
    attribute names (upper case) of these two, empty where not offered.
    """

    __slots__ = ("keywords", "pipelining", "xclient", "xforward")

    def __init__(self, keywords: dict[bytes, bytes] | None = None) -> None:
        self.keywords = keywords or {}
        self.pipelining = b"PIPELINING" in self.keywords
        self.xclient = frozenset(self.keywords.get(b"XCLIENT", b"").upper().split())
        self.xforward = frozenset(self.keywords.get(b"XFORWARD", b"").upper().split())


def rewrite_ehlo(reply: Reply, *, hide_name: bytes | None, xforward: bool = True) -> tuple[Reply, Capabilities]:
    """The server's answer to EHLO as the client may see it, and what the server offered.

    `hide_name` replaces the server's name and the text behind it on the first line; None leaves it. `xforward`: this
    client may send it. A refusal is returned as it is, and so is a reply where nothing was to be done.
    """
    if not reply.positive:
        return reply, Capabilities()
    texts = reply.texts
    kept = [hide_name or texts[0]]
    keywords: dict[bytes, bytes] = {}
    removed_last = False
    for text in texts[1:]:
        word, _, rest = text.strip().partition(b" ")
        parameters = rest.lstrip()
        keyword = word.upper()
        # A keyword that comes twice (one line for each group of attributes) is offered once, with all of them.
        known = keywords.get(keyword)
        keywords[keyword] = parameters if known is None else known + b" " + parameters
        removed_last = keyword in REMOVED or (keyword == b"XFORWARD" and not xforward)
        if not removed_last:
            kept.append(text)
    if removed_last:
        kept.append(FILTERED)
    capabilities = Capabilities(keywords)
    if hide_name is None and len(kept) == len(texts) and not removed_last:
        return reply, capabilities
    return Reply.joined(reply.code, kept), capabilities


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
