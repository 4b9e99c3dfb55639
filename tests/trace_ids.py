"""The trace id at the end of refusals of ours, which most tests do not repeat."""

from __future__ import annotations

import re

TRACE_ID = re.compile(rb"(?P<before>(?:^|\n)[45][0-9]{2} [^\r\n]*) \((?P<id>[0-9A-HJKMNP-TV-Z]{13})\)(?=\r\n|$)")
"""At the end of a line."""


def without_ids(heard: bytes) -> bytes:
    """What a client has heard, without the ids."""
    return TRACE_ID.sub(rb"\g<before>", heard)


def ids(heard: bytes) -> list[str]:
    """The ids in what a client has heard, in order."""
    return [found["id"].decode() for found in TRACE_ID.finditer(heard)]
