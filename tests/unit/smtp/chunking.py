"""The ways in which a byte stream may be cut on the wire: each reader is tested with all of them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Iterator

PROPERTY = settings(deadline=None, max_examples=200)
"""No deadline: a slow machine is no failure."""

Chunks = list[bytes]


def cuts(data: bytes) -> Iterator[Chunks]:
    """Whole, byte at a time, and cut in two at each place."""
    yield [data]
    yield bytewise(data)
    for at in range(1, len(data)):
        yield [data[:at], data[at:]]


def bytewise(data: bytes) -> Chunks:
    """One octet at a time."""
    return [data[at : at + 1] for at in range(len(data))]


@st.composite
def chunked(draw: st.DrawFn, content: st.SearchStrategy[bytes]) -> tuple[bytes, Chunks]:
    """Some content, and the same content in arbitrary chunks (empty ones among them)."""
    data = draw(content)
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    edges = [0, *places, len(data)]
    return data, [data[start:end] for start, end in itertools.pairwise(edges)]


def of_pieces(*pieces: bytes, max_size: int = 40) -> st.SearchStrategy[bytes]:
    """Streams made of the given pieces: far likelier to meet the hard cases than arbitrary bytes."""
    return st.lists(st.sampled_from(pieces), max_size=max_size).map(b"".join)
