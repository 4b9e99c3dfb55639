"""TLSA records and certificates (RFC 6698, RFC 7671, RFC 7672)."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.tls import tlsa
from proxsmtp_tp.tls.tlsa import Match, Tlsa, matches, public_key_of, usable
from tests.unit.smtp.chunking import PROPERTY
from tests.unit.tls import certificates

if TYPE_CHECKING:
    from pathlib import Path

LEAF, ISSUER, ROOT = b"0leaf", b"0issuer", b"0root"
KEYS = [b"0leaf key", b"0issuer key", b"0root key"]
CHAIN = [LEAF, ISSUER, ROOT]


def record(usage: int, selector: int, matching: int, of: bytes) -> Tlsa:
    data = {0: of, 1: hashlib.sha256(of).digest(), 2: hashlib.sha512(of).digest()}[matching]
    return Tlsa(usage, selector, matching, data)


@pytest.mark.parametrize("matching", [0, 1, 2])
@pytest.mark.parametrize("selector", [0, 1])
def test_the_server_itself(selector: int, matching: int) -> None:
    wanted = record(3, selector, matching, (LEAF, KEYS[0])[selector])
    other = record(3, selector, matching, (ISSUER, KEYS[1])[selector])
    assert matches([wanted], CHAIN, KEYS) == Match(leaf=wanted)
    assert matches([other, wanted], CHAIN, KEYS) == Match(leaf=wanted)
    assert not matches([other], CHAIN, KEYS), "an issuer is not the server"


@pytest.mark.parametrize("matching", [0, 1, 2])
@pytest.mark.parametrize("selector", [0, 1])
def test_an_issuer_in_the_chain(selector: int, matching: int) -> None:
    wanted = record(2, selector, matching, (ROOT, KEYS[2])[selector])
    assert matches([wanted], CHAIN, KEYS) == Match(anchors=((2, wanted),))
    leaf = record(2, selector, matching, (LEAF, KEYS[0])[selector])
    assert not matches([leaf], CHAIN, KEYS), "the server's own certificate is no issuer"
    assert not matches([wanted], CHAIN[:1], KEYS[:1]), "the issuer must be in the chain (RFC 7671 section 5.2.2)"


def test_both_are_named() -> None:
    records = [record(2, 0, 1, ISSUER), record(2, 1, 1, KEYS[2]), record(3, 1, 1, KEYS[0])]
    found = matches(records, CHAIN, KEYS)
    assert found == Match(records[2], ((1, records[0]), (2, records[1])))
    assert found


@pytest.mark.parametrize(
    "wrong",
    [
        record(0, 0, 1, ISSUER),
        record(1, 0, 1, LEAF),
        Tlsa(255, 0, 1, bytes(32)),
        Tlsa(3, 2, 1, bytes(32)),
        Tlsa(3, 1, 3, bytes(32)),
        Tlsa(3, 1, 1, bytes(31)),
        Tlsa(3, 1, 2, bytes(32)),
        Tlsa(3, 1, 1, b""),
        Tlsa(3, 0, 0, b""),
        Tlsa(3, 0, 0, b"no DER"),
    ],
)
def test_unusable_records(wrong: Tlsa) -> None:
    assert usable([wrong]) == ()
    assert not matches([wrong], CHAIN, KEYS)
    good = record(3, 1, 1, KEYS[0])
    assert usable([wrong, good]) == (good,)


def test_only_the_strongest_digest_counts() -> None:
    """RFC 7671 section 9: per usage and selector; a full value always counts."""
    old, new = record(3, 1, 1, KEYS[0]), record(3, 1, 2, b"a new key")
    full, other = record(3, 1, 0, KEYS[0]), record(3, 0, 1, LEAF)
    assert usable([old, new, full, other]) == (new, full, other)
    assert not matches([old, new], CHAIN, KEYS)
    assert matches([old, new, full], CHAIN, KEYS).leaf == full
    unusable = Tlsa(3, 1, 2, b"short")
    assert usable([old, unusable]) == (old,), "an unusable digest does not replace a usable one"


def test_nothing_matches_nothing() -> None:
    empty = hashlib.sha256(b"").digest()
    assert not matches([Tlsa(3, 1, 1, empty)], [b"no certificate"])
    assert not matches([Tlsa(3, 1, 1, empty)], [b""])
    assert not matches([Tlsa(3, 0, 1, empty)], [b""])
    assert not matches([record(3, 1, 1, KEYS[0])], [])
    assert not matches([], CHAIN, KEYS)


@pytest.mark.parametrize("key_type", certificates.KEY_TYPES)
def test_the_key_of_a_real_certificate(tmp_path: Path, key_type: str) -> None:
    certificate = certificates.make(tmp_path, "mx.example", key_type=key_type)
    key = certificates.public_key(tmp_path, "mx.example")
    assert public_key_of(certificate) == key
    assert matches([record(3, 1, 1, key)], [certificate])


def test_a_real_chain(tmp_path: Path) -> None:
    root = certificates.make(tmp_path, "ca.example")
    leaf = certificates.make(tmp_path, "mx.example", issuer="ca.example")
    wanted = record(2, 1, 1, certificates.public_key(tmp_path, "ca.example"))
    assert matches([wanted], [leaf, root]) == Match(anchors=((1, wanted),))


@given(st.binary(max_size=80))
@PROPERTY
def test_any_octets_have_a_key_or_none(data: bytes) -> None:
    assert public_key_of(data) in data


def test_every_cut_certificate_has_no_key(tmp_path: Path) -> None:
    certificate = certificates.make(tmp_path, "mx.example")
    assert not any(public_key_of(certificate[:end]) for end in range(len(certificate)))


def test_text() -> None:
    assert str(Tlsa(3, 1, 1, bytes(range(32)))) == "3 1 1 0001020304050607.."


def test_many_records_cost_one_digest_for_each_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server's owner can publish a thousand, and send a chain of 100 KiB."""
    made: list[bytes] = []

    def counted(data: bytes = b"") -> object:
        made.extend([data] if data else [])
        return hashlib.sha256(data)

    records = [record(2, 0, 1, CHAIN[2]), *(Tlsa(2, 0, 1, number.to_bytes(32)) for number in range(1000))]
    monkeypatch.setitem(tlsa._DIGESTS, 1, counted)
    assert matches(records, CHAIN, KEYS).anchors == ((2, records[0]),)
    assert made == CHAIN[1:]
