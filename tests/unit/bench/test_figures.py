"""bench.figures: medians, spreads, percentiles, and when two revisions differ."""

from __future__ import annotations

import math

import pytest

from bench.figures import FEWEST_ROUNDS, Difference, Spread, median_interval, percentile


def test_a_spread_says_how_far_the_farthest_round_is() -> None:
    found = Spread.of([100.0, 90.0, 130.0])
    assert (found.median, found.low, found.high) == (100.0, 90.0, 130.0)
    assert found.percent == pytest.approx(30)
    assert Spread.of([0.0, 0.0]).percent == 0


@pytest.mark.parametrize(
    ("percent", "wanted"), [(50, 50.0), (99, 99.0), (99.5, 100.0), (100, 100.0), (0.5, 1.0)], ids=str
)
def test_a_percentile_is_one_of_the_values(percent: float, wanted: float) -> None:
    assert percentile([float(value) for value in range(100, 0, -1)], percent) == wanted


def test_a_percentile_of_one_value_is_it() -> None:
    assert percentile([7.0], 1) == percentile([7.0], 99) == 7.0


@pytest.mark.parametrize(("count", "outside"), [(6, 0), (8, 0), (9, 1), (11, 1), (12, 2), (15, 3)])
def test_the_interval_of_a_median_leaves_out_what_the_binomial_distribution_says(count: int, outside: int) -> None:
    """With k left out on each side it is wrong with the probability of at most k heads of n coins, twice."""
    wrong = [2 * sum(math.comb(count, heads) for heads in range(k + 1)) / 2**count for k in (outside, outside + 1)]
    assert wrong[0] <= 0.05 < wrong[1]
    found = median_interval([float(value) for value in range(count)])
    assert (found.low, found.high) == (outside, count - 1 - outside)


def test_without_enough_rounds_there_is_no_interval() -> None:
    with pytest.raises(ValueError, match="at least 6 rounds"):
        median_interval([1.0] * (FEWEST_ROUNDS - 1))


def test_a_difference_is_that_of_pairs() -> None:
    """The machine became slower in the run, which hit both of each pair."""
    base = [100.0, 90.0, 80.0, 50.0, 40.0, 30.0]
    found = Difference.of(base, [value * 1.1 for value in base])
    assert found.percent.median == pytest.approx(10)
    assert [found.percent.low, found.percent.high] == pytest.approx([10, 10])
    assert not found.within_noise
    assert [found.base, found.now] == pytest.approx([65.0, 71.5])


def test_what_goes_both_ways_is_noise() -> None:
    assert Difference.of([100.0] * 6, [110.0, 120.0, 130.0, 99.0, 150.0, 140.0]).within_noise
    assert Difference.of([100.0] * 9, [100.0] * 9).within_noise
    # Of nine, one that goes the other way is left out.
    assert not Difference.of([100.0] * 9, [110.0] * 8 + [99.0]).within_noise
