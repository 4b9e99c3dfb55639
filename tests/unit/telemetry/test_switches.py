"""Numbers of the master that workers read without a lock."""

from __future__ import annotations

import os
import signal
import time
from ipaddress import ip_network

import pytest

from proxsmtp_tp.telemetry.switches import TRACED_MAX, Switch, Switches, Traced


def test_a_change_is_seen_by_its_number() -> None:
    switches = Switches()
    before = switches[Switch.CHANGES]
    assert switches[Switch.LOG_LEVEL] == 0
    switches.set(Switch.LOG_LEVEL, 2**64 - 1)
    assert switches[Switch.LOG_LEVEL] == 2**64 - 1
    assert switches[Switch.CHANGES] == before + 1


def test_networks_are_read_as_they_were_set() -> None:
    switches = Switches()
    assert switches.traced() == ()
    given = tuple(Traced(ip_network(f"2001:db8:{n:x}::/48"), n) for n in range(TRACED_MAX))
    switches.set_traced(given)
    assert switches.traced() == given
    with pytest.raises(ValueError, match="16 networks"):
        switches.set_traced((*given, given[0]))
    switches.set_traced(())
    assert switches.traced() == ()


def test_what_is_read_during_a_change_is_never_a_mixture() -> None:
    """Another process changes the networks all the time."""
    switches = Switches()
    sets = [
        tuple(Traced(ip_network(f"2001:db8:{n:x}::/48"), n) for n in range(1, 16)),
        (Traced(ip_network("192.0.2.0/24"), 10**18),),
        (),
    ]
    writer = os.fork()
    if writer == 0:
        while True:
            for each in sets:
                switches.set_traced(each)
    try:
        seen: set[tuple[Traced, ...] | None] = set()
        end = time.monotonic() + 20
        while not seen >= set(sets) and time.monotonic() < end:
            read = switches.traced()
            assert read is None or read in sets
            seen.add(read)
        assert seen >= set(sets), "the writer was never seen at work"
    finally:
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
