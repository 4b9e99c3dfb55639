"""A pause after repeated failures of one filter, so that messages do not wait for the timeout of a filter that is down.
Pure.

After FAILURES messages in a row for which the filter could not be reached or was too slow, no message goes to it for a
while, and its `failure=` setting decides at once. Then one message is the trial; until it has ended, nothing changes
for the others.
"""

from __future__ import annotations

FAILURES = 5
"""Failures in a row that start a pause: fewer happen while a filter restarts."""
PAUSE_MIN = 1.0
PAUSE_MAX = 30.0
"""Seconds: the pause doubles with each failed trial. A filter that works again is used again within PAUSE_MAX."""


class Breaker:
    """Of one filter in one worker. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._failures = 0
        self._pause = PAUSE_MIN
        self._retry_at = 0.0
        self._probing = False

    @property
    def open(self) -> bool:
        """Whether no message goes to the filter now."""
        return self._failures >= FAILURES

    def allows(self, now: float) -> bool:
        """Whether a message may go to the filter. With True in a pause the message is the trial: then one of the
        other three methods must be called.
        """
        if not self.open:
            return True
        if self._probing or now < self._retry_at:
            return False
        self._probing = True
        return True

    def succeeded(self) -> bool:
        """The filter answered. True: a pause ends."""
        was_open = self.open
        self._failures = 0
        self._pause = PAUSE_MIN
        self._probing = False
        return was_open

    def failed(self, now: float) -> bool:
        """The filter could not be reached, or was too slow. True: with this failure a pause begins."""
        was_open = self.open
        if was_open and not self._probing:
            return False  # it was asked before the pause: no trial
        self._failures += 1
        self._probing = False
        if not self.open:
            return False
        self._pause = min(PAUSE_MAX, self._pause * 2) if was_open else PAUSE_MIN
        self._retry_at = now + self._pause
        return not was_open

    def undecided(self) -> None:
        """The message left before the filter answered."""
        self._probing = False
