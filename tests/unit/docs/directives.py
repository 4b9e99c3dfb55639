"""The list of directives in proxsmtpd.conf(5), made from the table: `python -m tests.unit.docs.directives` writes it.

mdoc(7): a macro stands at the beginning of a line, a backslash begins an escape, a sentence begins a line,
and lines have less than 80 characters.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from proxsmtp_tp.config.directives.table import DIRECTIVES

if TYPE_CHECKING:
    from proxsmtp_tp.config.directives.directive import Directive

PAGE = Path(__file__).parents[3] / "docs/man/proxsmtpd.conf.5"
BEGIN, END = '.\\" begin\n', '.\\" end\n'


def made() -> str:
    """The list in mdoc, with its line ends."""
    return "".join([".Bl -tag -width Ds\n", *map(_item, DIRECTIVES), ".El\n"])


def in_page(page: str) -> str:
    """The list as it stands in the page's text."""
    return page.split(BEGIN)[1].split(END, maxsplit=1)[0]


def _item(row: Directive) -> str:
    lines = [f".It Cm {row.name} : Ar {_escaped(row.kind.syntax)}", *_sentences(row.text)]
    lines += [".br", f"Default: {_escaped(row.shown_default)}."]
    if row.since != "1.10":
        lines[-1] += f" New in {row.since}."
        lines[-1:] = lines[-1].replace(". New", ".\nNew").splitlines()
    return "\n".join(lines) + "\n"


def _sentences(text: str) -> list[str]:
    sentences = re.split(r"(?<=[.?]) (?=[A-Z0-9])", text)
    return [line for sentence in sentences for line in textwrap.wrap(_escaped(sentence), 78, break_on_hyphens=False)]


def _escaped(text: str) -> str:
    text = text.replace("\\", "\\e").replace("'", "\\(aq")
    return f"\\&{text}" if text.startswith((".", "'")) else text


if __name__ == "__main__":
    old = PAGE.read_text("utf-8")
    PAGE.write_text(old.replace(BEGIN + in_page(old) + END, BEGIN + made() + END), "utf-8")
