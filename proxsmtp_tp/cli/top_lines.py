"""The screen of `top` as lines with a style. Pure, so that tests read exactly what is drawn."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from proxsmtp_tp.cli.top_reading import VIEWS
from proxsmtp_tp.cli.top_rows import COLUMNS, cells_of, clipped, key_of, table
from proxsmtp_tp.cli.top_state import HELP
from proxsmtp_tp.cli.top_summary import summary, title, warnings
from proxsmtp_tp.config.reader import printable

if TYPE_CHECKING:
    from proxsmtp_tp.cli.top_reading import Rates, Reading
    from proxsmtp_tp.cli.top_rows import Row
    from proxsmtp_tp.cli.top_state import State

_ROWS_LEAST = 4
"""At least this number of rows is shown in a low terminal; lines above the table are left out for them."""
_KEYS = (
    "q leave  ? help  1 clients  2 servers  3 sessions  <> sort  / filter  k kill  p pause",
    "q leave  ? help  1 2 3 view  <> sort  r reverse  / filter  k kill  p pause",
    "q leave  ? help  1 2 3 view  / filter",
    "? help",
)


class Style(Enum):
    """How a line looks. No colour: it must be readable in every terminal."""

    PLAIN = ""
    BOLD = "bold"
    HEADER = "header"
    SELECTED = "selected"


class Line(NamedTuple):
    """One line of the screen, at most as wide as it."""

    text: str
    style: Style = Style.PLAIN


class Page(NamedTuple):
    """The lines of the screen, from the top; and how many rows of the table have space."""

    lines: list[Line]
    rows: int


def page(state: State, read: Reading, per_second: Rates, trouble: str, size: tuple[int, int]) -> Page:
    """The whole screen. `trouble`: why the daemon does not answer now, or empty. `size`: lines and columns."""
    height, width = size
    rows = state.rows(read, per_second.seconds)
    head = [Line(_title(state, read, trouble, width), Style.BOLD)]
    above = [Line(text, Style.BOLD) for text in warnings(read.status)] + [
        Line(text) for text in summary(read, per_second)
    ]
    if trouble:
        above.insert(0, Line(f"last reading. {printable(trouble)}", Style.BOLD))
    detail = [Line(_detail(rows[state.place(rows)]))] if state.view == "sessions" and rows else []
    if state.help:
        above, detail = [], []
    fixed = len(head) + len(detail) + 3  # the line above the table, its header, and the last line
    space = max(0, height - fixed - _ROWS_LEAST)
    head += above[:space]
    count = max(1, height - len(head) - len(detail) - 3)
    middle = _help(count) if state.help else _table(state, read, rows, per_second, (count, width))
    lines = [*head, *middle]
    lines += [Line("")] * (height - len(lines) - len(detail) - 1)
    lines += [*detail, _last(state, width)]
    return Page([Line(clipped(line.text, width), line.style) for line in lines[:height]], count)


def _title(state: State, read: Reading, trouble: str, width: int) -> str:
    left = f"proxsmtp-tp top: {title(read)}"
    right = "NO ANSWER" if trouble else "PAUSED" if state.paused else f"every {state.interval:g} s"
    return f"{left}{' ' * max(2, width - cells_of(left) - len(right))}{right}"


def _table(state: State, read: Reading, rows: list[Row], per_second: Rates, size: tuple[int, int]) -> list[Line]:
    height, width = size
    state.scroll(rows, height)
    shown = rows[state.first : state.first + height]
    selected = key_of(state.view, rows[state.place(rows)]) if rows else ""
    header, *texts = table(state.view, shown, per_second.seconds, width)
    lines = [Line(_above(state, read, len(rows))), Line(header.ljust(width), Style.HEADER)]
    for row, text in zip(shown, texts, strict=True):
        chosen = key_of(state.view, row) == selected
        lines.append(
            Line(text + " " * (width - cells_of(text)) if chosen else text, Style.SELECTED if chosen else Style.PLAIN)
        )
    return lines


def _above(state: State, read: Reading, number: int) -> str:
    column = COLUMNS[state.view][state.sort[state.view]].title
    views = " ".join(f"[{view}]" if view == state.view else view for view in VIEWS)
    text = f"{views}  {number} by {column}{', reversed' if state.reverse[state.view] else ''}"
    if state.text:
        text += f", with {printable(state.text)!r}"
    if read.counted < read.total or (state.view == "sessions" and len(read.rows["sessions"]) < read.total):
        counted = len(read.rows["sessions"]) if state.view == "sessions" else read.counted
        text += f"; {counted} of {read.total} sessions, the longest in their phase"
    if read.lost and state.view != "sessions":
        text += f"; {read.lost} messages not counted"
    return text


def _detail(row: Row) -> str:
    text = f"{row.get('id')} HELO {row.get('helo') or '-'}"
    if row.get("from") is not None:
        more = f" and {row['recipients'] - 1} more" if row.get("recipients", 0) > 1 else ""
        text += f", from {row['from'] or '<>'} to {row.get('to') or 'nobody yet'}{more}"
    return printable(text)


def _help(height: int) -> list[Line]:
    return [Line(text) for text in ("keys", *HELP)][: height + 2]


def _last(state: State, width: int) -> Line:
    if state.typed is not None:
        return Line(f"only rows that contain (Enter, Esc): {state.typed}_", Style.BOLD)
    if state.asked:
        return Line(f"end session {state.killing} with 421? y/n", Style.BOLD)
    if state.message:
        return Line(printable(state.message), Style.BOLD)
    return Line(next((keys for keys in _KEYS if len(keys) < width), ""))
