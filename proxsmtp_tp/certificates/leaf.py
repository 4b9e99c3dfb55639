"""Makes the certificate that a client sees in place of the server's (RFC 5280), with the key of a CA.

It has the names that it is asked for, and is for TLS servers only: it cannot be used for anything else. The library
cryptography of Debian 12 (38.0.4) is enough.
"""

from __future__ import annotations

import datetime as dt
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

from proxsmtp_tp.certificates.libraries import load
from proxsmtp_tp.certificates.material import BACK, Material
from proxsmtp_tp.certificates.names import NAMES_MAX, as_name
from proxsmtp_tp.certificates.pem import private_pem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxsmtp_tp.certificates.authority import Authority

AHEAD: Final = dt.timedelta(days=28)
"""How long a leaf is valid from now: 30 days in all. A stolen key can be used at most for this time."""
_COMMON_NAME_MAX: Final = 64  # RFC 5280 appendix A.1, ub-common-name


class LeafKey:
    """An EC key on P-256, made anew by each minting process: its signatures cost client and server little time."""

    def __init__(self) -> None:
        ec = load("cryptography.hazmat.primitives.asymmetric.ec", "a CA that makes certificates")
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.pem = private_pem(self.key)


def mint(authority: Authority, names: Sequence[str], key: LeafKey, now: dt.datetime) -> Material:
    """A leaf with these names: DNS names, or addresses of servers. Raises ValueError.

    Its authorityKeyIdentifier is the subjectKeyIdentifier of the CA, as strict verifiers demand. It never ends later
    than the CA.
    """
    x509 = load("cryptography.x509", "a CA that makes certificates")
    forms = load("cryptography.hazmat.primitives.serialization", "a CA that makes certificates")
    alternative = alternative_names(x509, names)
    first = next((name for name in names if as_name(name.encode())), "")
    subject = [x509.NameAttribute(x509.NameOID.COMMON_NAME, first)] if 0 < len(first) <= _COMMON_NAME_MAX else []
    ends = min(now + AHEAD, authority.ends)
    usage = x509.KeyUsage(True, *(False,) * 8)
    extensions = (
        (x509.SubjectAlternativeName(alternative), not subject),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (usage, True),
        (x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.SubjectKeyIdentifier.from_public_key(key.key.public_key()), False),
        (authority.key_identifier, False),
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(subject))
        .issuer_name(authority.certificate.subject)
        .public_key(key.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACK)
        .not_valid_after(ends)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    leaf = builder.sign(authority.key, authority.digest)
    return Material(bytes(leaf.public_bytes(forms.Encoding.PEM)) + authority.intermediates, key.pem, ends.timestamp())


def alternative_names(x509: Any, names: Sequence[str]) -> list[Any]:
    """The names as general names of `x509`. Raises ValueError for none, too many, or what is no name and no address."""
    if not 1 <= len(names) <= NAMES_MAX:
        raise ValueError(f"a certificate has 1 to {NAMES_MAX} names, not {len(names)}")
    found = []
    for name in dict.fromkeys(names):
        good = as_name(name.encode("utf-8", "replace"))
        if good and not good.rpartition(".")[2].isdecimal():
            found.append(x509.DNSName(good))
        else:
            found.append(x509.IPAddress(ip_address(name)))
    return found
