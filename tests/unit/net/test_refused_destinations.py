"""Which original destinations are not dialled. Addresses of this host are asked for in tests/gateway."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest

from proxsmtp_tp.net import refused_destinations
from proxsmtp_tp.net.refused_destinations import embedded, why_refused

OWN = "203.0.113.7"
REFUSED = {
    "0.0.0.0": "an unspecified address",
    "0.1.2.3": "an unspecified address",
    "127.0.0.1": "a loopback address",
    "127.255.255.254": "a loopback address",
    "224.0.0.1": "a multicast address",
    "239.255.255.255": "a multicast address",
    "240.0.0.1": "a reserved address",
    "255.255.255.255": "a broadcast address",
    OWN: "an address of this host",
    "::": "the unspecified address",
    "::1": "the loopback address",
    "::2": "an IPv4-compatible address",
    "::127.0.0.1": "an IPv4-compatible address",
    "::ffff:127.0.0.1": "an IPv4-mapped address in an IPv6 packet",
    "::ffff:198.51.100.25": "an IPv4-mapped address in an IPv6 packet",
    "::ffff:0:127.0.0.1": "an IPv4-translated address",
    "ff02::1": "a multicast address",
    "fe80::1": "a link-local address, of a link that is not known",
    "64:ff9b::127.0.0.1": "a way to 127.0.0.1, a loopback address",
    "64:ff9b::0.0.0.0": "a way to 0.0.0.0, an unspecified address",
    f"64:ff9b::{OWN}": f"a way to {OWN}, an address of this host",
    "64:ff9b:1:cb00:71:700::": f"a way to {OWN}, an address of this host",  # RFC 6052: a prefix of 48 bits
    "64:ff9b:1:cb:0:7107::": f"a way to {OWN}, an address of this host",  # 56
    "64:ff9b:1:abcd:cb:71:700:0": f"a way to {OWN}, an address of this host",  # 64
    f"64:ff9b:1::{OWN}": f"a way to {OWN}, an address of this host",  # 96
    "2002:7f00:1::25": "a way to 127.0.0.1, a loopback address",
    "2002:cb00:7107:1::25": f"a way to {OWN}, an address of this host",
    "2001:0:cb00:7107::25": f"a way to {OWN}, an address of this host",  # Teredo: this host is the server
    "2001:0:c633:6419:0:1:34ff:8ef8": f"a way to {OWN}, an address of this host",  # this host is the client
    "2001:db8::5efe:127.0.0.1": "a way to 127.0.0.1, a loopback address",  # ISATAP
    f"2001:db8::200:5efe:{OWN}": f"a way to {OWN}, an address of this host",
}
PASSED = [
    "198.51.100.25", "10.0.0.25", "169.254.0.25", "198.18.254.6", "126.255.255.255", "128.0.0.1", "1.0.0.0",
    "223.255.255.255", "2001:db8:2::25", "2001:2:0:fe02::2", "fd00::25", "64:ff9b::198.51.100.25",
    "64:ff9b:1:c633:64:1900::", "64:ff9b:1::198.51.100.25", "64:ff9b:1::224.0.0.1", "2002:c633:6419::25",
    "2001:0:c633:6419::25", "2001:db8::5efe:198.51.100.25", "fec0::25",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _this_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refused_destinations, "ends_here", lambda address: str(address) == OWN)


@pytest.mark.parametrize("address", REFUSED)
def test_refused(address: str) -> None:
    assert why_refused(address) == REFUSED[address]


@pytest.mark.parametrize("address", PASSED)
def test_passed(address: str) -> None:
    assert why_refused(address) is None


@pytest.mark.parametrize("prefix", ["64:ff9b:1::/48", "64:ff9b:1:3300::/56", "64:ff9b:1:3344::/64"])
def test_the_examples_of_rfc_6052(prefix: str) -> None:
    """Section 2.4, with the prefix of RFC 8215 for that of documentation."""
    examples = {"48": "64:ff9b:1:c000:2:2100::", "56": "64:ff9b:1:33c0:0:221::", "64": "64:ff9b:1:3344:c0:2:2100::"}
    assert "192.0.2.33" in map(str, embedded(IPv6Address(examples[prefix.rpartition("/")[2]])))


def test_a_worker_asks_once_in_a_second_about_one_address(monkeypatch: pytest.MonkeyPatch) -> None:
    now, own = 1000.0, {"198.51.100.25"}
    asked: list[str] = []

    def ends_here(address: object) -> bool:
        asked.append(str(address))
        return str(address) in own

    monkeypatch.setattr(refused_destinations, "ends_here", ends_here)
    monkeypatch.setattr("proxsmtp_tp.net.refused_destinations.time.monotonic", lambda: now)
    recent = refused_destinations.RecentAnswers()
    for _ in range(3):
        assert recent.why_refused("198.51.100.25") == "an address of this host"
        assert recent.why_refused("198.51.100.26") is None
    assert asked == ["198.51.100.25", "198.51.100.26"]
    own = {"198.51.100.26"}
    now += refused_destinations.FRESH
    assert recent.why_refused("198.51.100.25") is None
    assert recent.why_refused("198.51.100.26") == "an address of this host"


def test_a_client_that_asks_for_many_addresses_takes_no_memory() -> None:
    recent = refused_destinations.RecentAnswers()
    for number in range(3 * refused_destinations.KNOWN_MAX):
        recent.why_refused(f"198.51.{number >> 8}.{number & 255}")
        assert len(recent._known) <= refused_destinations.KNOWN_MAX
