"""docs/security.md names tests that exist, and the attackers that it says it is about."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/security.md").read_text("utf-8")
NAMED = sorted(set(re.findall(r"\b(?:tests|docs)/[\w/]+\.(?:py|md)|\b[A-Z]+\.md\b", PAGE)))
PROMISES = re.findall(r"^\| ([A-Z][^|]*) \| ([^|]*) \|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("path", NAMED)
def test_what_is_named_exists(path: str) -> None:
    assert (ROOT / path).is_file(), f"docs/security.md names {path}"


def test_each_promise_names_its_tests() -> None:
    assert len(PROMISES) > 20
    assert [promise for promise, tests in PROMISES if "tests/" not in tests] == []


def test_the_readme_leads_to_both_pages() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert "docs/security.md" in readme
    assert "SECURITY.md" in readme
