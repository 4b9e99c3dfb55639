"""The tables of `top`: their columns, and rows that are sorted, chosen and shown as text. Pure.

Texts of peers reach the terminal with printable characters only, and only with as many as fit into the cells.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from proxsmtp_tp.config.reader import printable

Row = dict[str, Any]
Value = float | int | str


@dataclass(frozen=True, slots=True)
class Column:
    """`value` gives what is sorted, from a row and the seconds between two readings (0: not known)."""

    title: str
    value: Callable[[Row, float], Value]
    show: Callable[[Any], str] = str
    least: int = 0
    """Cells that are enough in a narrow terminal; 0: it needs all of them."""

    @property
    def is_text(self) -> bool:
        """Left-aligned, and sorted from A to Z."""
        return self.least > 0


def short(seconds: float) -> str:
    """A duration in at most 6 cells: `0.2s`, `59s`, `12m05`, `3h40`, `12d06h`."""
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}"
    if whole < 86400:
        return f"{whole // 3600}h{whole // 60 % 60:02d}"
    return f"{whole // 86400}d{whole // 3600 % 24:02d}h"


def rate(number: float) -> str:
    """Events a second, in at most 6 cells: one decimal below 100."""
    return f"{number:.1f}" if number < 99.95 else f"{number:.0f}"


def _number(name: str) -> Callable[[Row, float], Value]:
    return lambda row, _seconds: float(row.get(name) or 0)


def _text(name: str, absent: str = "-") -> Callable[[Row, float], Value]:
    return lambda row, _seconds: str(row.get(name) or absent)


def _replies(*classes: str) -> Callable[[Row, float], Value]:
    """Messages a second by the class of their reply; all of them without a class. -1: not known."""

    def value(row: Row, seconds: float) -> Value:
        if not seconds:
            return -1
        replies = row.get("replies", {})
        return float(sum(number for name, number in replies.items() if not classes or name in classes) / seconds)

    return value


def _kib(row: Row, seconds: float) -> Value:
    return float(row.get("octets", 0) / 1024 / seconds) if seconds else -1


def _count(number: Any) -> str:
    return str(int(number))


def _rate(number: Any) -> str:
    return "-" if number < 0 else rate(number) if number else "0"


def _seconds(number: Any) -> str:
    return short(number) if number else "-"


def _envelope(row: Row, _: float) -> Value:
    if row.get("from") is None:
        return "-"
    more = f" +{row['recipients'] - 1}" if row.get("recipients", 0) > 1 else ""
    return f"{row['from'] or '<>'} > {row.get('to') or '-'}{more}"


_TRAFFIC = (
    Column("SESS", _number("sessions"), _count),
    Column("MSG/S", _replies(), _rate),
    Column("5XX/S", _replies("5xx"), _rate),
    Column("4XX/S", _replies("4xx", "none"), _rate),
    Column("KIB/S", _kib, _rate),
)
"""Columns of clients and servers. A client that closed before the reply tries again, as after a 4xx."""

COLUMNS: dict[str, tuple[Column, ...]] = {
    "clients": (
        Column("CLIENT", _text("client"), least=15),
        *_TRAFFIC,
        Column("FILT", _number("filter"), _count),
        Column("QUEUE", _number("waiting"), _count),
        Column("WAIT", _number("wait"), _seconds),
        Column("SLOW", _number("slowest"), _seconds),
        Column("AGE", _number("longest"), _seconds),
    ),
    "servers": (
        Column("SERVER", _text("server"), least=15),
        *_TRAFFIC,
        Column("DIAL", _number("connecting"), _count),
        Column("FINAL", _number("final"), _count),
        Column("WAIT", _number("wait"), _seconds),
        Column("DOWN", _number("down"), _seconds),
        Column("SLOW", _number("slowest"), _seconds),
    ),
    "sessions": (
        Column("ID", _text("id"), least=13),
        Column("CLIENT", _text("client"), least=15),
        Column("PHASE", _text("phase"), least=10),
        Column("FOR", _number("phase_seconds"), short),
        Column("AGE", _number("seconds"), short),
        Column("MSGS", _number("messages"), _count),
        Column("SERVER", _text("server"), least=13),
        Column("ENVELOPE", _envelope, least=12),
    ),
}
"""By view. Columns that do not fit are left out from the right."""

_STEADY = 5
"""Cells of a number on the screen, so that columns do not move with each reading."""

BY = {
    "sessions": ("SESS", "SESS", "AGE"),
    "messages": ("MSG/S", "MSG/S", "MSGS"),
    "refused": ("5XX/S", "5XX/S", "MSGS"),
    "bytes": ("KIB/S", "KIB/S", "MSGS"),
    "wait": ("WAIT", "WAIT", "FOR"),
}
"""--by: the column that is sorted, for each view in the order of COLUMNS."""


def key_of(view: str, row: Row) -> str:
    """The identity of a row, also in the next reading."""
    return str(row.get("id" if view == "sessions" else view.removesuffix("s")) or "")


class Choice(NamedTuple):
    """Which rows of a view are shown, and in which order."""

    view: str
    column: int
    """It is sorted by this one of COLUMNS."""
    reverse: bool
    text: str


def chosen(choice: Choice, rows: list[Row], seconds: float) -> list[Row]:
    """The rows that contain the text, sorted: numbers with the largest first, words from A to Z."""
    column, wanted = COLUMNS[choice.view][choice.column], choice.text.lower()
    found = [row for row in rows if not wanted or wanted in _words(row)]
    found.sort(key=lambda row: key_of(choice.view, row))
    found.sort(key=lambda row: column.value(row, seconds), reverse=column.is_text == choice.reverse)
    return found


def _words(row: Row) -> str:
    return "\n".join(value for value in row.values() if isinstance(value, str)).lower()


def table(view: str, rows: list[Row], seconds: float, width: int | None) -> list[str]:
    """The header and a line for each row. `width`: cells of a line; None: as many as it takes."""
    columns = COLUMNS[view]
    cells = [[printable(column.show(column.value(row, seconds))) for column in columns] for row in rows]
    widths = _widths(columns, cells, width)
    lines = []
    for line in [[column.title for column in columns], *cells]:
        parts = [
            _fitted(text, size, left=column.is_text) for column, text, size in zip(columns, line, widths, strict=False)
        ]
        lines.append(" ".join(parts).rstrip())
    return lines


def _widths(columns: tuple[Column, ...], cells: list[list[str]], width: int | None) -> list[int]:
    """Cells of each column. If they are too wide, the widest text is cut, then the last column is left out."""
    widths = [
        max(
            len(column.title),
            _STEADY if not column.is_text and width else 0,
            *(cells_of(line[place]) for line in cells),
            0,
        )
        for place, column in enumerate(columns)
    ]
    while width is not None and sum(widths) + len(widths) - 1 > width and len(widths) > 1:
        spare = [
            max(0, size - column.least) if column.is_text else 0 for size, column in zip(widths, columns, strict=False)
        ]
        too_much = sum(widths) + len(widths) - 1 - width
        if sum(spare) < too_much:
            widths.pop()
        else:
            place = spare.index(max(spare))
            others = max((size for number, size in enumerate(spare) if number != place), default=0)
            widths[place] -= max(1, min(too_much, spare[place] - others))
    return widths


def cells_of(text: str) -> int:
    """Cells of a terminal that printable text takes (wcwidth(3)): East Asian wide characters two, accents none."""
    if text.isascii():
        return len(text)
    return sum(_cells(char) for char in text)


def _cells(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def clipped(text: str, width: int) -> str:
    """The beginning that fits; `~` at the end says that there is more."""
    if cells_of(text) <= width:
        return text
    kept, used = [], 0
    for char in text:
        used += _cells(char)
        if used > width - 1:
            break
        kept.append(char)
    return "".join(kept) + "~" if width > 0 else ""


def _fitted(text: str, width: int, *, left: bool) -> str:
    text = clipped(text, width)
    space = " " * (width - cells_of(text))
    return text + space if left else space + text
