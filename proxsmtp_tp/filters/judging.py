"""One message being judged, whatever judges it: a command, a scanner, or what comes next.

A kind of filter says how it starts, what a verdict takes and how it is let go. Here is what is the same for all: the
message is kept until it is complete, so that a slow client holds neither process nor connection; then what judges
starts, now or when a place is free; FilterTimeout, one verdict, the end.

A run settles once, with a verdict that the owner hears of from the event loop. After that, or after `abort`, nothing
of what still happens matters: no text is taken, and nobody is told.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from proxsmtp_tp.filters.clock import Clock
from proxsmtp_tp.filters.endings import Ending, trouble
from proxsmtp_tp.filters.spool_space import SpoolFullError
from proxsmtp_tp.filters.verdict import Action

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxsmtp_tp.filters.interface import FilterOwner, FilterRequest
    from proxsmtp_tp.filters.limit import ProcessLimit
    from proxsmtp_tp.filters.spool import MessageFile, Spool
    from proxsmtp_tp.filters.verdict import Verdict


class Judging(ABC):
    """A FilterRun: write.., finish, and a verdict, which may come before `finish`. `timeout` in s is FilterTimeout."""

    def __init__(
        self,
        limit: ProcessLimit,
        timeout: float,
        request: FilterRequest,
        owner: FilterOwner,
        message: Spool | MessageFile,
    ) -> None:
        self._limit = limit
        self._timeout = timeout
        self._request = request
        self._owner = owner
        self._message = message
        self._loop = asyncio.get_running_loop()
        self._clock = Clock(self._loop, timeout, self._waited_in_vain)
        self._settled = False
        self._aborted = False

    # What each kind of filter does in its own way.

    @abstractmethod
    def _start(self) -> None:
        """A place of `limit` is ours: start what judges. It gives the place back when it is gone."""

    @abstractmethod
    def read(self, size: int) -> bytes:
        """FilterRun. Raises OSError if the judged message can not be read back to its last octet."""

    @abstractmethod
    def _out_of_time(self) -> None:
        """FilterTimeout is over: settle."""

    @abstractmethod
    def _let_go(self) -> None:
        """Nothing more is wanted of what judges. Called once."""

    def _discard(self) -> None:
        """Free the message. Idempotent."""
        self._message.close()

    # FilterRun.

    def write(self, text: bytes) -> None:
        """FilterRun."""
        if not self._settled:
            self._kept(self._message.write, text)

    def finish(self) -> None:
        """FilterRun."""
        if not self._settled and self._kept(self._message.complete):
            self._enter()

    def _kept(self, step: Callable[..., None], *arguments: object) -> bool:
        """Do something with the message that the disk may refuse."""
        try:
            step(*arguments)
        except SpoolFullError as error:
            self._trouble(Ending.SPOOL_FULL, error)
            return False
        except OSError as error:
            self._trouble(Ending.SPOOL_FAILED, error)
            return False
        return True

    def abort(self) -> None:
        """FilterRun."""
        self._aborted = True
        if not self._settled:
            self._stop()
        self._discard()

    def close(self) -> None:
        """FilterRun."""
        self.abort()

    # The place.

    def _enter(self) -> None:
        """Start what judges: now, or when a place becomes free."""
        if self._limit.enter(self._granted, self._request.client):
            self._start_anew()
        else:
            self._clock.start()

    def _granted(self) -> None:
        if self._settled or self._limit.closed:
            self._limit.leave(self._request.client)
        else:
            self._start_anew()

    def _start_anew(self) -> None:
        """What was waited in line is not what judging takes."""
        self._clock.stop()
        self._clock = Clock(self._loop, self._timeout, self._out_of_time)
        self._clock.start()
        self._start()

    def _waited_in_vain(self) -> None:
        self._trouble(Ending.LINE_TIMED_OUT)

    # The verdict.

    def _trouble(self, ending: Ending, about: object = "") -> None:
        """Settle with what nobody meant."""
        self._settle(trouble(ending, about))

    def _settle(self, verdict: Verdict) -> None:
        """That is the verdict, unless there is one. The owner hears of it from the event loop."""
        if self._settled:
            return
        self._stop()
        if verdict.action is not Action.PASS:
            self._discard()
        self._loop.call_soon(self._tell_verdict, verdict)

    def _stop(self) -> None:
        self._settled = True
        self._clock.stop()
        self._limit.forget(self._granted, self._request.client)
        self._let_go()

    def _tell_verdict(self, verdict: Verdict) -> None:
        if not self._aborted:
            self._owner.filter_verdict(verdict)
