"""What a server offers, and what of it a client may see (RFC 5321 section 4.1.1.1).

A keyword that is kept is a promise that we can carry its commands; what we cannot carry is taken out here,
cleanly, and its commands are refused by the session. A keyword nobody knows is kept: it adds parameters or
verbs, and both pass.

Names: an MTA that finds its own name in the greeting or in the answer to EHLO reports a mail loop. Where
the client did not choose the server itself, the name is hidden, and with it the text behind it, where
servers repeat it (as proxsmtpd 1.10 does).
"""

from __future__ import annotations

from typing import Final

from proxsmtp_tp.smtp.replies import Reply

PASSTHRU_NAME: Final = b"smtp.passthru"
"""The name that hides a server's, as proxsmtpd 1.10 has it."""
FILTERED: Final = b"XFILTERED"
"""What stands for a keyword that was the last line, as proxsmtpd 1.10 has it: the reply keeps its shape."""

REMOVED: Final[dict[bytes, str]] = {
    b"STARTTLS": "a message that is encrypted past us cannot be judged",
    b"CHUNKING": "BDAT has no end-of-data line; messages reach filters by DATA only",
    b"BINARYMIME": "needs CHUNKING (RFC 3030 section 3): bare CR, LF and NUL have no safe form in DATA",
    b"CHECKPOINT": "resumes a transaction in its middle (RFC 1845): a filter would see half a message",
    b"XCLIENT": "tells the server who the client is: ours to say, and no client's",
    b"XEXCH50": "sends binary blocks outside DATA",
}
"""Keywords that are taken out, and why. Everything else stays, PIPELINING too."""


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


def rewrite_ehlo(reply: Reply, *, hide_name: bytes | None) -> tuple[Reply, Capabilities]:
    """The server's answer to EHLO as the client may see it, and what the server offered.

    `hide_name` replaces the server's name and the text behind it on the first line; None leaves it. A refusal is
    returned as it is, and so is a reply where nothing was to be done.
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
        removed_last = keyword in REMOVED
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

    Further lines of a greeting stay (MTAs look for their name in the first); a refusal is returned as it is.
    """
    if not reply.positive:
        return reply
    return Reply.joined(reply.code, [name, *reply.texts[1:]])
