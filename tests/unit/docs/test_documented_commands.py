"""README.md and docs/*.md: each of our commands there has a subcommand and options that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from proxsmtp_tp.cli.main import _parser

ROOT = Path(__file__).parents[3]
PLACEHOLDERS = {"CLIENT": "192.0.2.10", "SERVER": "198.51.100.25", "ADDRESS": "192.0.2.1", "ID": "7"}
NOT_TYPED = {"proxsmtp-tp gate"}
"""The comment of rules, for an instance of this name."""


def documented() -> list[tuple[str, str]]:
    """Page and command, from code in a line and from console blocks."""
    found: list[tuple[str, str]] = []
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        commands = re.findall(r"(?m)`(proxsmtp-tp [^`\n]+)`|^ *[#$] (proxsmtp-tp .*)$", page.read_text())
        found += [(page.name, "".join(command)) for command in commands]
    return [item for item in dict.fromkeys(found) if item[1] not in NOT_TYPED]


@pytest.mark.parametrize(("page", "command"), documented())
def test_it_can_be_typed(page: str, command: str) -> None:
    plain = re.split(r" [|<>&;#]", command)[0]
    for name, value in PLACEHOLDERS.items():
        plain = re.sub(rf"\b{name}\b", value, plain)
    words = shlex.split(plain)[1:]
    if words == ["--version"]:
        with pytest.raises(SystemExit, match=r"^0$"):
            _parser("").parse_args(words)
    else:
        _parser(words[0]).parse_args(words)


def test_they_are_found() -> None:
    pages = {page for page, _ in documented()}
    assert {"README.md", "deployment.md", "gateway.md", "troubleshooting.md"} <= pages
