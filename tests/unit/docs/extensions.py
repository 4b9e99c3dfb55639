"""The table of EHLO keywords in docs/architecture.md: `python -m tests.unit.docs.extensions` writes it."""

from __future__ import annotations

import re
from pathlib import Path

from proxsmtp_tp.smtp.capabilities import EXTENSIONS

PAGE = Path(__file__).parents[3] / "docs/architecture.md"
_TABLE = re.compile(r"(?<=\| keyword \| \| why \|\n\|---\|---\|---\|\n)(?:\|.*\n)+")


def made() -> str:
    """The rows, with their line ends."""
    rows = ((keyword.decode(), "stays" if row.stays else "goes", row.why) for keyword, row in EXTENSIONS.items())
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def in_page(page: str) -> str:
    """The rows as they stand in the page's text."""
    found = _TABLE.search(page)
    assert found is not None, "docs/architecture.md has no table of keywords"
    return found[0]


if __name__ == "__main__":
    old = PAGE.read_text("utf-8")
    PAGE.write_text(old.replace(in_page(old), made()), "utf-8")
