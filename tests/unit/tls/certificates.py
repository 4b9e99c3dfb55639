"""Certificates of OpenSSL for tests of pure code: a CA and a leaf, in DER."""

from __future__ import annotations

import ssl
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

KEY_TYPES = {
    "ec": ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "rsa": ["-newkey", "rsa:2048"],
    "ed25519": ["-newkey", "ed25519"],
}


def _openssl(*words: str) -> bytes:
    return subprocess.run(["openssl", *words], check=True, capture_output=True).stdout


def make(directory: Path, name: str, *, key_type: str = "ec", issuer: str = "") -> bytes:
    """A certificate in DER; without issuer, of itself. Its files are NAME.pem and NAME.key."""
    where = {each: str(directory / f"{name}.{each}") for each in ("pem", "key")}
    signer = ["-CA", str(directory / f"{issuer}.pem"), "-CAkey", str(directory / f"{issuer}.key")] if issuer else []
    subject = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    out = ["-out", where["pem"], "-keyout", where["key"], "-nodes", "-days", "30"]
    _openssl("req", "-x509", *KEY_TYPES[key_type], *subject, *signer, *out)
    return ssl.PEM_cert_to_DER_cert((directory / f"{name}.pem").read_text("ascii"))


def public_key(directory: Path, name: str) -> bytes:
    """Its SubjectPublicKeyInfo in DER, as OpenSSL reads it."""
    pem = _openssl("x509", "-in", str(directory / f"{name}.pem"), "-noout", "-pubkey").decode("ascii")
    return _pem(pem)


def _pem(text: str) -> bytes:
    return ssl.PEM_cert_to_DER_cert(text.replace("PUBLIC KEY", "CERTIFICATE"))
