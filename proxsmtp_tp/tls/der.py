"""DER (ITU-T X.690), as far as a certificate needs it."""

from __future__ import annotations

from typing import Final

_LENGTH_MAX: Final = 4  # octets of a length: a longer element is longer than any certificate
_LONG_TAG: Final = 0x1F  # X.690 section 8.1.2.4: certificates have none


class DerError(ValueError):
    """The octets are not DER."""


def element(data: bytes, at: int, end: int) -> tuple[int, int, int]:
    """The element at `at`, in data that ends at `end`: its tag, where its content begins, and where it ends.

    Raises DerError.
    """
    if end - at < 2 or data[at] & _LONG_TAG == _LONG_TAG:
        raise DerError("the element is cut, or its tag has several octets")
    length, content = data[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        if not 0 < size <= _LENGTH_MAX or end - content < size:
            raise DerError("the length is indefinite, or cut")
        content += size
        length = int.from_bytes(data[content - size : content])
    if end - content < length:
        raise DerError("the element is cut")
    return data[at], content, content + length
