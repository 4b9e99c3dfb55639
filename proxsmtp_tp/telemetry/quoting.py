"""Words of peers, servers and filters in log lines: they are printable, and cannot look like another field.

A line is fields, separated by a comma and a space: `name=value, name=value`. A value with a comma, with a quotation
mark at its beginning, or with a space at either end is put into quotation marks, in which a backslash stands before
each quotation mark and backslash. All other values stand as they are, as 1.10 writes them. So a comma outside of
quotation marks always ends a value, whoever chose the words.
"""

from __future__ import annotations

from typing import Final

LIMIT: Final = 330
"""Characters of a value: the longest address has 320 (RFC 5321 section 4.5.3.1). Longer replies are rare, and cut."""


def printable(data: bytes) -> str:
    """Bytes of a peer as one line of printable text; the lines of a reply are joined by ` / `."""
    text = data.decode("utf-8", "backslashreplace")
    if text.isprintable():  # most addresses and names
        return text
    text = text.rstrip("\r\n").replace("\r\n", " / ")
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def quoted(text: str, limit: int = LIMIT) -> str:
    """The value of a field, or words within a line; cut at the limit (characters)."""
    if len(text) > limit:
        text = text[:limit] + "..."
    if not text or ("," not in text and text[0] not in ' "' and text[-1] != " "):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def shown(data: bytes) -> str:
    """Bytes of a peer, printable and quoted where necessary."""
    return quoted(printable(data))


def fields(line: str) -> list[tuple[str, str]]:
    """The reverse: names and values of a line that has only fields. ValueError for another line."""
    found: list[tuple[str, str]] = []
    rest = line
    while rest:
        name, equals, rest = rest.partition("=")
        if not equals:
            raise ValueError(f"no field: {name}")
        value, rest = _value(rest)
        found.append((name, value))
        if rest and not rest.startswith(", "):
            raise ValueError(f"no separator: {rest}")
        rest = rest[2:]
    return found


def _value(text: str) -> tuple[str, str]:
    """The first value, and what follows it."""
    if not text.startswith('"'):
        value, comma, rest = text.partition(",")
        return value, comma + rest
    value, at = "", 1
    while text[at : at + 1] != '"':
        if text[at : at + 1] == "\\":
            at += 1
        if at >= len(text):
            raise ValueError(f"no end: {text}")
        value += text[at]
        at += 1
    return value, text[at + 1 :]
