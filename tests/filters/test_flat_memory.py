"""Memory and descriptors stay as they are with a chain of three filters; `bench.flat_memory` runs it for minutes."""

from __future__ import annotations

from bench import flat_memory

SECONDS = 12.0
CONNECTIONS = 40
"""What medians of a few seconds may differ by: 20 sessions. With a descriptor lost for each message it is hundreds."""


def test_some_seconds() -> None:
    samples = flat_memory.run(SECONDS)
    assert samples[-1].messages >= flat_memory.RUN
    before, after = flat_memory.growth(samples)["descriptors"]
    assert after <= before + CONNECTIONS
    before, after = flat_memory.growth(samples)["memory"]
    assert after <= before * 1.1  # caches still fill
    assert samples[-1].filters <= 2 * 16 + 1


def test_a_leak_is_seen() -> None:
    samples = [flat_memory.Sample(at, 100_000 + 200 * at, 100, 0, 0, at) for at in range(60)]
    assert not flat_memory.flat(flat_memory.growth(samples))
    samples = [flat_memory.Sample(at, 100_000, 100 + at, 0, 0, at) for at in range(60)]
    assert not flat_memory.flat(flat_memory.growth(samples))
    samples = [flat_memory.Sample(at, 100_000 + at % 7, 100 + at % 3, 0, 0, at) for at in range(60)]
    assert flat_memory.flat(flat_memory.growth(samples))
