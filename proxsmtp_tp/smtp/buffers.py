"""A buffer of octets that arrive in chunks and are read in parts."""

from __future__ import annotations


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
