"""The docstring of each package names exactly the modules in its folder: a new module gets a line there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = sorted(path.parent for path in (ROOT / "proxsmtp_tp").rglob("__init__.py"))
LINE = re.compile(r"^([a-z0-9_]+) {2,}\S", re.MULTILINE)
"""A line of a map: the name of a module, two or more spaces, and what it does."""


def modules(package: Path) -> list[str]:
    """The modules and packages in a folder."""
    inside = [path.stem for path in package.glob("*.py") if path.stem != "__init__"]
    return sorted([*inside, *(path.parent.name for path in package.glob("*/__init__.py"))])


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: str(package.relative_to(ROOT)))
def test_the_map_names_every_module(package: Path) -> None:
    page = package / "__init__.py"
    named = LINE.findall(ast.get_docstring(ast.parse(page.read_text("utf-8"))) or "")
    assert sorted(named) == modules(package), f"{page}: one line for each module, with two spaces behind its name"
