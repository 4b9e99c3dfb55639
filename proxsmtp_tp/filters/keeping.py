"""Where a chain keeps messages: an interface, and what happens without such a place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from proxsmtp_tp.filters.chain_endings import NO_QUARANTINE
from proxsmtp_tp.filters.verdict import Action, Verdict

if TYPE_CHECKING:
    from proxsmtp_tp.filters.interface import FilterRequest
    from proxsmtp_tp.filters.mail import Mail
    from proxsmtp_tp.smtp.envelope import Envelope
    from proxsmtp_tp.smtp.replies import Reply


class Keeper(Protocol):
    """Keeps messages that are not delivered. The files are complete on disk when a coroutine returns."""

    async def quarantine(self, mail: Mail, original: FilterRequest, edited: Envelope, *, reason: str) -> Verdict:
        """Keep the message, as edited. `original` has the client's envelope. The verdict is QUARANTINE with a 2xx,
        REJECT with a 5xx (QuarantineReply), or TEMPFAIL 452 if there is no space. Raises no OSError.
        """

    async def refused(
        self, mail: Mail, original: FilterRequest, edited: Envelope, name: str, *, verdict: Verdict
    ) -> Verdict:
        """The filter `name` refuses the message: keep a copy if KeepRefused names it. Returns the verdict; a copy that
        cannot be kept never makes it a PASS.
        """


class OnlySays:
    """FilterMode monitor and try-filter: no message is kept. Only what would happen is said."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    async def quarantine(self, *_message: object, reason: str) -> Verdict:
        """Keeper."""
        action = Action.REJECT if self._reply.code >= 500 else Action.QUARANTINE
        return Verdict(action, self._reply, f"would be kept: {reason}", said=reason or "quarantine")

    async def refused(self, *_message: object, verdict: Verdict) -> Verdict:
        """Keeper."""
        return verdict


class NoKeeper:
    """Without QuarantineDirectory a quarantine verdict refuses: it never passes the message."""

    async def quarantine(self, *_message: object, reason: str) -> Verdict:
        """Keeper."""
        text = f"quarantine, but there is no QuarantineDirectory: {reason}"
        return Verdict(Action.REJECT, NO_QUARANTINE, text, said=reason or "quarantine")

    async def refused(self, *_message: object, verdict: Verdict) -> Verdict:
        """Keeper."""
        return verdict
