"""The pause after repeated failures, in steps."""

from __future__ import annotations

from proxsmtp_tp.filters.breaker import FAILURES, PAUSE_MAX, PAUSE_MIN, Breaker


def test_messages_that_were_asked_before_the_pause_do_not_make_it_longer() -> None:
    """A filter that stops answers none of `max=` messages: all of them fail at about the same time."""
    breaker = Breaker()
    began = [breaker.failed(100.0) for _ in range(16)]
    assert began == [number == FAILURES - 1 for number in range(16)]
    assert not breaker.allows(100.0 + PAUSE_MIN - 0.1)
    assert breaker.allows(100.0 + PAUSE_MIN)


def test_each_failed_trial_doubles_the_pause() -> None:
    breaker, now, pauses = Breaker(), 0.0, []
    for _ in range(FAILURES):
        breaker.failed(now)
    for _ in range(7):
        began = now
        while not breaker.allows(now):
            now += 0.5
        pauses.append(now - began)
        assert not breaker.allows(now)  # one trial
        assert not breaker.failed(now)
    assert pauses == [1, 2, 4, 8, 16, PAUSE_MAX, PAUSE_MAX]
    now += PAUSE_MAX
    assert breaker.allows(now)
    assert breaker.succeeded()
    for _ in range(2 * FAILURES):  # no trial any more
        assert breaker.allows(now)
    for _ in range(FAILURES):
        breaker.failed(now)
    assert not breaker.allows(now + PAUSE_MIN - 0.1)  # the first pause is short again
    assert breaker.allows(now + PAUSE_MIN)
