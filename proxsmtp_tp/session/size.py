"""How large a message may be (RFC 1870): MessageSizeLimit, and where messages are kept for a filter the server's SIZE.

Without a filter the server's limit is the server's business: it sees the message as it comes. With one we would keep,
and have judged, what the server has said that it will not take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxsmtp_tp.smtp import answers
from proxsmtp_tp.smtp.replies import SmtpError

if TYPE_CHECKING:
    from proxsmtp_tp.session.dialogue import Dialogue

DIGITS = 20
"""Of a size, at most (RFC 1870 section 3)."""


def limit(d: Dialogue, *, filtered: bool) -> int | None:
    """Octets that a message may have; None: as many as it has."""
    own, servers = d.options.size_limit, d.capabilities.size if filtered else 0
    return min(filter(None, (own, servers)), default=None)


def check_declared(d: Dialogue, parameters: bytes, most: int | None) -> None:
    """SmtpError for a MAIL that declares more. What is no size is the server's to refuse."""
    if most is None:
        return
    for word in parameters.upper().split():
        keyword, _, value = word.partition(b"=")
        if keyword == b"SIZE" and value.isdigit() and (len(value) > DIGITS or int(value) > most):
            shown = value[:DIGITS].decode()
            d.log(f"client={d.client}, server={d.server}: MAIL with SIZE={shown} is refused: the limit is {most}")
            raise SmtpError(answers.DECLARED_TOO_LARGE)
