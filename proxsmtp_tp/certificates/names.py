"""Names in a certificate, read from its octets (DER), and whether a name matches.

A certificate may have any content: parts that are not as RFC 5280 says give no names, and no exception. Only DNS names
of the extension subjectAltName count, never the subject's common name (RFC 6125 section 6.4.4).
"""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Final

from proxsmtp_tp.tls.der import DerError, element

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NAMES_MAX: Final = 100
"""DNS names of one certificate that are looked at: public CAs put in no more."""
_LOOKED_AT: Final = 4 * NAMES_MAX
"""Names of any kind that are looked at: a server can send a certificate with 30 000, which would take 0.1 s."""
_EXTENSIONS_MAX: Final = 100
"""Extensions of one certificate, for the same reason: usual ones have about ten."""
_LABEL: Final = "[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*")

_SEQUENCE, _OBJECT_ID, _OCTETS, _BOOLEAN = 0x30, 0x06, 0x04, 0x01
_EXTENSIONS, _DNS_NAME = 0xA3, 0x82  # [3] of TBSCertificate, [2] of GeneralName (RFC 5280)
_SUBJECT_ALT_NAME: Final = bytes.fromhex("551d11")  # 2.5.29.17


def dns_names(certificate: bytes) -> tuple[str, ...]:
    """The DNS names of a certificate, in lower case, in its order. Wildcards only as the whole first label."""
    try:
        found = [name for octets in _alternative_names(certificate) if (name := as_name(octets))]
    except DerError:
        return ()
    return tuple(dict.fromkeys(found))[:NAMES_MAX]


def as_name(octets: bytes) -> str:
    """A DNS name in lower case without the last dot; "": it is none."""
    text = octets.decode("ascii", "replace").lower().removesuffix(".")
    return text if len(text) <= 253 and _NAME.fullmatch(text) else ""


def matches(name: str, wanted: str) -> bool:
    """Whether a name of a certificate is for the wanted name; `*.example` stands for exactly one more label.

    `wanted` may have such a wildcard, too (`match` of UpstreamTls). Both in lower case.
    """
    if name == wanted:
        return True
    for pattern, other in ((name, wanted), (wanted, name)):
        first, _, rest = other.partition(".")
        if pattern.startswith("*.") and first and first != "*" and "." in rest and pattern[2:] == rest:
            return True
    return False


def first_match(names: Iterable[str], wanted: Iterable[str]) -> str:
    """The first of the wanted names that one of the names of a certificate is for; "": none."""
    of_certificate = tuple(names)
    return next((each for each in wanted if any(matches(name, each.lower()) for name in of_certificate)), "")


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The values in a constructed one: tag and content."""
    at = 0
    while at < len(data):
        tag, start, at = element(data, at, len(data))
        yield tag, data[start:at]


def _only(data: bytes, tag: int) -> bytes:
    """The content of the only value in `data`."""
    found = list(_items(data))
    if len(found) != 1 or found[0][0] != tag:
        raise DerError("not the value that is expected here")
    return found[0][1]


def _to_be_signed(certificate: bytes) -> bytes:
    tag, content = next(_items(_only(certificate, _SEQUENCE)), (0, b""))
    if tag != _SEQUENCE:
        raise DerError("no certificate")
    return content


def _alternative_names(certificate: bytes) -> Iterator[bytes]:
    for tag, content in _items(_to_be_signed(certificate)):
        if tag != _EXTENSIONS:
            continue
        for _, extension in islice(_items(_only(content, _SEQUENCE)), _EXTENSIONS_MAX):
            parts = [(kind, value) for kind, value in _items(extension) if kind != _BOOLEAN]
            if [kind for kind, _ in parts] != [_OBJECT_ID, _OCTETS]:
                raise DerError("no extension")
            if parts[0][1] == _SUBJECT_ALT_NAME:
                names = islice(_items(_only(parts[1][1], _SEQUENCE)), _LOOKED_AT)
                yield from (name for kind, name in names if kind == _DNS_NAME)
                return
