"""Every sentence of the original's two man pages has cases, and every case that is named exists (manpages.table)."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conformance.test_command_line import STARTS
from tests.conformance.test_dialogues import CASES

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PAGES = {
    "proxsmtpd(8)": ("usr/share/man/man8/proxsmtpd.8.gz", "a685af66d405c70c2d3a6945e78fdf6c"),
    "proxsmtpd.conf(5)": ("usr/share/man/man5/proxsmtpd.conf.5.gz", "04d4895000d0f490103ca4705ff05d0c"),
}
"""Where Debian's package has them, and the MD5 sums of the files that the table was made from."""


@dataclass(frozen=True)
class Row:
    """`text` is a sentence, or a section's name; `cases` are the names under it."""

    page: str
    text: str
    cases: tuple[str, ...]
    heading: bool = False


def rows() -> list[Row]:
    """The table, in order."""
    found: list[Row] = []
    page = ""
    lines = [line for line in (HERE / "manpages.table").read_text("utf-8").splitlines() if line and line[0] != "#"]
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("page "):
            page = line.removeprefix("page ")
        elif line.startswith("section "):
            found.append(Row(page, line.removeprefix("section "), (), heading=True))
        elif not line.startswith(" "):
            found.append(Row(page, line, tuple(below.split()) if below.startswith(" ") else ()))
    return found


SENTENCES = [row for row in rows() if not row.heading]
NAMES = {case.name for case in CASES} | {f"start:{start.name}" for start in STARTS}


def stands(name: str) -> bool:
    """Whether a case or test of that name exists."""
    file, separator, test = name.partition("::")
    if not separator:
        return name in NAMES
    path = (ROOT if "/" in file else HERE) / file
    return path.exists() and re.search(rf"^def {re.escape(test)}\(", path.read_text("utf-8"), re.MULTILINE) is not None


@pytest.mark.parametrize("row", SENTENCES, ids=lambda row: f"{row.page}: {row.text[:50]}")
def test_every_sentence_has_cases(row: Row) -> None:
    assert row.cases, f"nothing shows this: {row.text}"
    assert [name for name in row.cases if not stands(name)] == []


@pytest.mark.parametrize("page", PAGES)
def test_no_sentence_is_forgotten(page: str) -> None:
    """The table is the page. Where dpkg was told to leave man pages out, its list of sums still names the same page."""
    path, digest = PAGES[page]
    sums = Path("/var/lib/dpkg/info/proxsmtp.md5sums").read_text("ascii").splitlines()
    assert f"{digest}  {path}" in sums
    installed = Path("/", path)
    if installed.exists():
        table = "".join(row.text for row in rows() if row.page == page)
        assert without_blanks(table) == without_blanks(text_of(installed))


def text_of(page: Path) -> str:
    """A man page as plain text, without its head and foot."""
    command = ["mandoc", "-T", "ascii", "-O", "width=1000", str(page)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return "\n".join(re.sub(".\b", "", done.stdout).splitlines()[1:-1])


def without_blanks(text: str) -> str:
    """Only what prints: line breaks and indents are the formatter's."""
    return "".join(text.split())
