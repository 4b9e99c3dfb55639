"""A buffer of octets that arrive in chunks and are read in parts."""

from __future__ import annotations

from typing import Final

CR: Final = 13
LF: Final = 10
NUL: Final = 0
DOT: Final = 46
BLANK: Final = 32
"""Octets to look for with `in`: for bytes of one octet Python first raises and drops an error, which takes longer."""


def extended(buffer: bytes | bytearray, read: int, data: bytes) -> bytes | bytearray:
    """The unread octets of `buffer` (those after the first `read`), followed by `data`.

    While octets wait it is a bytearray, which grows in place; otherwise it is `data` itself, without a copy.
    """
    if read == len(buffer):
        return data
    if not isinstance(buffer, bytearray):
        buffer = bytearray(buffer)
    del buffer[:read]
    buffer += data
    return buffer
