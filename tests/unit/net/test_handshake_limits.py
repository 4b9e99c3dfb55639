"""How many handshakes run at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.net.handshake_limits import HandshakeLimits, Place

OF_WORKER = "too many TLS handshakes at once"
OF_CLIENT = "too many TLS handshakes of this client at once"


def begin(limits: HandshakeLimits, client: str) -> Place:
    place = Place(limits, client)
    assert place.begin() == ""
    return place


def refused(limits: HandshakeLimits, client: str) -> str:
    """Why there is no place; one that was not taken cannot be given back."""
    place, running = Place(limits, client), limits.running
    reason = place.begin()
    place.end()
    assert limits.running == running
    return reason


def test_one_client_does_not_take_all_places() -> None:
    limits = HandshakeLimits(4, 2)
    first = begin(limits, "192.0.2.1")
    begin(limits, "192.0.2.1")
    assert refused(limits, "192.0.2.1") == OF_CLIENT
    begin(limits, "192.0.2.2")
    begin(limits, "192.0.2.3")
    assert refused(limits, "192.0.2.4") == OF_WORKER
    first.end()
    first.end()
    assert limits.running == 3
    begin(limits, "192.0.2.1")


def test_a_connection_has_one_place_at_a_time() -> None:
    limits = HandshakeLimits(2, 1)
    place = begin(limits, "192.0.2.1")
    assert place.begin() == ""
    assert limits.running == 1
    place.end()
    assert place.begin() == ""
    assert limits.running == 1


def test_a_network_of_64_bits_is_one_client() -> None:
    limits = HandshakeLimits(0, 1)
    begin(limits, "2001:db8::1")
    assert refused(limits, "2001:db8::2:1") == OF_CLIENT
    begin(limits, "2001:db8:0:1::1")


def test_programs_of_this_host_have_no_limit_of_a_client() -> None:
    limits = HandshakeLimits(3, 1)
    for client in ("127.0.0.1", "::1", ""):
        begin(limits, client)
    assert refused(limits, "127.0.0.1") == OF_WORKER


def test_zero_is_no_limit() -> None:
    limits = HandshakeLimits(0, 0)
    for _ in range(1000):
        begin(limits, "192.0.2.1")
    assert limits.running == 1000


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans())))
def test_every_place_comes_back(steps: list[tuple[int, bool]]) -> None:
    limits = HandshakeLimits(5, 3)
    taken: list[Place] = []
    for client, more in steps:
        place = Place(limits, f"192.0.2.{client}")
        if more and not place.begin():
            taken.append(place)
        elif taken:
            taken.pop(client % len(taken)).end()
        assert limits.running == len(taken) <= 5
    for place in taken:
        place.end()
    assert limits.running == limits.clients == 0
