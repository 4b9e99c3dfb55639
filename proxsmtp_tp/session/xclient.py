"""Postfix's two commands about other clients: XCLIENT, which we may send, and XFORWARD, which clients may send.

XCLIENT is who the client is: a server that trusts our address must know before it hears of a transaction, so until
`Dialogue.client_known` only BEFORE passes. Any other way to tell it (a PROXY header ahead of the greeting) sets that.
XFORWARD is whom the client acts for: a server that sees our address can not judge who may say so (`may_forward`).

Sources: XCLIENT_README and XFORWARD_README of Postfix; values are xtext (RFC 3461 section 4).
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from proxsmtp_tp.session.state import Expect
from proxsmtp_tp.smtp import xtext
from proxsmtp_tp.smtp.capabilities import rewrite_ehlo

if TYPE_CHECKING:
    from proxsmtp_tp.session.dialogue import Dialogue, PendingReply
    from proxsmtp_tp.smtp.replies import Reply

UNAVAILABLE = b"[UNAVAILABLE]"
VALUE_LIMIT = 255
"""Octets of a value, sent or remembered: a host name's limit (RFC 1035 section 3.1), past which Postfix refuses it."""
BEFORE: Final = frozenset({b"EHLO", b"HELO", b"NOOP", b"RSET", b"QUIT"})
"""Commands that pass before the server knows the client: they leave nothing behind that it would put to our account."""
LINE_LIMIT = 512
"""Octets of a command line that every server reads (RFC 5321 section 4.5.3.1.4)."""
_CONTROL = bytes(63 if octet < 32 or octet == 127 else octet for octet in range(256))


def command(d: Dialogue, pending: PendingReply, reply: Reply) -> bytes | None:
    """The XCLIENT line for this server, or None where it does not offer it.

    After HELO nothing is offered, and support for ADDR is assumed, as the original does; an offer without ADDR is none,
    as the address is what matters. The client chooses its name: it is cut, or left out, so that no name makes the
    server refuse the line and with it the address.
    """
    assumed = pending.expect is Expect.HELO
    offered = frozenset({b"ADDR"}) if assumed else rewrite_ehlo(reply, hide_name=None)[1].xclient
    if b"ADDR" not in offered:
        return None
    given = [b"NAME=" + UNAVAILABLE] if b"NAME" in offered else []
    given.append(b"ADDR=" + (_address(d.client) if d.client else UNAVAILABLE))
    helo = b"HELO=" + xtext.encode(pending.address[:VALUE_LIMIT])
    if b"HELO" in offered and pending.address and len(b" ".join([b"XCLIENT", *given, helo, b""])) < LINE_LIMIT:
        given.append(helo)
    return b"XCLIENT " + b" ".join(given) + b"\r\n"


def _address(client: str) -> bytes:
    return (f"IPV6:{client}" if ":" in client else client).encode()


def may_forward(d: Dialogue) -> bool:
    """Whether this client may send XFORWARD. One on a unix socket is on this host, where the socket's folder guards."""
    networks = d.options.xforward_clients
    if not networks:
        return not d.options.xclient
    return not d.client or any(ip_address(d.client) in network for network in networks)


def remember_xforward(d: Dialogue, line: bytes) -> None:
    """The server accepted this XFORWARD line: filters may know of ADDR and HELO for the next message.

    Control characters become question marks, as in Postfix: a variable of a filter is one line without a NUL.
    """
    for word in line.split()[1:]:
        name, _, value = word.partition(b"=")
        try:
            decoded = xtext.decode(value)[:VALUE_LIMIT].translate(_CONTROL)
        except ValueError:
            continue
        if value.upper() in {UNAVAILABLE, b"[TEMPUNAVAIL]"}:
            decoded = b""
        if name.upper() == b"ADDR":
            d.remote = decoded[5:] if decoded[:5].upper() == b"IPV6:" else decoded
        elif name.upper() == b"HELO":
            d.remote_helo = decoded
