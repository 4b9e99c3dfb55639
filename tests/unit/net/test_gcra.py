"""The rate limit: the burst and the rate are exact, whatever is asked and when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.net.gcra import SECOND, Rate

RATES = st.tuples(st.integers(1, 1000), st.integers(1, 86400), st.integers(1, 50))
PAUSES = st.lists(st.one_of(st.integers(0, 1000), st.integers(0, 3600 * SECOND)), max_size=120)


def admitted(rate: Rate, pauses: list[int]) -> list[int]:
    """When events are admitted, if one is tried after each pause."""
    state, now, times = 0, 10**15, []
    for pause in pauses:
        now += pause
        if not rate.wait(state, now):
            state = rate.after(state, now)
            times.append(now)
    return times


@given(RATES, PAUSES)
def test_never_more_than_the_burst_and_the_rate_in_any_interval(
    given_rate: tuple[int, int, int], pauses: list[int]
) -> None:
    count, seconds, burst = given_rate
    times = admitted(Rate.of(count, seconds, burst), pauses)
    for first, start in enumerate(times):
        for last in range(first, len(times)):
            assert (last - first + 1 - burst) * seconds * SECOND <= count * (times[last] - start)


@given(RATES)
def test_the_burst_and_then_the_rate_are_admitted(given_rate: tuple[int, int, int]) -> None:
    rate = Rate.of(*given_rate)
    burst = given_rate[2]
    assert len(admitted(rate, [0] * (burst + 5))) == burst
    assert len(admitted(rate, [0] * burst + [rate.interval] * 20)) == burst + 20
    assert len(admitted(rate, [0] * burst + [rate.interval - 1])) == burst


@given(RATES, PAUSES, st.integers(0, 10**14))
def test_the_time_to_wait_is_exact(given_rate: tuple[int, int, int], pauses: list[int], pause: int) -> None:
    rate = Rate.of(*given_rate)
    state, now = 0, 10**15
    for step in pauses:
        now += step
        if not rate.wait(state, now):
            state = rate.after(state, now)
    now += pause
    wait = rate.wait(state, now)
    assert not rate.wait(state, now + wait)
    assert not wait or rate.wait(state, now + wait - 1) == 1


@given(RATES, st.integers(0, 60))
def test_what_is_used_is_shown(given_rate: tuple[int, int, int], events: int) -> None:
    rate, burst, state, now = Rate.of(*given_rate), given_rate[2], 0, 10**15
    for _ in range(min(events, burst)):
        state = rate.after(state, now)
    assert rate.used(state, now) == min(events, burst)
    assert rate.used(state, now + 400 * 86400 * SECOND * 100) == 0


def test_a_limit_that_was_made_faster_is_in_force_at_once() -> None:
    slow, fast, now = Rate.of(1, 86400, 1), Rate.of(60, 60, 2), 10**15
    state = slow.after(0, now)
    assert slow.wait(state, now) == 86400 * SECOND
    assert fast.wait(state, now) == SECOND


def test_an_event_may_count_as_more_or_less_than_one() -> None:
    rate, now = Rate.of(10, 60, 4), 10**15
    assert rate.used(rate.after(0, now, 3.0), now) == 3
    assert rate.after(0, now, 0.5) - now == rate.interval // 2
    assert rate.after(0, now, 1.0) == rate.after(0, now)
    assert rate.after(0, now, 0.0) == now


def test_refused_attempts_do_not_count() -> None:
    rate, now = Rate.of(1, 60, 1), 10**15
    state = rate.after(0, now)
    for second in range(60):
        assert rate.wait(state, now + second * SECOND) == (60 - second) * SECOND
    assert not rate.wait(state, now + 60 * SECOND)
