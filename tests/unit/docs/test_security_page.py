"""docs/security.md names tests that exist, and the attackers that it says it is about."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/security.md").read_text("utf-8")
NAMED = sorted(set(re.findall(r"\b(?:tests|docs)/[\w/]+\.(?:py|md)|\b[A-Z]+\.md\b", PAGE)))
ATTACKS = re.findall(r"^\| ([^|]*) \| [^|]* \| (tests/[^|]*) \| (tests/[^|]*) \|$", PAGE, re.MULTILINE)
PURE = ("tests/unit/session/", "tests/unit/tls/", "tests/unit/certificates/", "tests/unit/net/", "tests/unit/service/")
"""Where the decision alone is tested. The engine has no socket in tests/unit/net/test_tls_stream.py and others."""
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


@cache
def functions_of(path: str) -> set[str]:
    """The names of the tests in a file."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {each.name for each in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))) if isinstance(each, kinds)}


def test_each_class_of_attacks_on_tls_has_tests_of_the_decision_and_on_sockets() -> None:
    """The classes are 17, of which the page has a row each; a test that is renamed is found here."""
    assert len(ATTACKS) == len({attack for attack, *_ in ATTACKS}) == 17
    for attack, *columns in ATTACKS:
        decision, sockets = (column.split(", ") for column in columns)
        for named in (*decision, *sockets):
            path, _, test = named.partition("::")
            assert test in functions_of(path), f"{attack}: {named}"
        assert all(named.startswith(PURE) for named in decision), attack
        assert not any(named.startswith(PURE[:3]) for named in sockets), attack
