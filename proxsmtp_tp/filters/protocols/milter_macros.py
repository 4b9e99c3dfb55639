"""Macros: what a milter can ask about connection and message (sendmail's cf/README, MILTER_README of Postfix).

Each stage has a default list; a filter may name another list in the negotiation. A macro without a value is not sent.
"""

from __future__ import annotations

import functools
from itertools import chain
from typing import TYPE_CHECKING, Final

from proxsmtp_tp.filters.protocols.milter_options import Stage
from proxsmtp_tp.filters.protocols.milter_packets import SENT_LIMIT, Command, packet, strings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_CONNECT: Final = (
    *(b"j", b"_", b"v", b"b", b"r", b"s", b"Z", b"{daemon_name}", b"{daemon_addr}", b"{daemon_port}"),
    *(b"{if_name}", b"{if_addr}", b"{client_addr}", b"{client_port}", b"{client_name}", b"{client_ptr}"),
    b"{client_resolve}",
)
_HELO: Final = (*(b"{tls_version}", b"{cipher}", b"{cipher_bits}", b"{cert_subject}", b"{cert_issuer}", b"{verify}"),)
_MAIL: Final = (
    *(b"i", b"{auth_type}", b"{auth_authen}", b"{auth_ssf}", b"{auth_author}"),
    *(b"{mail_mailer}", b"{mail_host}", b"{mail_addr}"),
)
_RCPT: Final = (b"i", b"b", b"r", b"s", b"Z", b"_", b"j", b"v", b"{rcpt_mailer}", b"{rcpt_host}", b"{rcpt_addr}")
_TEXT: Final = (b"i", b"{msg_id}", b"{auth_type}", b"{auth_authen}")

DEFAULT: Final[dict[Stage, tuple[bytes, ...]]] = {
    Stage.CONNECT: _CONNECT,
    Stage.HELO: _HELO,
    Stage.MAIL: _MAIL,
    Stage.RCPT: _RCPT,
    Stage.DATA: _TEXT,
    Stage.END_OF_HEADER: _TEXT,  # the same as END: libmilter before 8.17.2 confuses the two
    Stage.END: _TEXT,
}
"""What is sent if a filter names no list: sendmail's default, and what spamass-milter and amavisd-milter read."""

_KNOWN: Final = frozenset(name for names in DEFAULT.values() for name in names)

_NOTHING: Final[dict[bytes, bytes]] = {}

_CODES: Final = {
    Stage.CONNECT: Command.CONNECT,
    Stage.HELO: Command.HELO,
    Stage.MAIL: Command.MAIL,
    Stage.RCPT: Command.RCPT,
    Stage.DATA: Command.DATA,
    Stage.END_OF_HEADER: Command.END_OF_HEADER,
    Stage.END: Command.END,
}


def macros_packet(
    stage: Stage,
    chosen: Mapping[Stage, tuple[bytes, ...]],
    values: Mapping[bytes, bytes],
    made: dict[Stage, bytes] | None = None,
    address: Mapping[bytes, bytes] = _NOTHING,
) -> bytes:
    """The packet with the macros of a stage; b"" if none has a value. It is sent also if the event itself is not sent.

    `address`: those of the sender or of a recipient, which come last. `made`: payloads of the others, which this
    function keeps for the same `chosen` and `values`.
    """
    names = chosen[stage] if stage in chosen else DEFAULT[stage]
    payload = made.get(stage) if made is not None else None
    if payload is None:
        if stage is Stage.CONNECT and stage not in chosen:
            names = (*names, *(name for name in values if name not in _KNOWN))  # of MilterMacro
        payload = _payload([(name, values[name]) for name in names if name in values and name not in address])
        if made is not None:
            made[stage] = payload
    if address:
        payload += _payload([(name, value) for name, value in address.items() if name in names])
        if len(payload) >= SENT_LIMIT:
            payload = _cut([(name, {**values, **address}[name]) for name in names if name in values or name in address])
    return packet(Command.MACRO, _CODES[stage] + payload) if payload else b""


def _payload(pairs: list[tuple[bytes, bytes]]) -> bytes:
    payload = strings(*chain.from_iterable(pairs)) if pairs else b""
    return payload if len(payload) < SENT_LIMIT else _cut(pairs)


def _cut(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The macros that fit into a packet after the code of the stage."""
    payload = b""
    for name, value in pairs:
        pair = strings(name, value)
        if len(payload) + len(pair) < SENT_LIMIT:
            payload += pair
    return payload


def sender_values(address: bytes) -> dict[bytes, bytes]:
    """The macros about the sender. The mailer is always SMTP: we deliver to no mailbox."""
    return _address_values(b"mail", address)


def recipient_values(address: bytes) -> dict[bytes, bytes]:
    """The macros about a recipient."""
    return _address_values(b"rcpt", address)


@functools.lru_cache(1024)
def _address_values(kind: bytes, address: bytes) -> dict[bytes, bytes]:
    host = address.rpartition(b"@")[2]
    return {
        b"{%s_mailer}" % kind: b"esmtp",
        b"{%s_host}" % kind: host,
        b"{%s_addr}" % kind: address,
    }
