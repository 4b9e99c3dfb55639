"""The envelope of one message: a new object for each transaction (RFC 5321 section 2.3.1)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, init=False)
class Envelope:
    """Sender and recipients as the server accepted them.

    `sender` is None until MAIL was accepted, and b"" for the null reverse-path `<>`. Addresses have no angle brackets
    and no source route. They have the form of `paths.Path` if the proxy uses them, otherwise the form in which they
    were written. Parameters are verbatim (b"SIZE=1000 BODY=8BITMIME").
    """

    sender: bytes | None
    sender_parameters: bytes
    recipients: list[bytes]
    recipient_parameters: list[bytes]

    def __init__(
        self,
        sender: bytes | None = None,
        sender_parameters: bytes = b"",
        recipients: list[bytes] | None = None,
        recipient_parameters: list[bytes] | None = None,
    ) -> None:
        """None: a new list."""
        self.sender = sender
        self.sender_parameters = sender_parameters
        self.recipients = [] if recipients is None else recipients
        self.recipient_parameters = [] if recipient_parameters is None else recipient_parameters
