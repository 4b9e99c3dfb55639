"""What a filter has changed in a message, as a unified diff for people.

Lines are compared without their line ends. Characters that cannot be printed are escaped. Long changes are cut, because
a message may have an attachment of many thousand lines, and a comparison takes time.
"""

from __future__ import annotations

import difflib
import itertools
from typing import TYPE_CHECKING

from proxsmtp_tp.config.reader import printable
from proxsmtp_tp.smtp.data import Normalizer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

COMPARED_MAX = 2000
"""Lines of a change that are compared one by one: difflib takes the square of their number."""
SHOWN_MAX = 200
"""Lines of a diff that are shown: a few screens."""
WIDTH_MAX = 200
"""Characters of a line: longer lines are encoded attachments."""
_CONTEXT = 3


def normalized(text: bytes) -> bytes:
    """Text as the proxy sends it: each line ends in CRLF."""
    normalizer = Normalizer()
    whole = normalizer.feed(text) + normalizer.finish()
    return whole if not whole or whole.endswith(b"\r\n") else whole + b"\r\n"


def difference(before: bytes, after: bytes) -> list[str]:
    """Lines of a unified diff; none if the server gets the same message."""
    old, new = normalized(before).split(b"\r\n")[:-1], normalized(after).split(b"\r\n")[:-1]
    if old == new:
        return []
    same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False)))
    start = max(0, same - _CONTEXT)
    old_end, new_end = len(old), len(new)
    while old_end > same and new_end > same and old[old_end - 1] == new[new_end - 1]:
        old_end, new_end = old_end - 1, new_end - 1
    old_part, new_part = old[start : old_end + _CONTEXT], new[start : new_end + _CONTEXT]
    if max(len(old_part), len(new_part)) > COMPARED_MAX:
        shown = _replaced(old[same:old_end], new[same:new_end], same)
    else:
        shown = _unified(old_part, new_part, start)
    lines = list(itertools.islice(shown, SHOWN_MAX + 1))
    return lines if len(lines) <= SHOWN_MAX else [*lines[:SHOWN_MAX], f"(only the first {SHOWN_MAX} lines are shown)"]


def _unified(old: Sequence[bytes], new: Sequence[bytes], start: int) -> Iterator[str]:
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for group in matcher.get_grouped_opcodes(_CONTEXT):
        first, last = group[0], group[-1]
        yield f"@@ -{_range(first[1], last[2], start)} +{_range(first[3], last[4], start)} @@"
        for tag, old_from, old_to, new_from, new_to in group:
            if tag == "equal":
                yield from (f" {_shown(line)}" for line in old[old_from:old_to])
            else:
                yield from (f"-{_shown(line)}" for line in old[old_from:old_to])
                yield from (f"+{_shown(line)}" for line in new[new_from:new_to])


def _range(first: int, last: int, start: int) -> str:
    return f"{start + first + (last > first)},{last - first}"


def _replaced(old: Sequence[bytes], new: Sequence[bytes], at: int) -> Iterator[str]:
    half = SHOWN_MAX // 2 - 2
    yield f"@@ -{at + 1},{len(old)} +{at + 1},{len(new)} @@ (too long to be compared)"
    for sign, lines in (("-", old), ("+", new)):
        yield from (f"{sign}{_shown(line)}" for line in lines[:half])
        if len(lines) > half:
            yield f"{sign}({len(lines) - half} more lines)"


def _shown(line: bytes) -> str:
    text = printable(line.decode("utf-8", "backslashreplace"))
    return text if len(text) <= WIDTH_MAX else f"{text[:WIDTH_MAX]}... ({len(line)} octets)"
