"""Models of mail servers: where each of them sees an end of data in the bytes that follow its 354.

Each is strict or lenient in its own way about line ends and NULs, as servers in the field are. A server is
`(newlines, nuls)`: how it cuts lines, and what it makes of a NUL in a line.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LINE_ENDS = {
    "strict": re.compile(rb"\r\n"),
    "lf-lenient": re.compile(rb"\r?\n"),
    "cr-run-lenient": re.compile(rb"\r*\n"),
    "cr-lenient": re.compile(rb"\r\n|\r|\n"),
    "nul-in-line-end": re.compile(rb"\r\0*\n"),
}
NULS: dict[str, Callable[[bytes], bytes]] = {
    "kept": lambda line: line,
    "stripped": lambda line: line.replace(b"\0", b""),
    "terminating": lambda line: line.split(b"\0", 1)[0],
    "space": lambda line: line.replace(b"\0", b" ").strip(),
}
MODELS = list(itertools.product(LINE_ENDS, NULS))


def ends_seen(wire: bytes, newlines: str, nuls: str) -> list[int]:
    """Offsets of the lines that this server takes for the end of data, all of them."""
    ends = []
    start = 0
    read = NULS[nuls]
    for line_end in LINE_ENDS[newlines].finditer(wire):
        if read(wire[start : line_end.start()]) == b".":
            ends.append(start)
        start = line_end.end()
    return ends


def ends_seen_without_nuls(wire: bytes) -> int:
    """How many ends of data the most lenient server sees that drops NULs before it cuts lines."""
    return len(re.findall(rb"(?:(?<=[\r\n])|\A)\.(?=[\r\n])", wire.replace(b"\0", b"")))


def received(wire: bytes) -> bytes:
    """The text that a server reads that does as RFC 5321 section 4.5.2 says."""
    assert ends_seen(wire, "strict", "kept") == [len(wire) - 3]
    lines = wire[:-3].split(b"\r\n")
    return b"\r\n".join(line.removeprefix(b".") for line in lines)
