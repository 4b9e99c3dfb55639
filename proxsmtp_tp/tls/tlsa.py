"""TLSA records compared with a server's certificates (RFC 6698, RFC 7671; for SMTP RFC 7672).

`3 x x` (DANE-EE) pins the server's own certificate or key: that is complete, names and dates do not count (RFC 7672
section 3.1.1). `2 x x` (DANE-TA) pins an issuer in the chain: names and the path to it must still be checked by the
caller. `0` and `1` cannot be used with SMTP (RFC 7672 section 3.1.3).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from proxsmtp_tp.tls.der import DerError, element

if TYPE_CHECKING:
    from collections.abc import Sequence

DANE_TA: Final = 2
DANE_EE: Final = 3
_CERTIFICATE: Final = 0
_KEY: Final = 1
_FULL: Final = 0
_DIGESTS: Final = {1: hashlib.sha256, 2: hashlib.sha512}
"""By matching type (RFC 6698 section 2.1.3); the larger one is the stronger one."""
_SEQUENCE: Final = 0x30


@dataclass(frozen=True, slots=True, order=True)
class Tlsa:
    """One record: certificate usage, selector, matching type, association data (RFC 6698 section 2.1)."""

    usage: int
    selector: int
    matching: int
    data: bytes

    def __str__(self) -> str:
        """As zone files write it, shortened."""
        return f"{self.usage} {self.selector} {self.matching} {self.data[:8].hex()}.."


@dataclass(frozen=True, slots=True)
class Match:
    """What the records say of a chain. `leaf`: the record that matches the server's own certificate or key.

    `anchors`: issuers in the chain that a record matches, by their place (the server's own has 0): each may be the
    trust anchor of a path whose names and dates the caller checks.
    """

    leaf: Tlsa | None = None
    anchors: tuple[tuple[int, Tlsa], ...] = ()

    def __bool__(self) -> bool:
        """Whether the server may be the right one."""
        return self.leaf is not None or bool(self.anchors)


def usable(records: Sequence[Tlsa]) -> tuple[Tlsa, ...]:
    """The records that a certificate may be compared with: known parameters, and data of the right length.

    Of one usage and selector only those with the strongest digest remain (RFC 7671 section 9): a weaker one may be
    older than the certificate.
    """
    known = [record for record in records if _known(record)]
    strongest: dict[tuple[int, int], int] = {}
    for record in known:
        kind = record.usage, record.selector
        strongest[kind] = max(strongest.get(kind, _FULL), record.matching)
    return tuple(record for record in known if record.matching in {_FULL, strongest[record.usage, record.selector]})


def matches(records: Sequence[Tlsa], chain: Sequence[bytes], keys: Sequence[bytes] | None = None) -> Match:
    """Compare records with a chain of certificates in DER, the server's own first.

    `keys` are their SubjectPublicKeyInfo in DER; without them `public_key_of` reads them. Unusable records match
    nothing.
    """
    if keys is None:
        keys = [public_key_of(certificate) for certificate in chain]
    pairs = list(zip(chain, keys, strict=True))
    known: dict[tuple[int, int, int], bytes] = {}
    leaf = None
    anchors = []
    for record in usable(records):
        for place in range(len(pairs))[:1] if record.usage == DANE_EE else range(1, len(pairs)):
            wanted = place, record.selector, record.matching
            if wanted not in known:  # once for all records: one answer of DNS can have hundreds
                known[wanted] = _associated(record, pairs[place][record.selector])
            if not known[wanted] or known[wanted] != record.data:
                continue
            if record.usage == DANE_EE:
                leaf = leaf or record
            else:
                anchors.append((place, record))
    return Match(leaf, tuple(anchors))


def _known(record: Tlsa) -> bool:
    if record.usage not in {DANE_TA, DANE_EE} or record.selector not in {_CERTIFICATE, _KEY}:
        return False
    if record.matching == _FULL:
        return record.data[:1] == bytes([_SEQUENCE])
    return record.matching in _DIGESTS and len(record.data) == _DIGESTS[record.matching]().digest_size


def _associated(record: Tlsa, selected: bytes) -> bytes:
    """What the record would have to be for this certificate or key; b"": nothing can match."""
    if record.matching == _FULL or not selected:
        return selected
    return _DIGESTS[record.matching](selected).digest()


def public_key_of(certificate: bytes) -> bytes:
    """The SubjectPublicKeyInfo of a certificate, both in DER (RFC 5280 section 4.1).

    b"" if it cannot be found, which matches nothing.
    """
    try:
        _, start, end = element(certificate, 0, len(certificate))  # Certificate
        _, at, end = element(certificate, start, end)  # TBSCertificate
        tag, _, after = element(certificate, at, end)
        if tag == 0xA0:  # version
            at = after
        for _ in range(5):  # serialNumber, signature, issuer, validity, subject
            _, _, at = element(certificate, at, end)
        tag, _, after = element(certificate, at, end)
    except DerError:
        return b""
    return certificate[at:after] if tag == _SEQUENCE else b""
