"""Certificates for the tests, made with our own CA."""

from __future__ import annotations

import datetime as dt
import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxsmtp_tp.certificates import authority
from proxsmtp_tp.certificates.leaf import LeafKey, mint
from proxsmtp_tp.certificates.path_check import Anchors


@dataclass
class Ca:
    """A CA with its files."""

    folder: Path
    certificate: bytes
    key: bytes

    @property
    def file(self) -> Path:
        """The certificate."""
        return self.folder / "ca.pem"

    @property
    def der(self) -> bytes:
        """The certificate."""
        return ssl.PEM_cert_to_DER_cert(self.certificate.decode())

    @property
    def anchors(self) -> Anchors:
        """Only this CA is trusted."""
        return Anchors(self.file)

    def authority(self, now: dt.datetime | None = None) -> authority.Authority:
        """Ready to sign."""
        return authority.read(self.certificate, self.key, "ca.pem", now or dt.datetime.now(dt.UTC))

    def leaf(self, *names: str, now: dt.datetime | None = None) -> bytes:
        """A new leaf, in DER. `now`: when it is made."""
        when = now or dt.datetime.now(dt.UTC)
        return ssl.PEM_cert_to_DER_cert(mint(self.authority(), names, LeafKey(), when).chain.decode())


def make_ca(folder: Path, name: str = "Test CA") -> Ca:
    """A CA in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Ca(folder, *authority.make(name, dt.datetime.now(dt.UTC)))
    made.file.write_bytes(made.certificate)
    return made


@pytest.fixture
def ca(tmp_path: Path) -> Ca:
    """A CA that is trusted."""
    return make_ca(tmp_path / "ca")


@pytest.fixture
def other_ca(tmp_path: Path) -> Ca:
    """Another CA."""
    return make_ca(tmp_path / "other", "Other CA")
