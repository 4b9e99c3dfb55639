"""What a worker asks of the minting process, and what that answers: one datagram each, in JSON.

A worker sends its question with a socket of its own (SCM_RIGHTS, unix(7)), to which the answer comes. If the process
dies before it answers, that socket is closed, and the worker asks again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from proxsmtp_tp.certificates.material import CertificateError, Material

REQUEST_MAX: Final = 1 << 15
"""Octets: 100 names of 253 octets, in JSON."""
ANSWER_MAX: Final = 1 << 17
"""Octets: a chain of certificates and a key."""


@dataclass(frozen=True, slots=True)
class Request:
    """A leaf with these names. `verified`: of the CA that clients trust."""

    names: tuple[str, ...]
    verified: bool


def encode_request(request: Request) -> bytes:
    """The datagram."""
    return json.dumps({"names": list(request.names), "verified": request.verified}).encode()


def decode_request(data: bytes) -> Request:
    """Raises ValueError."""
    given = json.loads(data)
    names, verified = given["names"], given["verified"]
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names) and isinstance(verified, bool)):
        raise ValueError("not a request for a certificate")
    return Request(tuple(names), verified)


def encode_answer(material: Material) -> bytes:
    """The datagram."""
    values = {"chain": material.chain.decode("ascii"), "key": material.key.decode("ascii"), "ends": material.ends}
    return json.dumps(values).encode()


def encode_refusal(reason: str) -> bytes:
    """The datagram: there is no certificate."""
    return json.dumps({"refused": reason}).encode()


def decode_answer(data: bytes) -> Material:
    """Raises CertificateError with the reason of the minting process."""
    given = json.loads(data)
    if "refused" in given:
        raise CertificateError(str(given["refused"]))
    return Material(given["chain"].encode("ascii"), given["key"].encode("ascii"), float(given["ends"]))
