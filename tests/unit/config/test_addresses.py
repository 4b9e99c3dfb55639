"""Addresses: what proxsmtpd 1.10 takes (measured) and the IPv6 forms that it lacked."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.config.addresses import InetAddress, UnixAddress, parse_address, parse_port
from proxsmtp_tp.config.reader import ConfigError, parse_config
from proxsmtp_tp.config.socket_names import socket_name

TAKEN = [
    ("10025", InetAddress("", 10025)),
    ("25", InetAddress("", 25)),
    ("192.0.2.1", InetAddress("192.0.2.1", 7)),
    ("192.0.2.1:25", InetAddress("192.0.2.1", 25)),
    ("mail.example", InetAddress("mail.example", 7)),
    ("mail.example:25", InetAddress("mail.example", 25)),
    ("mail.example.:25", InetAddress("mail.example.", 25)),
    ("my_host", InetAddress("my_host", 7)),
    ("[2001:DB8::1]", InetAddress("2001:db8::1", 7)),
    ("[2001:db8:0::1]:25", InetAddress("2001:db8::1", 25)),
    ("[fe80::1%eth0]:25", InetAddress("fe80::1%eth0", 25)),
    ("/run/socket", UnixAddress("/run/socket")),
    ("x/y", UnixAddress("x/y")),
    ("/run/sp ace", UnixAddress("/run/sp ace")),
]

REFUSED = [
    ("", "no host"),
    ("0", "1 to 65535"),
    ("65536", "1 to 65535"),
    ("192.0.2.1:0", "1 to 65535"),
    ("192.0.2.1:x", "1 to 65535"),
    ("192.0.2.1:", "1 to 65535"),
    ("192.0.2.256:25", "no IPv4 address"),
    ("1.2.3", "no IPv4 address"),
    ("::1", r"\[::1\]:7"),
    ("2001:db8::1:25", "in brackets"),
    ("[::1", "no address"),
    ("[::1]25", "no address"),
    ("[192.0.2.1]:25", "no IPv6 address"),
    ("[fe80::1%]:25", "no IPv6 address"),
    ("[fe80::1%a b]:25", "no interface"),
    ("[fe80::1%a\0]:25", "no interface"),
    ("[fe80::1%" + "x" * 16 + "]:25", "no interface"),
    (":25", "no host"),
    ("*:25", "no host name"),
    ("a b", "no host name"),
    ("-a:25", "no host name"),
    ("a..b:25", "no host name"),
    ("local:/run/socket", "path without a colon"),
    ("/" + "x" * 107, "107 bytes"),
    ("/" + "é" * 54, "107 bytes"),
    ("x" * 64 + ":25", "no host name"),
]


@pytest.mark.parametrize(("text", "address"), TAKEN)
def test_taken(text: str, address: object) -> None:
    assert parse_address(text, 7) == address


@pytest.mark.parametrize(("text", "why"), REFUSED)
def test_refused_with_the_fix(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_address(text, 7)


@pytest.mark.parametrize(("text", "address"), TAKEN)
def test_written_back_it_is_the_same(text: str, address: object) -> None:
    assert parse_address(str(parse_address(text, 7)), 1) == address


def test_a_port_alone_is_distinguished() -> None:
    assert InetAddress("", 25).port_only
    assert not InetAddress("192.0.2.1", 25).port_only


@given(st.text())
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        address = parse_address(text, 7)
    except ValueError:
        return
    assert parse_address(str(address), 7) == address


@pytest.mark.parametrize("text", ["", "-1", "+1", "1_0", "٣", " 1", "1\n", "000001"])
def test_a_port_is_plain_digits(text: str) -> None:
    with pytest.raises(ValueError, match="1 to 65535"):
        parse_port(text)


def test_the_scope_of_an_address_is_a_number_for_the_kernel() -> None:
    lo = socket.if_nametoindex("lo")
    assert socket_name("192.0.2.1", 25) == ("192.0.2.1", 25)
    assert socket_name("2001:db8::1", 25) == ("2001:db8::1", 25)
    assert socket_name("fe80::1%lo", 25) == ("fe80::1", 25, 0, lo)
    assert socket_name(f"fe80::1%{lo}", 25) == ("fe80::1", 25, 0, lo)


@pytest.mark.parametrize("scope", ["nowhere9", "99999", "999999999999999", "0"])
def test_a_scope_that_is_no_interface(scope: str) -> None:
    with pytest.raises(OSError, match=f"there is no interface {scope}"):
        socket_name(f"fe80::1%{scope}", 25)


@pytest.mark.parametrize(
    "line",
    [
        "Tls: refuse server=::ffff:192.0.2.1",
        "UpstreamTls: encrypt server=::ffff:192.0.2.0/120",
        "TlsCertificate: /a.pem server=192.0.2.1,::ffff:192.0.2.1",
        "Filter: a pipe cat skip=::ffff:192.0.2.1",
        "Clients: ::ffff:192.0.2.1",
    ],
)
def test_no_session_has_an_ipv4_address_within_ipv6(line: str) -> None:
    """A line for one would never apply, and say nothing: a client that it refuses would pass."""
    with pytest.raises(ConfigError) as caught:
        parse_config(f"TransparentProxy: client\n{line}\nTls: pass\n".encode(), "gateway.conf")
    assert "is IPv4 within IPv6: write 192.0.2." in str(caught.value.problems)
