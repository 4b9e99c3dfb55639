"""The configurations in README.md and docs/ can be pasted: check-config has nothing to say about them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from proxsmtp_tp.config.advice import advice
from proxsmtp_tp.config.reader import parse_config

ROOT = Path(__file__).parents[3]
HERE_DOCUMENT = re.compile(r"cat >(\S+\.conf) <<'?(\w+)'?\n(.*?)^ *\2$", re.DOTALL | re.MULTILINE)
LITERAL = re.compile(r"^\.Bd -literal.*?\n(.*?)^\.Ed$", re.DOTALL | re.MULTILINE)
EXAMPLES = [
    *(
        (f"{page.name}: {found[1]}", found[3])
        for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
        for found in HERE_DOCUMENT.finditer(page.read_text("utf-8"))
    ),
    *(
        (f"proxsmtpd.conf.5: {number}", found[1])
        for number, found in enumerate(
            LITERAL.finditer((ROOT / "docs/man/proxsmtpd.conf.5").read_text("utf-8").partition(".Sh EXAMPLES")[2])
        )
    ),
]


def test_there_are_some() -> None:
    named = [name for name, _ in EXAMPLES]
    assert any(name.startswith("README.md") for name in named)
    assert len(named) >= 4


@pytest.mark.parametrize(("name", "text"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_an_example_is_accepted_without_a_warning(name: str, text: str) -> None:
    configuration = parse_config(text.encode(), f"/etc/proxsmtp-tp/{Path(name).stem}.conf")
    assert configuration.warnings == ()
    assert advice(configuration.settings) == []
