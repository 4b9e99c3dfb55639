"""Postfix's two commands about other clients: XCLIENT, which we may send, and XFORWARD, which clients may send.

Sources: XCLIENT_README and XFORWARD_README of Postfix; values are xtext (RFC 3461 section 4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxsmtp_tp.session.state import Expect
from proxsmtp_tp.smtp import xtext
from proxsmtp_tp.smtp.capabilities import rewrite_ehlo

if TYPE_CHECKING:
    from proxsmtp_tp.session.dialogue import Dialogue, Owed
    from proxsmtp_tp.smtp.replies import Reply

UNAVAILABLE = b"[UNAVAILABLE]"
VALUE_LIMIT = 255
"""Octets of a value that is remembered: a host name's limit (RFC 1035 section 3.1)."""


def command(d: Dialogue, owed: Owed, reply: Reply) -> bytes | None:
    """The XCLIENT line for this server, or None where it does not offer it.

    After HELO nothing is offered, and support for ADDR is assumed, as the original does.
    """
    helo = owed.expect is Expect.HELO
    offered = frozenset({b"ADDR"}) if helo else rewrite_ehlo(reply, hide_name=None)[1].xclient
    values = {b"ADDR": _address(d.client), b"HELO": owed.address}
    given = [name + b"=" + xtext.encode(value) for name, value in values.items() if name in offered and value]
    if b"NAME" in offered:
        given.insert(0, b"NAME=" + UNAVAILABLE)
    return b"XCLIENT " + b" ".join(given) + b"\r\n" if given else None


def _address(client: str) -> bytes:
    return (f"IPV6:{client}" if ":" in client else client).encode()


def remember_xforward(d: Dialogue, line: bytes) -> None:
    """The server accepted this XFORWARD line: filters may know of ADDR and HELO for the next message."""
    for word in line.split()[1:]:
        name, _, value = word.partition(b"=")
        try:
            decoded = xtext.decode(value)[:VALUE_LIMIT]
        except ValueError:
            continue
        if value.upper() in {UNAVAILABLE, b"[TEMPUNAVAIL]"}:
            decoded = b""
        if name.upper() == b"ADDR":
            d.remote = decoded[5:] if decoded[:5].upper() == b"IPV6:" else decoded
        elif name.upper() == b"HELO":
            d.remote_helo = decoded
