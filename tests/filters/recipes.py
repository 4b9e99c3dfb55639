"""What the recipes of docs/filters.md say: the tests give it to the real scanners."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs/filters.md").read_text("utf-8")
FRAGMENTS: dict[str, str] = dict(re.findall(r"^```conf (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
"""Text to write into a file of a scanner, by the path of the file."""


def fragment(path: str) -> str:
    """What the recipe writes into that file."""
    return FRAGMENTS[path]
