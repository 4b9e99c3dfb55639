"""The error of every protocol here: the filter said something that is no valid answer."""

from __future__ import annotations

EXCERPT = 80
"""Octets of an invalid answer that the log shows: one line."""


class ProtocolError(Exception):
    """The filter broke its protocol; the text says how, in printable ASCII. Its connection cannot be used any more."""


def excerpt(octets: bytes | bytearray) -> str:
    """The beginning of an invalid answer, printable, for a log."""
    return ascii(bytes(octets[:EXCERPT]))[1:]
