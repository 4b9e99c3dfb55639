"""Where a chain keeps messages: an interface, and what happens without such a place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from proxsmtp_tp.filters.chain_endings import NO_QUARANTINE
from proxsmtp_tp.filters.verdict import Action, Verdict

if TYPE_CHECKING:
    from proxsmtp_tp.filters.interface import FilterRequest
    from proxsmtp_tp.filters.mail import Mail


class Keeper(Protocol):
    """Keeps messages that are not delivered. The files are complete on disk when a coroutine returns."""

    async def quarantine(self, mail: Mail, request: FilterRequest, reason: str) -> Verdict:
        """Keep the message, as edited. The verdict is QUARANTINE with a 2xx (or the configured) reply, or TEMPFAIL 452
        if there is no space. Raises no OSError.
        """

    async def refused(self, mail: Mail, request: FilterRequest, name: str, verdict: Verdict) -> Verdict:
        """The filter `name` refuses the message: keep a copy if KeepRefused names it. Returns the verdict; a copy that
        cannot be kept never makes it a PASS.
        """


class NoKeeper:
    """Without QuarantineDirectory a quarantine verdict refuses: it never passes the message."""

    async def quarantine(self, _mail: Mail, _request: FilterRequest, reason: str) -> Verdict:
        """Keeper."""
        return Verdict(
            Action.REJECT, NO_QUARANTINE, f"quarantine, but there is no QuarantineDirectory: {reason}", said=reason
        )

    async def refused(self, _mail: Mail, _request: FilterRequest, _name: str, verdict: Verdict) -> Verdict:
        """Keeper."""
        return verdict
