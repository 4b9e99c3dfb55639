"""TlsCertificate, TlsCa, TlsUntrustedCa: files, from text and back."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from proxsmtp_tp.config.tls_files import CertificateLine, KeyPair, parse_certificate, parse_key_pair


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("/etc/mx.pem", CertificateLine(KeyPair("/etc/mx.pem", "/etc/mx.pem"))),
        ("/etc/mx.pem /etc/mx.key", CertificateLine(KeyPair("/etc/mx.pem", "/etc/mx.key"))),
        (
            "/etc/mx.pem /etc/mx.key server=192.0.2.1,2001:db8::/32",
            CertificateLine(
                KeyPair("/etc/mx.pem", "/etc/mx.key"), (ip_network("192.0.2.1"), ip_network("2001:db8::/32"))
            ),
        ),
        (
            "/etc/mx.pem server=192.0.2.1",
            CertificateLine(KeyPair("/etc/mx.pem", "/etc/mx.pem"), (ip_network("192.0.2.1"),)),
        ),
    ],
)
def test_certificates(text: str, line: CertificateLine) -> None:
    assert parse_certificate(text) == (line,)
    assert str(line) == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "write the file of the certificate"),
        ("server=192.0.2.1", "write the file of the certificate"),
        ("/a /b /c", "write the file of the certificate"),
        ("mx.pem", "'mx.pem' is no absolute path"),
        ("/mx.pem mx.key", "'mx.key' is no absolute path"),
        ("/mx.pem server=mx.example", "server: 'mx.example' is no network"),
        ("/mx.pem name=mx.example", "'name=mx.example' is no absolute path"),
    ],
)
def test_what_is_no_certificate(text: str, problem: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the text is compared below)
        parse_certificate(text)
    assert problem in str(caught.value)


def test_a_ca_has_no_servers() -> None:
    assert parse_key_pair("/ca.pem /ca.key") == KeyPair("/ca.pem", "/ca.key")
    with pytest.raises(ValueError, match="absolute"):
        parse_key_pair("/ca.pem server=192.0.2.1")
