"""How large a message may be (RFC 1870): MessageSizeLimit, and with a filter also the server's SIZE.

Without a filter the server enforces its own limit, because it sees the message as it arrives. With a filter, the proxy
would otherwise store and judge a message that the server refuses afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxsmtp_tp.smtp import answers
from proxsmtp_tp.smtp.replies import SmtpError

if TYPE_CHECKING:
    from proxsmtp_tp.session.dialogue import Dialogue

DIGITS = 20
"""Digits of a SIZE value, at most (RFC 1870 section 3)."""


def limit(d: Dialogue, *, filtered: bool) -> int | None:
    """The largest message in octets; None: no limit."""
    own, servers = d.options.size_limit, d.capabilities.size if filtered else 0
    if own and servers:
        return min(own, servers)
    return own or servers or None


def check_declared(d: Dialogue, parameters: bytes, most: int | None) -> None:
    """Raise SmtpError if MAIL declares a larger size. An invalid SIZE is passed on: the server refuses it."""
    if most is None:
        return
    for word in parameters.upper().split():
        keyword, _, value = word.partition(b"=")
        if keyword == b"SIZE" and value.isdigit() and (len(value) > DIGITS or int(value) > most):
            shown = value[:DIGITS].decode()
            d.log(f"client={d.client}, server={d.server}: MAIL with SIZE={shown} is refused: the limit is {most}")
            raise SmtpError(answers.DECLARED_TOO_LARGE)
