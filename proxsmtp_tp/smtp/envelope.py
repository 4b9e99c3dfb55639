"""The envelope of one message: replaced for each transaction, never scrubbed (RFC 5321 section 2.3.1)."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Envelope:
    """Sender and recipients as the server accepted them.

    `sender` is None until MAIL was accepted, and b"" for the null reverse-path `<>`. Addresses are without angle
    brackets and source route: in the one notation of `paths.Path` where somebody is told of them, else as they were
    written. Parameters are verbatim (b"SIZE=1000 BODY=8BITMIME").
    """

    sender: bytes | None = None
    sender_parameters: bytes = b""
    recipients: list[bytes] = field(default_factory=list)
    recipient_parameters: list[bytes] = field(default_factory=list)
