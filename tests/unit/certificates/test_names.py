"""Names in certificates, from any octets."""

from __future__ import annotations

import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.certificates.names import as_name, dns_names, first_match, matches
from tests.unit.certificates.fixtures import make_ca

if TYPE_CHECKING:
    from pathlib import Path


def self_signed(folder: Path, names: str) -> bytes:
    """A certificate with any subjectAltName."""
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
             "/dev/null", "-subj", "/CN=cn.example", "-days", "3", "-addext", f"subjectAltName={names}"]  # fmt: skip
    made = subprocess.run(words, capture_output=True, text=True, check=True, cwd=folder)
    return ssl.PEM_cert_to_DER_cert(made.stdout)


def test_only_names_of_hosts_count(tmp_path: Path) -> None:
    names = "DNS:MX.Example.ORG,IP:192.0.2.1,email:a@b.example,DNS:*.example.net,DNS:a*.example,DNS:b_c.example,DNS:-.x"
    assert dns_names(self_signed(tmp_path, names)) == ("mx.example.org", "*.example.net", "b_c.example")


def test_the_common_name_is_no_name(tmp_path: Path) -> None:
    assert dns_names(self_signed(tmp_path, "IP:192.0.2.1")) == ()


@given(st.binary(max_size=300))
def test_any_octets_are_read(octets: bytes) -> None:
    assert dns_names(octets) in {(), dns_names(octets)}


@pytest.fixture(scope="module")
def leaf(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """One for all examples."""
    return make_ca(tmp_path_factory.mktemp("ca")).leaf("mx.example.org", "mail.example.org")


def test_a_cut_certificate_has_no_names(leaf: bytes) -> None:
    assert all(dns_names(leaf[:length]) == () for length in range(len(leaf)))


def test_any_changed_octet_is_read(leaf: bytes) -> None:
    for at in range(len(leaf)):
        changed = bytearray(leaf)
        changed[at] ^= 0x81
        dns_names(bytes(changed))


@pytest.mark.parametrize(
    ("name", "wanted", "fits"),
    [
        ("mx.example.org", "mx.example.org", True),
        ("mx.example.org", "mx2.example.org", False),
        ("*.example.org", "mx.example.org", True),
        ("*.example.org", "a.mx.example.org", False),
        ("*.example.org", "example.org", False),
        ("*.org", "example.org", False),
        ("*.example.org", "*.example.org", True),
        ("mx.example.org", "*.example.org", True),
        ("example.org", "*.example.org", False),
        ("a.mx.example.org", "*.example.org", False),
        ("*.example.org", ".example.org", False),
    ],
)
def test_a_wildcard_is_one_label(name: str, wanted: str, fits: bool) -> None:
    assert matches(name, wanted) is fits


def test_the_first_wanted_name_that_fits() -> None:
    assert first_match(["*.example.org"], ["mx.example.net", "MX.example.org"]) == "MX.example.org"
    assert first_match(["mx.example.org"], []) == ""


@pytest.mark.parametrize(
    "octets", [b"", b".", b"a..b", b"a\0.example", "ü.example".encode(), b"a" * 64, b"*", b"*.*.a"]
)
def test_what_is_no_name(octets: bytes) -> None:
    assert as_name(octets) == ""


def _der(tag: int, content: bytes) -> bytes:
    return bytes([tag, 0x83]) + len(content).to_bytes(3) + content


def certificate(names: bytes, *, other_extensions: int = 0) -> bytes:
    """As much of a certificate as has names."""
    others = _der(0x30, _der(6, b"\x55\x1d\x0e") + _der(4, b"")) * other_extensions
    extension = _der(0x30, _der(6, b"\x55\x1d\x11") + _der(4, _der(0x30, names)))
    return _der(0x30, _der(0x30, _der(0xA3, _der(0x30, others + extension))))


def test_the_work_for_a_certificate_is_limited() -> None:
    """A server can send 100 KiB of names, which would keep the worker busy for a tenth of a second."""
    name, address = _der(0x82, b"mx.example"), _der(0x87, b"\xc0\0\2\1")
    assert dns_names(certificate(address * 399 + name)) == ("mx.example",)
    assert dns_names(certificate(address * 400 + name)) == ()
    assert dns_names(certificate(_der(0x82, b"no name!") * 400 + name)) == ()
    assert dns_names(certificate(name, other_extensions=99)) == ("mx.example",)
    assert dns_names(certificate(name, other_extensions=100)) == ()
