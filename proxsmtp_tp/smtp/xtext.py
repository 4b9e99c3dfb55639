"""xtext, the encoding of octets as printable ASCII in DSN, AUTH=, XCLIENT and XFORWARD (RFC 3461 section 4)."""

from __future__ import annotations

import re

_XTEXT = re.compile(rb"(?:[!-*,-<>-~]|\+[0-9A-Fa-f]{2})*+")
_ESCAPED = re.compile(rb"\+([0-9A-Fa-f]{2})")
_UNSAFE = re.compile(rb"[^!-*,-<>-~]")


def encode(value: bytes) -> bytes:
    """Escape every octet that is no xchar (RFC 3461 section 4): space, controls, 8-bit, plus and equals sign."""
    return _UNSAFE.sub(lambda found: b"+%02X" % found[0][0], value)


def decode(text: bytes) -> bytes:
    """Undo `encode`; lower-case hexadecimal digits are tolerated, as by Postfix. ValueError if it is not xtext."""
    if _XTEXT.fullmatch(text) is None:
        raise ValueError(f"not xtext: {text[:80]!a}")
    return _ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()), text)
