"""Postfix's two commands about other clients: XCLIENT, which the proxy sends, and XFORWARD, which clients send.

XCLIENT tells the server the client's address. A server that trusts our own address must know the client's before a
transaction begins, so until `Dialogue.client_known` only the commands in BEFORE are passed on. XFORWARD names the
client of our client. A server that sees only our address cannot decide who may send it, so `may_forward` does. The
proxy itself sends XFORWARD only with IDENT, its trace id (`ident`).

Sources: XCLIENT_README and XFORWARD_README of Postfix; values are xtext (RFC 3461 section 4).
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from proxsmtp_tp.session.state import Expect
from proxsmtp_tp.smtp import xtext
from proxsmtp_tp.smtp.capabilities import rewrite_ehlo

if TYPE_CHECKING:
    from proxsmtp_tp.session.dialogue import Dialogue
    from proxsmtp_tp.session.parts import PendingReply
    from proxsmtp_tp.smtp.replies import Reply

UNAVAILABLE = b"[UNAVAILABLE]"
VALUE_LIMIT = 255
"""Octets of a value, sent or stored: the limit of a host name (RFC 1035 section 3.1). Postfix refuses longer ones."""
BEFORE: Final = frozenset({b"EHLO", b"HELO", b"NOOP", b"RSET", b"QUIT"})
"""Commands that are passed on before the server knows the client: they begin no transaction."""
ATTRIBUTES_MAX = 16
"""Attributes of XFORWARD that are kept: Postfix has eight."""
LINE_LIMIT = 512
"""Octets of a command line that every server reads (RFC 5321 section 4.5.3.1.4)."""
_CONTROL = bytes(63 if octet < 32 or octet == 127 else octet for octet in range(256))


def command(d: Dialogue, pending: PendingReply, reply: Reply) -> bytes | None:
    """The XCLIENT line for this server; None if the server does not offer XCLIENT with ADDR.

    After HELO nothing is offered; then support for ADDR is assumed, as in proxsmtpd 1.10. The HELO name comes from the
    client: a name that is too long is cut or omitted, so that the server does not refuse the line.
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
    """Whether this client may send XFORWARD. A client on a unix socket may: its directory controls the access."""
    networks = d.options.xforward_clients
    if not networks:
        return not d.options.xclient
    return not d.client or any(ip_address(d.client) in network for network in networks)


def ident(d: Dialogue) -> bytes | None:
    """The command that tells the server our trace id for its log, before MAIL; None: it is not sent.

    Only where the server offers XFORWARD with IDENT, and PIPELINING: then it costs no round trip. A client that has
    sent an IDENT of its own for this message has precedence. IDENT alone changes nothing else that the server knows of
    the client (Postfix, smtpd.h, FORWARD_IDENT).
    """
    return None if d.record.open else ident_again(d)


def ident_again(d: Dialogue) -> bytes | None:
    """The same after an RSET of ours, which makes the server forget it."""
    known = d.capabilities
    if b"IDENT" not in known.xforward or not known.pipelining or d.client_ident or d.ident_refused:
        return None
    return b"XFORWARD IDENT=" + d.trace_id.encode() + b"\r\n" if d.trace_id else None


def remember_xforward(d: Dialogue, line: bytes) -> None:
    """The server accepted this XFORWARD line: keep ADDR and HELO for the filter of the next message.

    Control characters become question marks, as in Postfix: an environment variable of a filter is one line without
    NUL.
    """
    for word in line.split()[1:]:
        name, _, value = word.partition(b"=")
        _remember(d, name.upper(), value)
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


def _remember(d: Dialogue, name: bytes, value: bytes) -> None:
    known = dict(d.ours.forwarded)
    if name in known or len(known) < ATTRIBUTES_MAX:
        known[name] = value
        d.ours.forwarded = tuple(known.items())


def lines_again(d: Dialogue) -> list[bytes]:
    """XFORWARD lines with what the client sent for this transaction: RSET makes the server forget it."""
    lines: list[bytes] = []
    for name, value in d.ours.forwarded:
        word = b" " + name + b"=" + value
        if lines and len(lines[-1]) + len(word) + 2 <= LINE_LIMIT:
            lines[-1] += word
        else:
            lines.append(b"XFORWARD" + word)
    return [line + b"\r\n" for line in lines]
