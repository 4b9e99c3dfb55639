"""ClientHellos made by hand (RFC 8446 section 4.1.2), in records of any size."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

X25519 = 0x001D
X25519MLKEM768 = 0x11EC
SHARES = {X25519: 32, X25519MLKEM768: 1216}
"""Octets of a client's key share by group (RFC 7748; draft-ietf-tls-ecdhe-mlkem)."""


def vector(size: int, data: bytes) -> bytes:
    """A vector with a length of `size` octets."""
    return len(data).to_bytes(size, "big") + data


def extension(number: int, data: bytes) -> bytes:
    """One extension."""
    return number.to_bytes(2, "big") + vector(2, data)


def server_name(name: bytes, kind: int = 0) -> bytes:
    """The extension server_name."""
    return extension(0, vector(2, bytes([kind]) + vector(2, name)))


def alpn(*names: bytes) -> bytes:
    """The extension application_layer_protocol_negotiation."""
    return extension(16, vector(2, b"".join(vector(1, name) for name in names)))


def versions(*values: int) -> bytes:
    """The extension supported_versions."""
    return extension(43, vector(1, b"".join(value.to_bytes(2, "big") for value in values)))


def key_shares(*groups: int) -> bytes:
    """The extension key_share, with octets that are no real keys."""
    shares = (group.to_bytes(2, "big") + vector(2, bytes([0xA5]) * SHARES[group]) for group in groups)
    return extension(51, vector(2, b"".join(shares)))


def body(
    extensions: Sequence[bytes] | None,
    *,
    version: int = 0x0303,
    session_id: bytes = bytes(32),
    suites: bytes = b"\x13\x01\x13\x02",
    compression: bytes = b"\0",
) -> bytes:
    """What a ClientHello has behind the header of its handshake message; None: an old one without extensions."""
    start = version.to_bytes(2, "big") + bytes(range(32)) + vector(1, session_id)
    rest = vector(2, suites) + vector(1, compression)
    return start + rest + (b"" if extensions is None else vector(2, b"".join(extensions)))


def message(content: bytes, kind: int = 1) -> bytes:
    """A handshake message."""
    return bytes([kind]) + vector(3, content)


def records(data: bytes, size: int = 1 << 14, *, kind: int = 22, version: int = 0x0301) -> bytes:
    """Records with fragments of `size` octets."""
    fragments = (data[at : at + size] for at in range(0, len(data), size))
    return b"".join(bytes([kind]) + version.to_bytes(2, "big") + vector(2, fragment) for fragment in fragments)


def hello(*extensions: bytes, size: int = 1 << 14) -> bytes:
    """A ClientHello in records with fragments of `size` octets."""
    return records(message(body(extensions)), size)


HYBRID = hello(
    server_name(b"mx.example.org"),
    versions(0x3A3A, 0x0304, 0x0303),
    key_shares(X25519MLKEM768, X25519),
)
"""As Go 1.24 and OpenSSL 3.5 say it: the key shares alone have more octets than a segment of Ethernet."""
