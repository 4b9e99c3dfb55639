"""The interface of one filter in a chain: a coroutine for each message.

`judge` gives one Judgement, or raises FilterFailedError (or OSError, TimeoutError, EOFError): then the setting
`failure=` decides, for this message only. Any other exception is a bug and ends the client's connection. It is
cancelled when the verdict is not needed any more (the client left), or when `timeout=` has passed: free everything in
`finally`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from proxsmtp_tp.filters.edits import Edit
from proxsmtp_tp.filters.verdict import Action
from proxsmtp_tp.smtp.replies import Reply

if TYPE_CHECKING:
    from proxsmtp_tp.filters.interface import FilterRequest, PlaceOwner
    from proxsmtp_tp.filters.mail import Mail


class FilterFailedError(Exception):
    """The filter did not judge the message. The text is one line for the log.

    `unreachable`: no address could be connected to. `timed_out`: it was too slow. `reply`: what the client gets with
    failure=tempfail; None: a common one.
    """

    def __init__(
        self, detail: str, *, reply: Reply | None = None, unreachable: bool = False, timed_out: bool = False
    ) -> None:
        super().__init__(detail)
        self.timed_out = timed_out
        self.reply = reply
        self.unreachable = unreachable


class NotAskedError(FilterFailedError):
    """The filter was not asked: no place became free. It says nothing about the filter."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one filter says of one message.

    `reply`: for the client, with REJECT (5xx), TEMPFAIL (4xx, not 421) and DISCARD (2xx); None: a common one. `detail`:
    one line for the log. `said`: the filter's own words about a message that it refused. `errors`: what a command wrote
    to standard error. `edits` count only with PASS, in order. `unjudged`: as in `verdict.Verdict`.
    """

    action: Action = Action.PASS
    reply: Reply | None = None
    detail: str = ""
    said: str = ""
    errors: str = ""
    edits: tuple[Edit, ...] = ()
    unjudged: bool = False


class Member(Protocol):
    """One filter of a chain; one object for each worker, made by a row of `filters.types`."""

    async def judge(self, mail: Mail, request: FilterRequest) -> Judgement:
        """Judge a message. `request.envelope` is as the filters before have edited it; do not change it."""

    def close(self) -> None:
        """The worker ends: close idle connections and end processes, at once. Running `judge` coroutines are
        cancelled."""


class PlacingMember(ABC):
    """A Member that takes and frees the places of `max=` itself, since they are in use until a process or connection
    has ended, after the verdict. It has a clock of its own, too, for the time in place.
    """

    @abstractmethod
    async def judge(self, mail: Mail, request: FilterRequest, owner: PlaceOwner | None = None) -> Judgement:
        """Member. `owner` is told when the message waits for a place, and when it has one; None: nobody is."""

    @abstractmethod
    def close(self) -> None:
        """Member."""
