"""Certificates and keys in PEM (RFC 7468), by the library cryptography. Its objects are Any: it is optional."""

from __future__ import annotations

import datetime as dt
import ssl
from typing import Any

from proxsmtp_tp.certificates.libraries import load
from proxsmtp_tp.certificates.material import CertificateError

_PURPOSE = "reading a certificate"


def certificates_of(pem: bytes, where: str) -> list[Any]:
    """The certificates in a PEM file, at least one. Raises CertificateError."""
    x509 = load("cryptography.x509", _PURPOSE)
    end = b"-----END CERTIFICATE-----"
    parts = [part[part.find(b"-----BEGIN") :] + end for part in pem.split(end)[:-1]]
    try:
        found = [x509.load_pem_x509_certificate(part) for part in parts]
    except ValueError as error:
        raise CertificateError(f"{where}: a certificate cannot be read: {error}") from None
    if not found:
        raise CertificateError(f"{where}: there is no certificate in PEM in it")
    return found


def der_chain(pem: bytes) -> tuple[bytes, ...]:
    """The same without the library, and each in DER. `pem` has been read before."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    parts = pem.decode("ascii", "replace").split(end)[:-1]
    return tuple(ssl.PEM_cert_to_DER_cert(part[part.find(begin) :] + end) for part in parts)


def end_of(certificate: Any) -> dt.datetime:
    """When its validity ends."""
    if (end := getattr(certificate, "not_valid_after_utc", None)) is None:  # cryptography before 42
        end = certificate.not_valid_after.replace(tzinfo=dt.UTC)
    return dt.datetime.fromtimestamp(end.timestamp(), dt.UTC)


def public_octets(key: Any) -> bytes:
    """A public key in DER, to compare."""
    forms = load("cryptography.hazmat.primitives.serialization", _PURPOSE)
    return bytes(key.public_bytes(forms.Encoding.DER, forms.PublicFormat.SubjectPublicKeyInfo))


def private_pem(key: Any) -> bytes:
    """A key in PEM, without a passphrase."""
    forms = load("cryptography.hazmat.primitives.serialization", "a key in PEM")
    return bytes(key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption()))
