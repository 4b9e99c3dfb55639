"""How many handshakes run at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.net.handshake_limits import Busy, Handshake, HandshakeLimits


def begin(limits: HandshakeLimits, client: str) -> Handshake:
    place = limits.begin(client)
    assert isinstance(place, Handshake)
    return place


def test_one_client_does_not_take_all_places() -> None:
    limits = HandshakeLimits(4, 2)
    first = begin(limits, "192.0.2.1")
    begin(limits, "192.0.2.1")
    assert limits.begin("192.0.2.1") is Busy.CLIENT
    begin(limits, "192.0.2.2")
    begin(limits, "192.0.2.3")
    assert limits.begin("192.0.2.4") is Busy.WORKER
    first.end()
    first.end()
    assert limits.running == 3
    begin(limits, "192.0.2.1")


def test_a_network_of_64_bits_is_one_client() -> None:
    limits = HandshakeLimits(0, 1)
    begin(limits, "2001:db8::1")
    assert limits.begin("2001:db8::2:1") is Busy.CLIENT
    begin(limits, "2001:db8:0:1::1")


def test_programs_of_this_host_have_no_limit_of_a_client() -> None:
    limits = HandshakeLimits(3, 1)
    for client in ("127.0.0.1", "::1", ""):
        begin(limits, client)
    assert limits.begin("127.0.0.1") is Busy.WORKER


def test_zero_is_no_limit() -> None:
    limits = HandshakeLimits(0, 0)
    for _ in range(1000):
        begin(limits, "192.0.2.1")
    assert limits.running == 1000


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans())))
def test_every_place_comes_back(steps: list[tuple[int, bool]]) -> None:
    limits = HandshakeLimits(5, 3)
    taken: list[Handshake] = []
    for client, more in steps:
        if more and isinstance(place := limits.begin(f"192.0.2.{client}"), Handshake):
            taken.append(place)
        elif taken:
            taken.pop(client % len(taken)).end()
        assert limits.running == len(taken) <= 5
    for place in taken:
        place.end()
    assert limits.running == limits.clients == 0
