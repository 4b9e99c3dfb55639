"""State that bounds a session: what one feed left for the next, who must wait, what was refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxsmtp_tp.session import effects

if TYPE_CHECKING:
    from proxsmtp_tp.session import events
    from proxsmtp_tp.session.effects import Effect


class Flow:
    """What is here already and waits, only because enough was done in one feed or its receiver takes no more."""

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
        """Octets of the client wait for the next feed."""
        self.replies_left = False
        """Octets of the server do."""
        self.client_closing: events.ClientClosed | None = None
        """The client has closed; what it said before counts first."""
        self.server_closing = False
        """The server has closed; what it said before counts first."""
        self.client_full = False
        """The client does not read: no command of it is acted on."""
        self.asked_octets = 0
        """Of commands that wait for a reply."""
        self.skip = 0
        """Octets of a BDAT chunk still to come."""


class Refusals:
    """Commands that we refused ourselves: what ends a connection in the end."""

    __slots__ = ("behind_mail", "errors", "recipients")

    def __init__(self) -> None:
        self.errors = 0
        """Since the last message that was accepted."""
        self.recipients = 0
        """RCPT of this transaction, with 452."""
        self.behind_mail = 0
        """FilterType reject: RCPT and DATA since the last MAIL, which was refused too."""


class ReplyJoiner:
    """Replies for the client in a row leave as one SendClient, joined once, so that many cost no copies."""

    __slots__ = ("_effect", "_wires")

    def __init__(self) -> None:
        self._effect: effects.SendClient | None = None
        self._wires: list[bytes] = []

    def add(self, todo: list[Effect], wire: bytes) -> None:
        """One more reply at the end of the effects. The data of the effect is complete after `finish`."""
        if self._effect is None or todo[-1] is not self._effect:
            self.finish()
            self._effect = effects.SendClient(b"")
            todo.append(self._effect)
        self._wires.append(wire)

    def finish(self) -> None:
        """Give the latest SendClient its data."""
        if self._effect is not None:
            self._effect.data = b"".join(self._wires)
            self._effect = None
            self._wires = []
