"""One message being judged, whatever judges it: a command, a scanner, or what comes next.

A kind of filter says how it starts, what it does with text, what a verdict takes and how it is let go. Here is what is
the same for all: a place in line for what judges, FilterTimeout, flow towards the owner, one verdict, the end.

A run settles once, with a verdict that the owner hears of from the event loop. After that, or after `abort`, nothing
of what still happens matters: no text is taken, and nobody is told.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from proxsmtp_tp.filters.clock import Clock
from proxsmtp_tp.filters.endings import Ending, trouble
from proxsmtp_tp.filters.verdict import Action

if TYPE_CHECKING:
    from proxsmtp_tp.filters.interface import FilterOwner, FilterRequest
    from proxsmtp_tp.filters.limit import ProcessLimit
    from proxsmtp_tp.filters.verdict import Verdict


class Judging(ABC):
    """A FilterRun: begin, write.., finish, and a verdict at any point of it. `timeout` in seconds is FilterTimeout."""

    def __init__(self, limit: ProcessLimit, timeout: float, request: FilterRequest, owner: FilterOwner) -> None:
        self._limit = limit
        self._timeout = timeout
        self._request = request
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._clock = Clock(self._loop, timeout, self._waited_in_vain)
        self._finished = False
        self._settled = False
        self._aborted = False
        self._paused = False
        self._told_paused = False

    # What each kind of filter does in its own way.

    @abstractmethod
    def begin(self) -> None:
        """The first step, from the filter's `start`."""

    @abstractmethod
    def _start(self) -> None:
        """A place of `limit` is ours: start what judges. It gives the place back when it is gone."""

    @abstractmethod
    def _take(self, text: bytes) -> None:
        """More of the message; none comes after a verdict."""

    @abstractmethod
    def _complete(self) -> None:
        """The message is complete, and there is no verdict yet."""

    @abstractmethod
    def read(self, size: int) -> bytes:
        """FilterRun. Raises OSError if the judged message can not be read back to its last octet."""

    @abstractmethod
    def _out_of_time(self) -> None:
        """FilterTimeout is over: settle."""

    @abstractmethod
    def _let_go(self) -> None:
        """Nothing more is wanted of what judges. Called once."""

    @abstractmethod
    def _discard(self) -> None:
        """Free the message. Idempotent."""

    # FilterRun.

    def write(self, text: bytes) -> None:
        """FilterRun."""
        if not self._settled:
            self._take(text)

    def finish(self) -> None:
        """FilterRun."""
        self._finished = True
        if not self._settled:
            self._complete()

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
        if self._limit.enter(self._granted):
            self._start_anew()
        else:
            self._clock.run()

    def _granted(self) -> None:
        if self._settled or self._limit.closed:
            self._limit.leave()
        else:
            self._start_anew()

    def _start_anew(self) -> None:
        """What was waited in line is not what judging takes."""
        self._clock.stop()
        self._clock = Clock(self._loop, self._timeout, self._out_of_time)
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
        self._limit.forget(self._granted)
        self._let_go()

    def _tell_verdict(self, verdict: Verdict) -> None:
        self._paused = False
        self._tell_flow()
        if not self._aborted:
            self._owner.filter_verdict(verdict)

    # Flow.

    def _set_paused(self, paused: bool) -> None:
        """Whether the owner shall wait with more text. It hears of it from the event loop."""
        if paused != self._paused:
            self._paused = paused
            self._loop.call_soon(self._tell_flow)

    def _tell_flow(self) -> None:
        if self._paused == self._told_paused or self._aborted:
            return
        self._told_paused = self._paused
        if self._paused:
            self._owner.pause_filter_input()
        else:
            self._owner.resume_filter_input()
