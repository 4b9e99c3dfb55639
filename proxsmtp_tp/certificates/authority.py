"""A CA: made, read from PEM, and what is checked before its key is used.

Two of them are in use: one that clients trust, for servers that are verified, and an untrusted one for all others. A
client that verifies then fails as it would without us, and one that does not verify still encrypts.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any, Final

from proxsmtp_tp.certificates.libraries import load
from proxsmtp_tp.certificates.material import BACK, CertificateError
from proxsmtp_tp.certificates.pem import certificates_of, end_of, private_pem, public_octets

YEARS: Final = 10
"""How long a CA that we make is valid: its successor must be installed on every client by hand."""
_COMMON_NAME_MAX: Final = 64  # RFC 5280 appendix A.1, ub-common-name
_PURPOSE: Final = "a CA that makes certificates"


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA that is ready to sign. Objects of the library cryptography are Any: it is optional."""

    certificate: Any
    key: Any
    key_identifier: Any
    """The extension authorityKeyIdentifier of its leaves."""
    intermediates: bytes
    """What a client needs after the leaf, in PEM: nothing for a CA that signed itself."""
    digest: Any
    ends: dt.datetime


def make(common_name: str, now: dt.datetime) -> tuple[bytes, bytes]:
    """A new CA: its certificate and its key, in PEM. It signs leaves only, never another CA (pathlen 0)."""
    x509, forms = load("cryptography.x509", _PURPOSE), load("cryptography.hazmat.primitives.serialization", _PURPOSE)
    ec = load("cryptography.hazmat.primitives.asymmetric.ec", _PURPOSE)
    hashes = load("cryptography.hazmat.primitives.hashes", _PURPOSE)
    key = ec.generate_private_key(ec.SECP256R1())
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    oids = x509.NameOID
    name = x509.Name(
        [
            x509.NameAttribute(oids.ORGANIZATION_NAME, "proxsmtp-tp"),
            x509.NameAttribute(oids.COMMON_NAME, common_name[:_COMMON_NAME_MAX]),
            # The next CA of this host has another subject: a client that has both in its store takes the right one.
            x509.NameAttribute(oids.SERIAL_NUMBER, bytes(identifier.digest[:8]).hex()),
        ]
    )
    # digital signature, commitment, key encipherment, data encipherment, key agreement, CERTIFICATES, CRLS, ..
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACK)
        .not_valid_after(now + dt.timedelta(days=365 * YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA256())
    )
    return bytes(certificate.public_bytes(forms.Encoding.PEM)), private_pem(key)


def read(certificates: bytes, key_pem: bytes, where: str, now: dt.datetime) -> Authority:
    """A CA from its certificate (then intermediates, if any) and key, in PEM. `where`: the file, for errors.

    Raises CertificateError if it cannot sign certificates now.
    """
    x509, forms = load("cryptography.x509", _PURPOSE), load("cryptography.hazmat.primitives.serialization", _PURPOSE)
    chain = certificates_of(certificates, where)
    own, pem = chain[0], forms.Encoding.PEM
    try:
        key = forms.load_pem_private_key(key_pem, password=None)
    except (TypeError, ValueError) as error:
        raise CertificateError(
            f"{where}: the key cannot be read: {error}: it must be in PEM, without a passphrase"
        ) from None
    if public_octets(key.public_key()) != public_octets(own.public_key()):
        raise CertificateError(f"{where}: the key is not that of the certificate")
    ends = end_of(own)
    if ends <= now:
        raise CertificateError(f"{where}: the CA has expired on {ends:%Y-%m-%d}")
    if (problem := _cannot_sign(x509, own)) is not None:
        raise CertificateError(f"{where}: {problem}")
    signed_itself = own.issuer == own.subject
    return Authority(
        certificate=own,
        key=key,
        key_identifier=_identifier_of_leaves(x509, own),
        intermediates=b"" if signed_itself else b"".join(each.public_bytes(pem) for each in chain),
        digest=_digest_for(key),
        ends=ends,
    )


def _cannot_sign(x509: Any, certificate: Any) -> str | None:
    found = certificate.extensions
    try:
        if not found.get_extension_for_class(x509.BasicConstraints).value.ca:
            return "it is no certificate of a CA (basicConstraints)"
    except x509.ExtensionNotFound:
        return "it is no certificate of a CA (basicConstraints)"
    try:
        signs = found.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        signs = True
    return None if signs else "this CA may not sign certificates (keyUsage)"


def _identifier_of_leaves(x509: Any, certificate: Any) -> Any:
    kind = x509.AuthorityKeyIdentifier
    try:
        own = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return kind.from_issuer_public_key(certificate.public_key())
    return kind.from_issuer_subject_key_identifier(own)


def _digest_for(key: Any) -> Any:
    """Ed25519 and Ed448 have a digest of their own."""
    edwards = ("ed25519", "ed448")
    return (
        None
        if any(name in type(key).__module__.lower() + type(key).__name__.lower() for name in edwards)
        else (load("cryptography.hazmat.primitives.hashes", _PURPOSE).SHA256())
    )
