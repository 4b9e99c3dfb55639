"""The envelope of one message: a new object for each transaction (RFC 5321 section 2.3.1)."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Envelope:
    """Sender and recipients as the server accepted them.

    `sender` is None until MAIL was accepted, and b"" for the null reverse-path `<>`. Addresses have no angle brackets
    and no source route. They have the form of `paths.Path` if the proxy uses them, otherwise the form in which they
    were written. Parameters are verbatim (b"SIZE=1000 BODY=8BITMIME").
    """

    sender: bytes | None = None
    sender_parameters: bytes = b""
    recipients: list[bytes] = field(default_factory=list)
    recipient_parameters: list[bytes] = field(default_factory=list)
