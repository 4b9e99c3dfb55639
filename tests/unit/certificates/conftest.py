"""Certificates for the tests of this folder."""

from __future__ import annotations

from tests.unit.certificates.fixtures import ca, other_ca

__all__ = ["ca", "other_ca"]
