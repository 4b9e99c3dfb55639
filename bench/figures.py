"""Statistics of the bench: medians, spreads, percentiles, and whether two revisions differ by more than noise."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIDENCE = 0.95
"""How often the interval of a median contains the true one."""
FEWEST_ROUNDS = 6
"""With fewer there is no interval of that confidence: 1 - 2 / 2**5 is 0.94."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of one figure over the rounds, and its extremes."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """At least one value."""
        return cls(statistics.median(values), min(values), max(values))

    @property
    def percent(self) -> float:
        """How far the most different round is from the median."""
        return max(self.high - self.median, self.median - self.low) / self.median * 100 if self.median else 0.0


def percentile(values: Sequence[float], percent: float) -> float:
    """The least of the values that `percent` % of them do not exceed (nearest rank). At least one value."""
    rank = math.ceil(len(values) * percent / 100)
    return sorted(values)[max(rank, 1) - 1]


def median_interval(values: Sequence[float]) -> Spread:
    """The median, and the interval that contains the true median with at least the probability CONFIDENCE.

    Of n values in order, the k-th from below and the k-th from above: the true median is outside with the probability
    that fewer than k of n coins show heads, twice. This is true for any distribution of the values. Raises
    ValueError for fewer than FEWEST_ROUNDS.
    """
    count, ordered = len(values), sorted(values)
    if count < FEWEST_ROUNDS:
        raise ValueError(f"an interval needs at least {FEWEST_ROUNDS} rounds, not {count}")
    outside, at = 0.0, 0
    while (outside := outside + 2 * math.comb(count, at) / 2**count) <= 1 - CONFIDENCE:
        at += 1
    return Spread(statistics.median(values), ordered[at - 1], ordered[count - at])


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference of two revisions that ran in pairs: by how many percent the second one's figure is larger."""

    base: float
    now: float
    percent: Spread
    """The median of the pairs, and its interval."""

    @classmethod
    def of(cls, base: Sequence[float], now: Sequence[float]) -> Difference:
        """The figures of each round, in the same order. All of them larger than 0."""
        pairs = [(after / before - 1) * 100 for before, after in zip(base, now, strict=True)]
        return cls(statistics.median(base), statistics.median(now), median_interval(pairs))

    @property
    def within_noise(self) -> bool:
        """Whether the same revision twice could have shown this."""
        return self.percent.low <= 0 <= self.percent.high
