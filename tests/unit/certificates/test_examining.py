"""What the certificate of a server proves."""

from __future__ import annotations

import datetime as dt
import hashlib
import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.certificates import examining
from proxsmtp_tp.certificates.examining import examine, examine_dane
from proxsmtp_tp.certificates.path_check import Anchors, PathCheckError, check_below
from proxsmtp_tp.tls.facts import Verified
from proxsmtp_tp.tls.tlsa import Tlsa, public_key_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.certificates.fixtures import Ca

PAST = dt.datetime.now(dt.UTC) - dt.timedelta(days=200)


def test_a_certificate_of_a_trusted_ca_for_the_name(ca: Ca) -> None:
    found = examine([ca.leaf("mx.example.org", "mail.example.org")], ["mail.example.org"], ca.anchors)
    assert (found.verified, found.reason) == (Verified.NAME, "")
    assert found.names == ("mx.example.org", "mail.example.org")
    assert found.verified.proven


def test_a_certificate_of_another_ca(ca: Ca, other_ca: Ca) -> None:
    found = examine([other_ca.leaf("mx.example.org")], ["mx.example.org"], ca.anchors)
    assert (found.verified, found.reason) == (Verified.NO, "unable to get local issuer certificate")
    assert not found.verified.proven


def test_a_certificate_for_another_name(ca: Ca) -> None:
    found = examine([ca.leaf("a.example", "b.example", "c.example", "d.example")], ["mx.example.org"], ca.anchors)
    assert found.verified is Verified.NO
    assert found.reason == "it is for a.example, b.example, c.example and 1 more, not for mx.example.org"
    assert not found.verified.vouched


def test_without_a_name_nothing_is_verified(ca: Ca) -> None:
    found = examine([ca.leaf("mx.example.org")], [], ca.anchors)
    assert found.verified is Verified.TRUSTED
    assert (found.verified.proven, found.verified.vouched) == (False, True)


def test_an_expired_certificate(ca: Ca) -> None:
    found = examine([ca.leaf("mx.example.org", now=PAST)], ["mx.example.org"], ca.anchors)
    assert (found.verified, found.reason) == (Verified.NO, "certificate has expired")


@pytest.mark.parametrize(
    ("key", "digest", "reason"),
    [
        ("rsa:2048", "-sha256", ""),
        ("rsa:1024", "-sha256", "EE certificate key too weak"),
        ("rsa:2048", "-sha1", "CA signature digest algorithm too weak"),
    ],
)
def test_weak_keys_and_signatures_prove_nothing(ca: Ca, tmp_path: Path, key: str, digest: str, reason: str) -> None:
    """Whoever can break them is any server."""
    (tmp_path / "ca.key").write_bytes(ca.key)
    request = ["openssl", "req", "-new", "-newkey", key, "-nodes", "-keyout", "leaf.key", "-subj", "/CN=mx.example.org"]
    sign = ["openssl", "x509", "-req", "-CA", str(ca.file), "-CAkey", "ca.key", "-CAcreateserial", digest, "-days", "2"]
    asked = subprocess.run(request, check=True, capture_output=True, cwd=tmp_path)
    made = subprocess.run(sign, input=asked.stdout, check=True, capture_output=True, cwd=tmp_path)
    assert ca.anchors.check([ssl.PEM_cert_to_DER_cert(made.stdout.decode())]) == reason


def test_a_ca_is_no_server(ca: Ca) -> None:
    assert ca.anchors.check([ca.der]) != ""


@pytest.mark.parametrize("chain", [[], [b""], [b"\x30\x80\0\0"], [b"\xff" * 100]])
def test_what_is_no_certificate_is_not_verified(ca: Ca, chain: list[bytes]) -> None:
    assert examine(chain, ["mx.example.org"], ca.anchors).verified is Verified.NO


def test_octets_after_a_certificate_make_it_none(ca: Ca) -> None:
    leaf = ca.leaf("mx.example.org")
    assert ca.anchors.check([leaf]) == ""
    assert ca.anchors.check([leaf + b"\0"]) == "a certificate cannot be read"
    assert ca.anchors.check([leaf, ca.der + b"\0"]) == "a certificate cannot be read"


def test_a_chain_without_an_end_is_not_looked_at(ca: Ca) -> None:
    assert ca.anchors.check([ca.leaf("mx.example.org"), *[ca.der] * 16]) == "more than 16 certificates"


def test_a_path_below_one_certificate_of_the_chain(ca: Ca, other_ca: Ca) -> None:
    leaf = ca.leaf("mx.example.org")
    assert check_below(ca.der, [leaf, ca.der]) == ""
    assert check_below(other_ca.der, [leaf, other_ca.der]) != ""
    assert check_below(b"nothing", [leaf]) == "a certificate cannot be read"


