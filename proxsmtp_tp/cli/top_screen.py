"""The terminal of `top`: curses draws the lines, and a thread asks the daemon.

So keys work while the daemon does not answer. Only attributes, no colour. What is decided is in `top_state` and
`top_lines`.
"""

from __future__ import annotations

import curses
import locale
import os
import queue
import select
import signal
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from proxsmtp_tp.cli.daemon import NoAnswerError
from proxsmtp_tp.cli.top_lines import Line, Page, Style, page
from proxsmtp_tp.cli.top_reading import NoReadingError, Rates, rates, reading
from proxsmtp_tp.cli.top_rows import clipped
from proxsmtp_tp.cli.top_state import Action, press

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from proxsmtp_tp.cli.top_reading import Reading
    from proxsmtp_tp.cli.top_state import State

    Ask = Callable[..., dict[str, Any]]
    """`ask(command, **fields)`: the daemon's answer. Raises NoAnswerError."""

_LOOK = 0.1
"""Seconds that the screen waits for a key, before it looks whether there is an answer."""

_KEYS = {
    curses.KEY_UP: "UP", curses.KEY_DOWN: "DOWN", curses.KEY_LEFT: "LEFT", curses.KEY_RIGHT: "RIGHT",
    curses.KEY_PPAGE: "PAGE UP", curses.KEY_NPAGE: "PAGE DOWN", curses.KEY_HOME: "HOME", curses.KEY_END: "END",
    curses.KEY_ENTER: "ENTER", curses.KEY_BACKSPACE: "BACKSPACE",
    "\n": "ENTER", "\r": "ENTER", "\x1b": "ESC", "\t": "TAB", "\x7f": "BACKSPACE", "\b": "BACKSPACE",
}  # fmt: skip


class NoScreenError(Exception):
    """This terminal cannot show it; the text says why."""


class _Answer(NamedTuple):
    """The result of a request: `answer`, or the problem in `trouble`."""

    command: str
    answer: dict[str, Any]
    trouble: str


class Asker(threading.Thread):
    """Asks the daemon, one request after the other."""

    def __init__(self, ask: Ask) -> None:
        super().__init__(daemon=True)  # a daemon that hangs does not prevent the end of the command
        self._ask = ask
        self._requests: queue.SimpleQueue[tuple[str, dict[str, Any]]] = queue.SimpleQueue()
        self.answers: queue.SimpleQueue[_Answer] = queue.SimpleQueue()

    def request(self, command: str, **fields: Any) -> None:
        """Ask soon; the answer comes into `answers`."""
        self._requests.put((command, fields))

    def run(self) -> None:
        """Until the process ends."""
        while True:
            command, fields = self._requests.get()
            try:
                self.answers.put(_Answer(command, self._ask(command, **fields), ""))
            except NoAnswerError as error:
                self.answers.put(_Answer(command, {}, str(error)))


class Live:
    """The current data: the last two readings, and the reason if there is no newer one."""

    def __init__(self, state: State, ask: Ask, first: Reading) -> None:
        self.state = state
        self.read = first
        self.per_second = Rates()
        self.trouble = ""
        self.changed = True
        self._asker = Asker(ask)
        self._waiting = False
        self._next = time.monotonic() + min(1.0, state.interval)  # the first rates come soon
        self._asker.start()

    def step(self) -> None:
        """Take what has been answered, and ask when it is time."""
        with suppress(queue.Empty):
            while True:
                self._take(self._asker.answers.get_nowait())
        if not self.state.paused and not self._waiting and time.monotonic() >= self._next:
            self.ask()

    def ask(self) -> None:
        """Ask now, if no request is on its way."""
        if not self._waiting:
            self._waiting = True
            self._asker.request("top", since=self.read.numbers)

    def kill(self) -> None:
        """End the session that the user has chosen."""
        self._asker.request("kill-session", id=self.state.killing)

    def _take(self, answer: _Answer) -> None:
        self.changed = True
        if answer.command == "kill-session":
            self.state.message = answer.trouble or f"session {self.state.killing} ends within a second"
            return
        self._waiting = False
        self._next = time.monotonic() + self.state.interval
        self.trouble = answer.trouble
        if not answer.trouble:
            self._use(answer.answer)

    def _use(self, answer: dict[str, Any]) -> None:
        try:
            now = reading(answer)
        except NoReadingError as error:
            self.trouble = str(error)
            return
        if now.status["pid"] != self.read.status["pid"]:
            self.state.message = "the daemon was restarted: rates begin again"
        self.per_second, self.read = rates(self.read, now), now


def show(state: State, ask: Ask, first: Reading) -> None:
    """Show the screen until the user leaves, or the terminal is closed. Raises NoScreenError."""
    with suppress(locale.Error):
        locale.setlocale(locale.LC_ALL, "")
    os.environ.setdefault("ESCDELAY", "50")  # milliseconds that Esc alone takes (ncurses(3)); over ssh keys come whole
    try:
        window = curses.initscr()
    except curses.error as error:
        raise NoScreenError(str(error)) from None
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    try:
        curses.noecho()
        curses.cbreak()
        window.keypad(True)
        with suppress(curses.error):
            curses.curs_set(0)
        window.timeout(round(_LOOK * 1000))
        _loop(window, Live(state, ask, first))
    except KeyboardInterrupt:
        pass
    finally:
        with suppress(curses.error):
            window.keypad(False)
            curses.endwin()


def _leave(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _loop(window: curses.window, live: Live) -> None:
    state = live.state
    terminal = select.poll()
    terminal.register(0, 0)  # only whether it is gone: poll(2) always reports POLLHUP and POLLERR
    while True:
        live.step()
        size = window.getmaxyx()
        shown = page(state, live.read, live.per_second, live.trouble, size)
        if live.changed:
            _draw(window, shown)
            live.changed = False
        key = _key(window)
        if key is None:
            if terminal.poll(0):
                return
            continue
        live.changed = True
        if key == "RESIZE":
            continue
        action = press(state, key, state.rows(live.read, live.per_second.seconds), shown.rows)
        if action is Action.QUIT:
            return
        if action is Action.READ:
            live.ask()
        elif action is Action.KILL:
            live.kill()


def _key(window: curses.window) -> str | None:
    """The next key by its name; None: there was none. Another size of the terminal is the key RESIZE."""
    try:
        key = window.get_wch()
    except curses.error:
        return None
    if key == curses.KEY_RESIZE:
        return "RESIZE"
    return _KEYS.get(key) or (key if isinstance(key, str) else "")


_ATTRIBUTES = {
    Style.PLAIN: curses.A_NORMAL,
    Style.BOLD: curses.A_BOLD,
    Style.HEADER: curses.A_REVERSE,
    Style.SELECTED: curses.A_REVERSE | curses.A_BOLD,
}


def _draw(window: curses.window, shown: Page) -> None:
    window.erase()
    height, width = window.getmaxyx()
    for number, line in enumerate(shown.lines[:height]):
        with suppress(curses.error):  # the cursor has no place behind the last cell of the last line
            window.addstr(number, 0, _encodable(window, line, width), _ATTRIBUTES[line.style])
    window.refresh()


def _encodable(window: curses.window, line: Line, width: int) -> str:
    """What the terminal's character set has; other characters are escaped."""
    encoding = getattr(window, "encoding", "ascii")
    return clipped(line.text.encode(encoding, "backslashreplace").decode(encoding), width)
