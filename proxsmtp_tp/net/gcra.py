"""A rate limit with a burst, in one number: the generic cell rate algorithm (ITU-T I.371, ATM Forum TM 4.0, 4.4.2).

The state is the theoretical arrival time (TAT): the time at which the client will have its whole burst again. Times are
in nanoseconds of one clock. State 0: the client has done nothing.

Guarantee: in any interval of length t at most `burst` + t * rate events are admitted. A refused event changes nothing,
so a client that tries again and again is not refused for a longer time.
"""

from __future__ import annotations

from dataclasses import dataclass

SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Rate:
    """`interval`: nanoseconds between two events in the long run; `tolerance`: how far the TAT may be ahead."""

    interval: int
    tolerance: int

    @classmethod
    def of(cls, count: int, seconds: int, burst: int) -> Rate:
        """`count` events in `seconds`, `burst` of them at once; rounded so that never more are admitted."""
        interval = -(-seconds * SECOND // count)
        return cls(interval, interval * (burst - 1))

    def wait(self, state: int, now: int) -> int:
        """Nanoseconds until one more event would be admitted; 0: now."""
        if state - now <= self.tolerance:  # the usual case, without a second call
            return 0
        return self._current(state, now) - now - self.tolerance

    def after(self, state: int, now: int, weight: float = 1.0) -> int:
        """The state after an event that was admitted; it counts as `weight` events."""
        cost = self.interval if weight == 1.0 else round(self.interval * weight)
        return self._current(state, now) + cost

    def used(self, state: int, now: int) -> int:
        """Events of the burst that are used up; it recovers with the rate."""
        return -(-(self._current(state, now) - now) // self.interval)

    def _current(self, state: int, now: int) -> int:
        """The TAT, not before now. A state that was left by a slower rate counts as a burst that is used up."""
        return max(now, min(state, now + self.tolerance + self.interval))