def test_a_file_without_certificates(tmp_path: Path) -> None:
    with pytest.raises(PathCheckError, match=r"missing\.pem"):
        Anchors(tmp_path / "missing.pem")


def test_the_cas_of_the_system_do_not_trust_ours(ca: Ca) -> None:
    assert examine([ca.leaf("mx.example.org"), ca.der], ["mx.example.org"], Anchors()).verified is Verified.NO


def record(usage: int, selector: int, certificate: bytes) -> Tlsa:
    """A TLSA record with SHA-256 for a certificate, or its key."""
    data = public_key_of(certificate) if selector else certificate
    return Tlsa(usage, selector, 1, hashlib.sha256(data).digest())


@pytest.mark.parametrize("selector", [0, 1])
def test_dane_ee_compares_the_certificate_without_name_date_and_path(ca: Ca, selector: int) -> None:
    leaf = ca.leaf("other.example", now=PAST)
    assert examine_dane([leaf], ["mx.example.org"], [record(3, selector, leaf)]).verified is Verified.DANE


def test_dane_ee_is_for_the_servers_certificate_only(ca: Ca) -> None:
    found = examine_dane([ca.leaf("mx.example.org"), ca.der], ["mx.example.org"], [record(3, 1, ca.der)])
    assert (found.verified, found.reason) == (Verified.NO, "no TLSA record matches it")


@pytest.mark.parametrize("selector", [0, 1])
def test_dane_ta_needs_a_path_and_a_name(ca: Ca, selector: int) -> None:
    records = [record(2, selector, ca.der)]
    chain = [ca.leaf("mx.example.org"), ca.der]
    assert examine_dane(chain, ["mx.example.org"], records).verified is Verified.DANE
    other = examine_dane(chain, ["mx.example.net"], records)
    assert other.verified is Verified.NO
    assert other.reason.endswith("matches an issuer, but it is for mx.example.org, not for mx.example.net")


def test_dane_ta_and_a_certificate_that_its_issuer_did_not_sign(ca: Ca, other_ca: Ca) -> None:
    """Anybody can send the right issuer along."""
    found = examine_dane([other_ca.leaf("mx.example.org"), ca.der], ["mx.example.org"], [record(2, 0, ca.der)])
    assert found.verified is Verified.NO
    assert found.reason.endswith("unable to get local issuer certificate")


def test_dane_ta_and_an_expired_certificate(ca: Ca) -> None:
    found = examine_dane([ca.leaf("mx.example.org", now=PAST), ca.der], ["mx.example.org"], [record(2, 0, ca.der)])
    assert found.reason.endswith("certificate has expired")


def test_dane_ta_is_no_pin_of_the_server_itself(ca: Ca) -> None:
    leaf = ca.leaf("mx.example.org")
    assert examine_dane([leaf], ["mx.example.org"], [record(2, 0, leaf)]).verified is Verified.NO


def test_one_record_that_matches_is_enough(ca: Ca, other_ca: Ca) -> None:
    leaf = ca.leaf("mx.example.org")
    assert examine_dane([leaf], [], [record(3, 1, other_ca.der), record(3, 1, leaf)]).verified is Verified.DANE


@pytest.mark.parametrize("chain", [[], [b"nothing"]])
def test_dane_without_a_certificate(ca: Ca, chain: list[bytes]) -> None:
    assert examine_dane(chain, ["mx.example.org"], [record(3, 1, ca.der)]).verified is Verified.NO


@pytest.mark.parametrize("usage", [2, 3])
def test_dane_proves_only_the_names_of_its_records(ca: Ca, usage: int) -> None:
    """Whoever publishes the record chooses the other names of the certificate: ours, of a CA that clients trust, must
    not have them.
    """
    leaf = ca.leaf("mx.attacker.example", "mx.bank.example")
    of_record = leaf if usage == 3 else ca.der
    found = examine_dane([leaf, ca.der], ["mx.attacker.example"], [record(usage, 1, of_record)])
    assert found.verified.proven
    assert found.names == ("mx.attacker.example",)


def test_the_paths_that_are_checked_are_few(ca: Ca, other_ca: Ca, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes processor time, and a server's owner decides how many records match how many certificates."""
    checked: list[bytes] = []

    def check(anchor: bytes, _chain: object) -> str:
        checked.append(anchor)
        return "no"

    monkeypatch.setattr(examining, "check_below", check)
    leaf, issuers = ca.leaf("mx.example.org"), [ca.der, other_ca.der, *(ca.leaf(f"{n}.example") for n in range(10))]
    records = [record(2, selector, issuer) for selector in (0, 1) for issuer in issuers]
    assert examine_dane([leaf, *issuers], ["mx.example.org"], records).verified is Verified.NO
    assert checked == issuers[:3]
