"""What we make is as strict verifiers demand."""

from __future__ import annotations

import datetime as dt
import subprocess
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.certificates import authority
from proxsmtp_tp.certificates.leaf import LeafKey, mint
from proxsmtp_tp.certificates.material import CertificateError
from proxsmtp_tp.certificates.names import NAMES_MAX
from proxsmtp_tp.certificates.pem import certificates_of
from tests.unit.certificates.fixtures import Ca, make_ca

if TYPE_CHECKING:
    from pathlib import Path

NOW = dt.datetime.now(dt.UTC)


def openssl(*words: str | Path) -> str:
    """What the command says; it must succeed."""
    done = subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "names", [("mx.example.org",), ("192.0.2.1",), ("2001:db8::1",), ("*.example.org", "a.example")]
)
def test_a_leaf_passes_the_strict_check_of_openssl(ca: Ca, tmp_path: Path, names: tuple[str, ...]) -> None:
    leaf = tmp_path / "leaf.pem"
    leaf.write_bytes(mint(ca.authority(), names, LeafKey(), NOW).chain)
    option = "-verify_hostname" if names[0][-1].isalpha() else "-verify_ip"
    asked = names[0].replace("*", "mx")
    openssl("verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", ca.file, option, asked, leaf)


def test_the_ca_itself_passes_the_strict_check(ca: Ca) -> None:
    openssl("verify", "-x509_strict", "-CAfile", ca.file, ca.file)
    shown = openssl("x509", "-in", ca.file, "-noout", "-text")
    assert "CA:TRUE, pathlen:0" in shown
    assert "prime256v1" in shown


def test_a_leaf_has_what_a_server_needs_and_nothing_else(ca: Ca, tmp_path: Path) -> None:
    leaf = tmp_path / "leaf.pem"
    leaf.write_bytes(mint(ca.authority(), ("mx.example.org",), LeafKey(), NOW).chain)
    shown = openssl("x509", "-in", leaf, "-noout", "-text")
    assert "CA:FALSE" in shown
    assert "TLS Web Server Authentication\n" in shown
    assert "Key Usage: critical\n                Digital Signature\n" in shown
    issuer, leaf_id = ca.authority().certificate, shown.partition("Authority Key Identifier")[2].split("\n")[1].strip()
    assert leaf_id.replace(":", "").lower() == authority_identifier(issuer)


def authority_identifier(certificate: object) -> str:
    """The subjectKeyIdentifier of a CA, as octets in hex."""
    from cryptography import x509

    found = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)  # type: ignore[attr-defined]
    return bytes(found.value.digest).hex()


def test_a_leaf_is_valid_two_days_back_and_for_thirty_days_at_most(ca: Ca) -> None:
    made = mint(ca.authority(), ("mx.example.org",), LeafKey(), NOW)
    assert made.ends == pytest.approx((NOW + dt.timedelta(days=28)).timestamp(), abs=1)
    leaf = certificates_of(made.chain, "leaf")[0]
    begins = leaf.not_valid_before_utc if hasattr(leaf, "not_valid_before_utc") else leaf.not_valid_before
    assert abs(begins.replace(tzinfo=dt.UTC) - (NOW - dt.timedelta(days=2))) < dt.timedelta(seconds=2)


def test_a_leaf_does_not_outlive_its_ca(ca: Ca) -> None:
    almost = ca.authority().ends - dt.timedelta(days=3)
    assert mint(ca.authority(almost), ("mx.example.org",), LeafKey(), almost).ends == ca.authority().ends.timestamp()


@pytest.mark.parametrize("names", [(), ("not a name",), ("a\0.example",), tuple(f"m{n}.example" for n in range(101))])
def test_what_is_no_name_gets_no_certificate(ca: Ca, names: tuple[str, ...]) -> None:
    assert NAMES_MAX == 100
    with pytest.raises(ValueError, match=r".+"):
        mint(ca.authority(), names, LeafKey(), NOW)


def test_a_long_name_is_no_common_name_and_the_names_are_critical(ca: Ca, tmp_path: Path) -> None:
    name = ".".join(["a" * 60] * 3 + ["example"])
    leaf = tmp_path / "leaf.pem"
    leaf.write_bytes(mint(ca.authority(), (name,), LeafKey(), NOW).chain)
    assert "Subject Alternative Name: critical" in openssl("x509", "-in", leaf, "-noout", "-text")
    openssl("verify", "-x509_strict", "-CAfile", ca.file, "-verify_hostname", name, leaf)


def test_a_key_that_is_not_the_cas_is_refused(ca: Ca, other_ca: Ca) -> None:
    with pytest.raises(CertificateError, match=r"ca\.pem: the key is not that of the certificate"):
        authority.read(ca.certificate, other_ca.key, "ca.pem", NOW)


def test_an_expired_ca_is_refused(ca: Ca) -> None:
    with pytest.raises(CertificateError, match="has expired"):
        authority.read(ca.certificate, ca.key, "ca.pem", NOW + dt.timedelta(days=365 * 11))


def test_a_certificate_of_no_ca_is_refused(ca: Ca) -> None:
    made = mint(ca.authority(), ("mx.example.org",), LeafKey(), NOW)
    with pytest.raises(CertificateError, match="no certificate of a CA"):
        authority.read(made.chain, made.key, "ca.pem", NOW)


@pytest.mark.parametrize("octets", [b"", b"\0", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_file_without_a_certificate_is_refused(ca: Ca, octets: bytes) -> None:
    with pytest.raises(CertificateError, match="certificate"):
        authority.read(octets, ca.key, "ca.pem", NOW)


def test_an_intermediate_ca_sends_itself(tmp_path: Path) -> None:
    """TlsCa may be a CA below that of the company: its clients know the upper one only."""
    root = tmp_path / "root"
    curve = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -addext keyUsage=critical,keyCertSign"
    openssl(*f"req -x509 {curve} -keyout {root}.key -out {root}.pem -subj /CN=Root -days 30".split())
    below = tmp_path / "below"
    openssl(
        "req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{below}.key", "-out", f"{below}.csr", "-subj", "/CN=Below"
    )
    extensions = tmp_path / "extensions"
    extensions.write_text(
        "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign\nsubjectKeyIdentifier=hash\n"
        "authorityKeyIdentifier=keyid\n"
    )
    openssl("x509", "-req", "-in", f"{below}.csr", "-CA", f"{root}.pem", "-CAkey", f"{root}.key", "-days", "20",
            "-extfile", extensions, "-out", f"{below}.pem")  # fmt: skip
    pem, key = (tmp_path / "below.pem").read_bytes(), (tmp_path / "below.key").read_bytes()
    made = mint(authority.read(pem, key, "below.pem", NOW), ("mx.example.org",), LeafKey(), NOW)
    assert made.chain.count(b"BEGIN CERTIFICATE") == 2
    leaf = tmp_path / "leaf.pem"
    leaf.write_bytes(made.chain)
    openssl("verify", "-x509_strict", "-CAfile", f"{root}.pem", "-untrusted", leaf, leaf)


def test_two_cas_have_different_names(tmp_path: Path) -> None:
    first, second = make_ca(tmp_path / "1"), make_ca(tmp_path / "2")
    assert first.authority().certificate.subject != second.authority().certificate.subject
