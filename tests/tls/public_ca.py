"""A CA that all mail servers trust, in this lab, and a certificate that it signs."""

from __future__ import annotations

import hashlib
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from proxsmtp_tp.tls.tlsa import public_key_of

if TYPE_CHECKING:
    from collections.abc import Sequence

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30")


@dataclass(frozen=True)
class ServerCertificate:
    """The files of a CA, and of the certificate and key of a mail server."""

    ca: Path
    chain: Path
    key: Path

    @property
    def tlsa(self) -> str:
        """The record 3 1 1 of it."""
        return f"3 1 1 {hashlib.sha256(public_key_of(self._der)).hexdigest()}"

    @property
    def fingerprint(self) -> str:
        """SHA-256, as Postfix writes it."""
        return hashlib.sha256(self._der).digest().hex(":").upper()

    @property
    def _der(self) -> bytes:
        return ssl.PEM_cert_to_DER_cert(self.chain.read_text())


def make(folder: Path, names: Sequence[str]) -> ServerCertificate:
    """Make all in a new folder; the certificate is for these names."""
    folder.mkdir()
    made = ServerCertificate(folder / "ca.pem", folder / "mx.pem", folder / "mx.key")
    ca = ("-x509", "-subj", "/CN=public CA", "-keyout", folder / "ca.key", "-out", made.ca)
    subprocess.run(["openssl", "req", *_KEY, *ca], check=True, capture_output=True)
    wanted = ("-subj", "/CN=mail server", "-addext", "subjectAltName=" + ",".join(f"DNS:{name}" for name in names))
    signed = ("-x509", "-CA", made.ca, "-CAkey", folder / "ca.key", "-addext", "basicConstraints=critical,CA:FALSE")
    files = ("-keyout", made.key, "-out", made.chain)
    subprocess.run(["openssl", "req", *_KEY, *signed, *wanted, *files], check=True, capture_output=True)
    return made
