"""docs/architecture.md says of each EHLO keyword what the program does, and names only what exists."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from tests.unit.docs import extensions

ROOT = Path(__file__).parents[3]
PAGE = extensions.PAGE.read_text("utf-8")
_SECTION = re.search(r"^## Where is it decided\?\n(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)
PLACES = re.findall(r"`([^`]+)`", _SECTION[1]) if _SECTION else []
"""What the table of places names: `package.module`, perhaps with `.name` or `.Class.name`."""
COMMANDS = sorted(set(re.findall(r"`python -m (\S+)`", PAGE)))
PATHS = sorted(set(re.findall(r"`([\w./-]+/[\w.-]+\.(?:py|md|txt|toml|yml|conf|nft|case|service))`", PAGE)))


def test_the_table_of_extensions() -> None:
    assert extensions.in_page(PAGE) == extensions.made(), "type `python -m tests.unit.docs.extensions`"


def test_there_are_places() -> None:
    assert len(PLACES) > 20


@pytest.mark.parametrize("place", PLACES)
def test_a_place_that_is_named_exists(place: str) -> None:
    words = place.removesuffix("()").split(".")
    for most in range(len(words), 0, -1):
        try:
            found: object = importlib.import_module(".".join(["proxsmtp_tp", *words[:most]]))
        except ModuleNotFoundError:
            continue
        for word in words[most:]:
            assert hasattr(found, word), f"docs/architecture.md names {place}, and there is no {word} in it"
            found = getattr(found, word)
        return
    raise AssertionError(f"docs/architecture.md names {place}, which is no module of proxsmtp_tp")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_is_named_exists(command: str) -> None:
    if command == "pytest":
        return
    assert importlib.util.find_spec(command) is not None


@pytest.mark.parametrize("path", PATHS)
def test_a_file_that_is_named_exists(path: str) -> None:
    assert (ROOT / path).exists() or (ROOT / "proxsmtp_tp" / path).exists()
