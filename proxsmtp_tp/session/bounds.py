"""The part of the state that limits a session: input that waits for the next feed, and counters of refused commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxsmtp_tp.session import effects

if TYPE_CHECKING:
    from proxsmtp_tp.session import events
    from proxsmtp_tp.session.effects import Effect
    from proxsmtp_tp.session.limits import ClientLimits


class Flow:
    """Input that has arrived and waits, because one feed does a limited amount of work, or because a peer is slow."""

    __slots__ = (
        "asked_octets",
        "client_closing",
        "client_full",
        "lines_left",
        "replies_left",
        "server_closing",
        "skip",
    )

    def __init__(self) -> None:
        self.lines_left = False
        """Octets from the client wait for the next feed."""
        self.replies_left = False
        """Octets from the server wait for the next feed."""
        self.client_closing: events.ClientClosed | None = None
        """The client has closed its connection; what it sent before is handled first."""
        self.server_closing = False
        """The server has closed its connection; what it sent before is handled first."""
        self.client_full = False
        """The client does not read its replies, so its commands are not handled."""
        self.asked_octets = 0
        """Octets of the commands that wait for a reply."""
        self.skip = 0
        """Octets of a BDAT chunk that have not arrived yet."""


class Refusals:
    """How many commands the proxy has refused itself. Too many of them end the connection."""

    __slots__ = ("behind_mail", "errors", "limits", "mail_limited", "recipients")

    def __init__(self) -> None:
        self.limits: ClientLimits | None = None
        """The limits of the client, over all its connections; None: it has no limits."""
        self.mail_limited = False
        """The last MAIL was refused because of a limit of the client."""
        self.errors = 0
        """Refused commands since the last message that was accepted."""
        self.recipients = 0
        """RCPT commands of this transaction that were refused with 452."""
        self.behind_mail = 0
        """FilterType reject: RCPT and DATA commands since the last MAIL."""


class ReplyJoiner:
    """Joins consecutive replies for the client into one SendClient, without copying them again and again."""

    __slots__ = ("_effect", "_further")

    def __init__(self) -> None:
        self._effect: effects.SendClient | None = None
        self._further: list[bytes] = []
        """Replies after the first one, which is the data of the effect."""

    def add(self, todo: list[Effect], wire: bytes) -> None:
        """Add a reply at the end of the effects. The data of its SendClient is complete after `finish`."""
        if self._effect is not None:
            if todo[-1] is self._effect:
                self._further.append(wire)
                return
            self.finish()
        self._effect = effects.SendClient(wire)
        todo.append(self._effect)

    def finish(self) -> None:
        """Complete the data of the latest SendClient."""
        if self._effect is not None and self._further:
            self._effect.data = b"".join((self._effect.data, *self._further))
            self._further = []
        self._effect = None
