"""Writes the table of outcomes into docs/tls.md: what a Postfix of each level makes of each action.

As root: `.venv/bin/python -m proxsmtp_tp.lab.isolate .venv/bin/python -m tests.tls.table`
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from proxsmtp_tp.lab.network import gateway_network
from tests.tls.levels import ACTIONS, LEVELS, Outcome, find_all

PAGE = Path(__file__).parents[2] / "docs/tls.md"
BEGIN, END = "<!-- made by tests/tls/table.py -->\n", "<!-- end -->\n"

Outcomes = dict[tuple[str, str], Outcome]


def table(outcomes: Outcomes) -> str:
    """In Markdown: a row for each level, a column for each action."""
    head = ["sender", *(action.shown for action in ACTIONS)]
    rows = [
        [f"Postfix {level.shown}", *(outcomes[level.name, action.name].shown for action in ACTIONS)] for level in LEVELS
    ]
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def in_page() -> str:
    """The table that the page has."""
    return PAGE.read_text("utf-8").partition(BEGIN)[2].partition(END)[0]


def main() -> None:
    """Try all, write the table."""
    with tempfile.TemporaryDirectory(prefix="proxsmtp-tls.") as name, gateway_network() as network:
        directory = Path(name)
        directory.chmod(0o755)
        outcomes = find_all(network, directory).outcomes
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    PAGE.write_text(before + BEGIN + table(outcomes) + END + rest.partition(END)[2], "utf-8")


if __name__ == "__main__":
    main()
