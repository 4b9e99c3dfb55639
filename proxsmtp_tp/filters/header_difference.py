"""The edits that make one header from another: for a filter that returns the whole message."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import TYPE_CHECKING

from proxsmtp_tp.filters.edits import ChangeHeader, InsertHeader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxsmtp_tp.filters.edits import Edit
    from proxsmtp_tp.filters.fields import Field

LIMIT = 200
"""Fields that may differ: the comparison can take the cube of their number, and the sender chooses many of them."""


def difference(old: Sequence[Field], new: Sequence[Field]) -> tuple[Edit, ...] | None:
    """Deletions, then insertions. None if too much differs."""
    first = 0
    while first < min(len(old), len(new)) and old[first] == new[first]:
        first += 1
    last = 0
    while last < min(len(old), len(new)) - first and old[-1 - last] == new[-1 - last]:
        last += 1
    ours, theirs = old[first : len(old) - last], new[first : len(new) - last]
    if len(ours) + len(theirs) > LIMIT:
        return None
    deleted: list[Edit] = []
    inserted: list[Edit] = []
    for tag, from_old, to_old, from_new, to_new in SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes():
        if tag != "equal":
            deleted += (_deleted(old, first + at) for at in range(from_old, to_old))
            inserted += (_inserted(new, first + at) for at in range(from_new, to_new))
    return (*deleted, *inserted)


def _deleted(fields: Sequence[Field], at: int) -> Edit:
    name = fields[at].name
    return ChangeHeader(name, sum(field.has_name(name) for field in fields[: at + 1]), b"")


def _inserted(fields: Sequence[Field], at: int) -> Edit:
    """Insert a field when all fields before it are in place. Positions count a Received field of our own."""
    return InsertHeader(at + 1, fields[at].name, fields[at].raw_value, verbatim=True)
