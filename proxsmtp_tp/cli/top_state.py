"""What the person at the terminal has chosen in `top`, and what a key does. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

from proxsmtp_tp.cli.top_reading import VIEWS
from proxsmtp_tp.cli.top_rows import BY, COLUMNS, Choice, chosen, key_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxsmtp_tp.cli.top_reading import Reading
    from proxsmtp_tp.cli.top_rows import Row

INTERVAL_LEAST, INTERVAL_MOST = 0.5, 60.0
"""Seconds: an answer costs the daemon up to a tenth of a second; after a minute nobody calls it live."""
FILTER_MAX = 40
"""Characters: half of a line."""


class Action(Enum):
    """What the screen must do."""

    QUIT = auto()
    READ = auto()
    """Ask the daemon now."""
    KILL = auto()
    """End the session `State.killing`."""


@dataclass(slots=True)
class State:
    """`selected` is the key of a row by view: the row stays selected wherever the next reading puts it."""

    view: str = "clients"
    interval: float = 2.0
    text: str = ""
    """Only rows that contain it are shown."""
    sort: dict[str, int] = field(default_factory=dict)
    reverse: dict[str, bool] = field(default_factory=lambda: dict.fromkeys(VIEWS, False))
    selected: dict[str, str] = field(default_factory=lambda: dict.fromkeys(VIEWS, ""))
    first: int = 0
    """The row at the top of the table."""
    typed: str | None = None
    """What is being typed after `/`; None: nothing is."""
    killing: str = ""
    """The session that the question `end it?` is about, or that must end."""
    asked: bool = False
    """Whether that question is on the screen."""
    paused: bool = False
    help: bool = False
    message: str = ""
    """Shown until the next key."""

    def __post_init__(self) -> None:
        if not self.sort:
            self.sort_by("sessions")
            self.sort["sessions"] = _place("sessions", "FOR")

    def sort_by(self, by: str) -> None:
        """As the option --by: one of BY."""
        self.sort = {view: _place(view, title) for view, title in zip(VIEWS, BY[by], strict=True)}

    def rows(self, read: Reading, seconds: float) -> list[Row]:
        """Those of this view that are shown, in their order; `seconds` between the last two readings."""
        view = self.view
        return chosen(Choice(view, self.sort[view], self.reverse[view], self.text), read.rows[view], seconds)

    def place(self, rows: Sequence[Row]) -> int:
        """Where the selected row is; the first one where it is gone."""
        key = self.selected[self.view]
        return next((place for place, row in enumerate(rows) if key_of(self.view, row) == key), 0)

    def scroll(self, rows: Sequence[Row], height: int) -> None:
        """Keep the selected row on the screen, where `height` rows have space."""
        place = self.place(rows)
        self.first = max(0, min(self.first, len(rows) - height, place))
        if place >= self.first + height:
            self.first = place - height + 1


def press(state: State, key: str, rows: Sequence[Row], page: int) -> Action | None:
    """A key: a character, or a name such as UP. `rows` are shown; `page` of them fit on the screen."""
    state.message = ""
    if state.typed is not None:
        _type(state, state.typed, key)
        return None
    if state.asked:
        state.asked = False
        if key in {"y", "Y"}:
            return Action.KILL
        state.message = "nothing was ended"
        return None
    if state.help:
        state.help = False
        return Action.QUIT if key in {"q", "Q"} else None
    if key in _MOVES:
        _move(state, rows, _MOVES[key] * (page if key.startswith("PAGE") else 1))
        return None
    action = _ACTIONS.get(key)
    return action(state, rows) if action is not None else None


def _type(state: State, typed: str, key: str) -> None:
    if key == "ENTER":
        state.text, state.typed, state.first = typed, None, 0
    elif key == "ESC":
        state.typed = None
    elif key == "BACKSPACE":
        state.typed = typed[:-1]
    elif len(key) == 1 and key.isprintable() and len(typed) < FILTER_MAX:
        state.typed = typed + key


def _move(state: State, rows: Sequence[Row], by: int) -> None:
    if rows:
        place = max(0, min(state.place(rows) + by, len(rows) - 1))
        state.selected[state.view] = key_of(state.view, rows[place])


def _quit(_state: State, _rows: Sequence[Row]) -> Action:
    return Action.QUIT


def _show(view: str) -> _Do:
    def show(state: State, _rows: Sequence[Row]) -> None:
        state.view, state.first = view, 0

    return show


def _next_view(state: State, rows: Sequence[Row]) -> None:
    _show(VIEWS[(VIEWS.index(state.view) + 1) % len(VIEWS)])(state, rows)


def _sort(by: int) -> _Do:
    def sort(state: State, _rows: Sequence[Row]) -> None:
        state.sort[state.view] = (state.sort[state.view] + by) % len(COLUMNS[state.view])

    return sort


def _reverse(state: State, _rows: Sequence[Row]) -> None:
    state.reverse[state.view] = not state.reverse[state.view]


def _filter(state: State, _rows: Sequence[Row]) -> None:
    state.typed = state.text


def _all_rows(state: State, _rows: Sequence[Row]) -> None:
    state.text = ""


def _kill(state: State, rows: Sequence[Row]) -> None:
    if state.view != "sessions":
        state.message = "only a session can be ended: Enter shows those of this row"
    elif not rows:
        state.message = "there is no session"
    else:
        state.killing = key_of("sessions", rows[state.place(rows)])
        state.asked = True


def _sessions_of(state: State, rows: Sequence[Row]) -> None:
    """Those of the selected client or server."""
    if state.view == "sessions" or not rows:
        return
    name = key_of(state.view, rows[state.place(rows)])
    state.text = name.removesuffix("::") if ":" in name else name  # a client of IPv6 is a /64
    _show("sessions")(state, rows)


def _pause(state: State, _rows: Sequence[Row]) -> Action | None:
    state.paused = not state.paused
    return None if state.paused else Action.READ


def _read(_state: State, _rows: Sequence[Row]) -> Action:
    return Action.READ


def _slower(factor: float) -> _Do:
    def slower(state: State, _rows: Sequence[Row]) -> None:
        state.interval = max(INTERVAL_LEAST, min(state.interval * factor, INTERVAL_MOST))

    return slower


def _help(state: State, _rows: Sequence[Row]) -> None:
    state.help = True


def _place(view: str, title: str) -> int:
    return [column.title for column in COLUMNS[view]].index(title)


if TYPE_CHECKING:
    from collections.abc import Callable

    _Do = Callable[[State, Sequence[Row]], Action | None]

_MOVES = {"UP": -1, "DOWN": 1, "PAGE UP": -1, "PAGE DOWN": 1, "HOME": -(10**9), "END": 10**9}

_ACTIONS: dict[str, _Do] = {
    "q": _quit, "Q": _quit,
    "?": _help, "h": _help,
    "1": _show("clients"), "2": _show("servers"), "3": _show("sessions"), "TAB": _next_view,
    "<": _sort(-1), ">": _sort(1), "LEFT": _sort(-1), "RIGHT": _sort(1), "r": _reverse,
    "/": _filter, "ESC": _all_rows,
    "k": _kill,
    "ENTER": _sessions_of,
    "p": _pause, " ": _read,
    "+": _slower(2.0), "-": _slower(0.5),
}  # fmt: skip

HELP = (
    "1 2 3, Tab     clients, servers, sessions",
    "up, down       choose a row; also Page Up, Page Down, Home, End",
    "Enter          the sessions of the chosen client or server",
    "< > (arrows)   sort by the column to the left or right;  r  reverse the order",
    "/              show only rows that contain a text;  Esc  show all rows again",
    "k              end the chosen session with 421, after a question",
    "p              pause, and go on;  Space  read now",
    "+ -            read half as often, or twice as often",
    "q              leave",
    "",
    "SESS sessions that run now, AGE of the oldest. MSG/S mails that have ended, a",
    "second, also those refused at MAIL or RCPT; 5XX/S and 4XX/S those of them with",
    "such a reply. SLOW the longest time from the end of a message to its reply.",
    "FILT messages at the filter, QUEUE waiting for it. WAIT the longest wait now:",
    "for the filter (clients), the server (servers). DOWN time without a connection.",
)
"""At most 80 columns; the screen shows it in place of the table."""
