"""The filtering of one message: the part that is the same for all filter types.

The message is stored until it is complete, so that a slow client occupies neither a process nor a connection. Then the
filter starts, at once or when a place is free; FilterTimeout limits it, and there is exactly one verdict. A filter type
defines how it starts, how it finds its verdict, and how it ends.

The owner gets the verdict from the event loop. After that, or after `abort`, further events of the filter are ignored.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from proxsmtp_tp.filters.callbacks import callback
from proxsmtp_tp.filters.clock import Clock
from proxsmtp_tp.filters.endings import Ending, not_stored, trouble
from proxsmtp_tp.filters.spool_space import SpoolFullError
from proxsmtp_tp.filters.verdict import Action

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxsmtp_tp.filters.interface import FilterOwner, FilterRequest
    from proxsmtp_tp.filters.limit import ProcessLimit
    from proxsmtp_tp.filters.mail import Reader
    from proxsmtp_tp.filters.spool import MessageFile, Spool
    from proxsmtp_tp.filters.verdict import Verdict


class Judging(ABC):
    """A FilterRun. Its verdict may come before `finish`. `timeout` is FilterTimeout in seconds."""

    def __init__(
        self,
        limit: ProcessLimit,
        timeout: float,
        request: FilterRequest,
        owner: FilterOwner,
        message: Spool | MessageFile | Reader,
    ) -> None:
        self._limit = limit
        self._timeout = timeout
        self._request = request
        self._owner = owner
        self._message = message
        self._loop = asyncio.get_running_loop()
        self._clock = Clock(self._loop, timeout, self._no_place_in_time)
        self._settled = False
        self._aborted = False

    # For each filter type to implement.

    @abstractmethod
    def _start(self) -> None:
        """Start the filter: this run has a place of `limit`. The place must be given back when the filter has ended."""

    @abstractmethod
    def read(self, size: int) -> bytes:
        """FilterRun. Raises OSError if the judged message cannot be read back completely."""

    @abstractmethod
    def _out_of_time(self) -> None:
        """FilterTimeout has passed: give the verdict."""

    @abstractmethod
    def _let_go(self) -> None:
        """End the filter: nothing more is needed from it. Called once."""

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
        """Do a step that writes to disk; if it fails, give the verdict and return False."""
        try:
            step(*arguments)
        except SpoolFullError as error:
            self._trouble(Ending.SPOOL_FULL, error)
            return False
        except OSError as error:
            self._not_stored(error)
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

    def failed(self, error: Exception) -> None:
        """CallbackOwner: no verdict will come."""
        self._owner.filter_failed(error)

    # The place of `limit`.

    def _enter(self) -> None:
        """Start the filter now, or when a place becomes free."""
        if self._limit.enter(self._granted, self._request.client):
            self._start_anew()
        else:
            self._clock = Clock(self._loop, self._limit.wait(self._timeout), self._no_place_in_time)
            self._clock.start()
            self._owner.filter_waits()

    @callback
    def _granted(self) -> None:
        if self._settled or self._limit.closed:
            self._limit.leave(self._request.client)
        else:
            self._start_anew()

    def _start_anew(self) -> None:
        """Start the filter, with the full FilterTimeout: the time of waiting for a place does not count."""
        self._clock.stop()
        self._clock = Clock(self._loop, self._timeout, self._time_is_up)
        self._clock.start()
        self._start()
        self._owner.filter_started()

    @callback
    def _time_is_up(self) -> None:
        self._out_of_time()

    @callback
    def _no_place_in_time(self) -> None:
        self._trouble(Ending.LINE_TIMED_OUT)

    # The verdict.

    def _trouble(self, ending: Ending, about: object = "") -> None:
        """Give the verdict for an error."""
        self._settle(trouble(ending, about))

    def _not_stored(self, error: OSError) -> None:
        """Give the verdict for a message that TempDirectory does not take or give back."""
        self._settle(not_stored(error))

    def _settle(self, verdict: Verdict) -> None:
        """Set the verdict, unless there is one already. The owner gets it from the event loop."""
        if self._settled:
            return
        self._stop()
        if verdict.action is not Action.PASS:
            self._discard()
        self._loop.call_soon(self._tell_verdict, verdict)

    def _stop(self) -> None:
        self._settled = True
        self._clock.end()
        self._limit.forget(self._granted, self._request.client)
        self._let_go()

    @callback
    def _tell_verdict(self, verdict: Verdict) -> None:
        if not self._aborted:
            self._owner.filter_verdict(verdict)
