"""Elements of DER (ITU-T X.690)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.tls.der import DerError, element


@pytest.mark.parametrize(
    ("octets", "found"),
    [
        (b"\x30\x00", (0x30, 2, 2)),
        (b"\x04\x02ab", (0x04, 2, 4)),
        (b"\x04\x81\x02ab", (0x04, 3, 5)),
        (b"\x04\x84\0\0\0\x02ab", (0x04, 6, 8)),
    ],
)
def test_an_element(octets: bytes, found: tuple[int, int, int]) -> None:
    assert element(octets, 0, len(octets)) == found
    assert element(b"xx" + octets + b"yy", 2, len(octets) + 2) == tuple(
        part + 2 if place else part for place, part in enumerate(found)
    )
    for end in range(len(octets)):
        with pytest.raises(DerError):
            element(octets, 0, end)


@pytest.mark.parametrize(
    "octets",
    [
        b"\x1f\x02ab",  # a tag of several octets
        b"\x04\x80ab\0\0",  # an indefinite length
        b"\x04\x85\0\0\0\0\x02ab",
    ],
)
def test_what_no_certificate_has(octets: bytes) -> None:
    with pytest.raises(DerError):
        element(octets, 0, len(octets))


@given(st.binary(max_size=40), st.integers(0, 40))
def test_any_octets_are_read_within_their_end(data: bytes, at: int) -> None:
    try:
        _, start, end = element(data, at, len(data))
    except DerError:
        return
    assert at < start <= end <= len(data)
