"""However many clients come, what is kept of them takes the same memory (bench/many_clients.py: a million of them)."""

from __future__ import annotations

from bench.many_clients import ALLOWED, grown


def test_memory_is_constant_with_many_networks() -> None:
    octets, run = grown(size=1024, clients=8_000)
    assert octets < ALLOWED
    assert run.table.entries() == run.table.size == 1024
    assert run.table.evictions() == 3 * 1024 + 8_000 - 1024
    assert run.untracked == 0
    assert run._limits.key.cache_info().currsize <= 4096
