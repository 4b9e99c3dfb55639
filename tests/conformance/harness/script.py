"""Case files as values. The notation is described in ../cases/README.md.

Pure: text in, `Case` values out. What is no case raises `ScriptError` with file and line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


class Side(Enum):
    """Which daemon a case is played against."""

    ORIGINAL = "original"
    OURS = "ours"


class ScriptError(Exception):
    """A line of a case file says nothing that the notation knows."""


@dataclass(frozen=True, slots=True)
class Step:
    """`actor` C, c, S, s, log, seen, .. does `action`; `text` as written, escapes and places not yet resolved."""

    actor: str
    action: str
    text: str
    sides: frozenset[Side]
    line: int

    def __str__(self) -> str:
        return f"{self.actor}{self.action} {self.text}".rstrip()


@dataclass(slots=True)
class Case:
    """One case. `config` and `filter` are lines; `differs` is why ours does not do what 1.10 did, "" if it does.

    `unplayed` tells what 1.10 did where that is not played again, because it hangs or crashes.
    """

    name: str
    place: str
    about: str = ""
    differs: str = ""
    unplayed: str = ""
    level: int = 3
    config: list[tuple[str, frozenset[Side]]] = field(default_factory=list)
    filter: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    def steps_for(self, side: Side) -> list[Step]:
        """The script that this side plays."""
        return [step for step in self.steps if side in step.sides]

    def config_for(self, side: Side) -> tuple[str, ...]:
        """The configuration lines of this side. Listen, OutAddress and TempDirectory are added to every daemon's;
        the line `-TempDirectory` leaves that one at its default.
        """
        lines = [line for line, sides in self.config if side in sides]
        if self.filter and not any(line.lower().startswith("filtercommand") for line in lines):
            lines.append("FilterCommand: /bin/sh {dir}/filter")
        return tuple(lines)

    @property
    def sides(self) -> tuple[Side, ...]:
        """Which daemons play it."""
        return (Side.OURS,) if self.unplayed else (Side.ORIGINAL, Side.OURS)


_BOTH = frozenset(Side)
_PEER_STEP = re.compile(r"([CcSs])(:|\||~| closes| aborts| ended)(?: (.*))?")
_OTHER_STEP = re.compile(r"(log|no log|seen|both|pause)(~?)(?: (.*))?")
_ALLOWED = {
    "C": {":", "|", " closes", " aborts"},
    "S": {":", "|", " closes", " aborts"},
    "c": {":", "|", "~", " ended"},
    "s": {":", "|", "~", " ended"},
}
_REPEAT = re.compile(r"\{(.)\*([0-9]+)\}")
_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|[rnt0\\])")
_NAMED = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0", b"\\": b"\\"}


def resolve(text: str, places: dict[str, str]) -> bytes:
    r"""Bytes of a text: {x*9} repeated, {dir} and the like put in, \r \n \t \0 \\ \xHH read."""
    data = put_in(text, places).encode("utf-8")
    return _ESCAPE.sub(lambda match: _NAMED[match[1]] if match[1] in _NAMED else bytes([int(match[1][1:], 16)]), data)


def put_in(text: str, places: dict[str, str]) -> str:
    """The text with {x*9} repeated, {dir} and the like put in."""
    text = _REPEAT.sub(lambda match: match[1] * int(match[2]), text)
    for name, value in places.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def load(files: Iterable[Path]) -> list[Case]:
    """All cases of these files, in order. Macros of a file are known in the files after it."""
    macros: dict[str, list[tuple[int, str]]] = {}
    cases: dict[str, Case] = {}
    for file in files:
        for case in _Reader(file.name, macros).read(file.read_text("utf-8")):
            if case.name in cases:
                raise ScriptError(f"{case.place}: {case.name} is also in {cases[case.name].place}")
            cases[case.name] = case
    return list(cases.values())


class _Reader:
    def __init__(self, file: str, macros: dict[str, list[tuple[int, str]]]) -> None:
        self.file = file
        self.macros = macros
        self.case: Case | None = None
        self.macro: list[tuple[int, str]] | None = None

    def read(self, text: str) -> Iterator[Case]:
        for number, raw in enumerate(text.splitlines(), 1):
            line = raw.rstrip("\n")
            if not line or line.startswith("#"):
                continue
            word, _, rest = line.partition(" ")
            if word == "case":
                if self.case is not None:
                    yield self._checked(self.case)
                self.case, self.macro = Case(rest, f"{self.file}:{number}"), None
            elif word == "macro":
                if self.case is not None:
                    yield self._checked(self.case)
                self.case, self.macro = None, self.macros.setdefault(rest, [])
            elif self.macro is not None:
                self.macro.append((number, line))
            else:
                self._line(number, line, _BOTH)
        if self.case is not None:
            yield self._checked(self.case)

    def _checked(self, case: Case) -> Case:
        if not case.about:
            raise ScriptError(f"{case.place}: {case.name} does not say what it is about")
        apart = case.unplayed or any(step.sides != _BOTH for step in case.steps)
        if bool(case.differs) != bool(apart):
            raise ScriptError(f"{case.place}: {case.name}: `differs` and steps for one side go together")
        return case

    def _line(self, number: int, line: str, sides: frozenset[Side]) -> None:
        if self.case is None:
            raise ScriptError(f"{self.file}:{number}: outside of a case: {line}")
        word, _, rest = line.partition(" ")
        if word in {"original", "ours"} and sides == _BOTH:
            self._line(number, rest, frozenset({Side(word)}))
        elif word.startswith("@"):
            self._expand(number, word[1:], rest.split(), sides)
        elif word in {"about", "differs", "unplayed"}:
            setattr(self.case, word, f"{getattr(self.case, word)} {rest}".strip())
        elif word == "config":
            self.case.config.append((rest, sides))
        elif word == "filter":
            self.case.filter.append(rest)
        elif word == "level":
            self.case.level = int(rest)
        else:
            self.case.steps.append(self._step(number, line, sides))

    def _expand(self, number: int, name: str, values: list[str], sides: frozenset[Side]) -> None:
        if name not in self.macros:
            raise ScriptError(f"{self.file}:{number}: no macro {name}")
        for _, template in self.macros[name]:
            line = template
            for index, value in enumerate(values, 1):
                line = line.replace(f"${index}", value)
            self._line(number, line, sides)

    def _step(self, number: int, line: str, sides: frozenset[Side]) -> Step:
        match = _PEER_STEP.fullmatch(line)
        if match is not None and match[2] in _ALLOWED[match[1]]:
            return Step(match[1], match[2], match[3] or "", sides, number)
        match = _OTHER_STEP.fullmatch(line)
        if match is None:
            raise ScriptError(f"{self.file}:{number}: not understood: {line}")
        return Step(match[1], match[2], match[3] or "", sides, number)
