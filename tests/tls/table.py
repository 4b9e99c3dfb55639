"""Writes the table of outcomes into docs/tls.md: what a Postfix of each level makes of each action.

As root: `.venv/bin/python -m proxsmtp_tp.lab.isolate .venv/bin/python -m tests.tls.table`
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from proxsmtp_tp.lab.network import gateway_network
from tests.tls.levels import ACTIONS, LEVELS, Action, Level, Outcome, find_all

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE = Path(__file__).parents[2] / "docs/tls.md"
BEGIN, END = "<!-- made by tests/tls/table.py -->\n", "<!-- end -->\n"

Outcomes = dict[tuple[str, str], Outcome]


def table(outcomes: Outcomes, levels: Sequence[Level] = LEVELS, actions: Sequence[Action] = ACTIONS) -> str:
    """In Markdown: a row for each level, a column for each action."""
    head = ["sender", *(action.shown for action in actions)]
    rows = [[level.shown, *(outcomes[level.name, action.name].shown for action in actions)] for level in levels]
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def in_page(begin: str = BEGIN) -> str:
    """The table that the page has behind this line."""
    return PAGE.read_text("utf-8").partition(begin)[2].partition(END)[0]


def write(text: str, begin: str = BEGIN) -> None:
    """Put it there."""
    before, _, rest = PAGE.read_text("utf-8").partition(begin)
    PAGE.write_text(before + begin + text + END + rest.partition(END)[2], "utf-8")


def main() -> None:
    """Try all, write the table."""
    with tempfile.TemporaryDirectory(prefix="proxsmtp-tls.") as name, gateway_network() as network:
        directory = Path(name)
        directory.chmod(0o755)
        write(table(find_all(network, directory).outcomes))


if __name__ == "__main__":
    main()
