"""A certificate chain with its key, in PEM (RFC 7468)."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Final

BACK: Final = dt.timedelta(days=2)
"""What we make is valid since then: the clock of a client may be slow."""


class CertificateError(Exception):
    """There is no certificate to use. The text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Material:
    """What a TLS server needs. `ends` is the end of the leaf's validity, in seconds since the epoch."""

    chain: bytes
    """The leaf first, then intermediate certificates."""
    key: bytes = field(repr=False)
    """Without a passphrase."""
    ends: float
