"""Runs the commands that a page of docs/ tells its reader to type: the console blocks of a section.

A block is a fence of the kind `console`. A line that begins with the prompt of root, `# `, is a command, together with
the here-document that it begins; what follows it up to the next prompt is what the reader is promised to see. Numbers
may differ, and `...` stands for anything, alone on a line for any lines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tools.deb import TREE

if TYPE_CHECKING:
    from tests.deploy.acceptance import Machine

PROMPT = "# "


@dataclass(frozen=True, slots=True)
class Step:
    """A command, and the lines that the page shows below it."""

    command: str
    shown: list[str]


def blocks(page: str, heading: str) -> list[list[Step]]:
    """Those below a heading of docs/`page`, up to the next heading. Raises ValueError if there are none."""
    _, found, rest = (TREE / "docs" / page).read_text().partition(f"\n{heading}\n")
    section = re.split(r"\n#+ .*\n\n", rest, maxsplit=1)[0]
    fences = re.findall(r"^( *)```console\n(.*?)^ *```$", section, re.DOTALL | re.MULTILINE)
    if not found or not fences:
        raise ValueError(f"docs/{page} has no console block below {heading!r}")
    return [_steps([line.removeprefix(indent) for line in text.splitlines()]) for indent, text in fences]


def follow(machine: Machine, steps: list[Step]) -> None:
    """Type all in /root. Raises LabError where one fails, AssertionError where the page promises other words."""
    for step in steps:
        said = machine.run("sh", "-ec", f"cd /root; {step.command}")
        if step.shown:
            pattern = r"\s*\n".join(_pattern(line) for line in step.shown)
            assert re.search(pattern, said), f"{step.command}\nis to show\n{pattern}\nand shows\n{said}"


def _steps(lines: list[str]) -> list[Step]:
    steps: list[Step] = []
    end = None
    for line in lines:
        if end is not None:
            steps[-1] = Step(f"{steps[-1].command}\n{line}", [])
            end = None if line == end else end
        elif line.startswith(PROMPT):
            steps.append(Step(line.removeprefix(PROMPT), []))
            here = re.search(r"<<(\w+)", line)
            end = here[1] if here else None
        else:
            steps[-1].shown.append(line)
    return steps


def _pattern(line: str) -> str:
    if line == "...":
        return r"(?:.*\n)*?.*"
    parts = re.split(r"(\.\.\.|\d+)", line)
    wild = {"...": ".*"}
    return "".join(wild.get(part, r"\d+" if part.isdigit() else re.escape(part)) for part in parts)
