"""CONTRIBUTING.md: its transcript is one, and what it names exists."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "CONTRIBUTING.md").read_text("utf-8")


def transcript() -> str:
    """The example, as the source of a module."""
    found = re.search(r"^ *```python\n(.*?)^ *```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return textwrap.dedent(found[1])


def run(source: str) -> None:
    """Define the test of the example, and call it."""
    names: dict[str, Any] = {}
    exec(compile(source, "CONTRIBUTING.md", "exec"), names)
    (test,) = (value for name, value in names.items() if name.startswith("test_"))
    test()


def test_the_transcript_holds() -> None:
    run(transcript())


def test_the_transcript_can_fail() -> None:
    with pytest.raises(AssertionError, match="the transcript differs"):
        run(transcript().replace('client("250 2.0.0 queued")', 'client("451 4.0.0 later")'))


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:tests|ansible|docs)/[\w./-]+)`", PAGE))))
def test_a_file_that_is_named_exists(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`make ([a-z-]+)", PAGE))))
def test_a_make_target_that_is_named_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
