"""The forms of `MAIL FROM:<path> parameters` in forms.txt."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

_SECTIONS = (Path(__file__).with_suffix(".txt")).read_text("ascii").split("[odd]")


def _forms(section: str) -> tuple[bytes, ...]:
    lines = [line for line in section.splitlines() if line.startswith("b")]
    return tuple(ast.literal_eval(line) for line in lines)


USUAL: Final = _forms(_SECTIONS[0])
"""Never to be refused."""

FORMS: Final = USUAL + _forms(_SECTIONS[1])
"""All of them; each is what follows FROM or TO."""
