"""proxsmtp-tp top: what the daemon does now, live in the terminal; as text or JSON for scripts."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.cli.daemon import NoAnswerError, ask_daemon, complain
from proxsmtp_tp.cli.instances import add_options
from proxsmtp_tp.cli.top_reading import VIEWS, NoReadingError, Rates, Reading, rates, reading
from proxsmtp_tp.cli.top_rows import BY, table
from proxsmtp_tp.cli.top_state import INTERVAL_LEAST, INTERVAL_MOST, State
from proxsmtp_tp.cli.top_summary import summary, title, warnings

if TYPE_CHECKING:
    from collections.abc import Callable

_OLDER = "no such command"
"""The answer of a daemon that was started before this version was installed (`service.control`)."""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `top`."""
    parser = subparsers.add_parser("top", help="show live what the daemon does: clients, servers, sessions, filters")
    add_options(parser)
    parser.add_argument("--once", action="store_true", help="print it once as text, and end; also where no terminal is")
    parser.add_argument("--json", action="store_true", help="for programs: one JSON object, and end")
    parser.add_argument(
        "--interval", metavar="SECONDS", type=_interval, default=2.0, help="between readings; default: 2"
    )
    parser.add_argument(
        "--view", choices=VIEWS, default="clients", help="the table that is shown first; default: clients"
    )
    parser.add_argument("--by", choices=tuple(BY), default=None, help="what is sorted")
    parser.add_argument("--filter", metavar="TEXT", default="", help="only rows that contain this text")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """0: shown. 1: the daemon does not answer. 2: usage."""
    state = State(view=args.view, interval=args.interval, text=args.filter)
    if args.by is not None:
        state.sort_by(args.by)

    def ask(command: str, **fields: Any) -> dict[str, Any]:
        return ask_daemon(args, command, **fields)

    try:
        first = _read(ask)
        if args.json or args.once or not _is_terminal():
            return _once(state, ask, first, as_json=args.json)
        return _live(state, ask, first)
    except NoAnswerError as error:
        return complain(error)


def _live(state: State, ask: Callable[..., dict[str, Any]], first: Reading) -> int:
    try:
        from proxsmtp_tp.cli.top_screen import NoScreenError, show  # noqa: PLC0415  (Pythons without curses exist)
    except ImportError:
        return _instead("this Python has no curses", state, ask, first)
    if (terminal := os.environ.get("TERM", "")) in {"", "dumb", "unknown"}:
        return _instead(f"TERM is {terminal or 'not set'}", state, ask, first)
    try:
        show(state, ask, first)
    except NoScreenError as error:
        return _instead(f"TERM is {terminal}: {error}", state, ask, first)
    return 0


def _instead(why: str, state: State, ask: Callable[..., dict[str, Any]], first: Reading) -> int:
    print(f"{why}: no live view here, this is --once", file=sys.stderr)
    return _once(state, ask, first, as_json=False)


def _once(state: State, ask: Callable[..., dict[str, Any]], first: Reading, *, as_json: bool) -> int:
    """Two readings, so that there are rates."""
    time.sleep(state.interval)
    now = _read(ask, since=first.numbers)
    per_second = rates(first, now)
    print(_json(state, now, per_second) if as_json else "\n".join(text(state, now, per_second)))
    return 0


def text(state: State, read: Reading, per_second: Rates) -> list[str]:
    """The lines of --once: as on the screen, but in full width and with all rows of the table."""
    rows = state.rows(read, per_second.seconds)
    head = [title(read), *warnings(read.status), *summary(read, per_second)]
    return [*head, "", *table(state.view, rows, per_second.seconds, None)]


def _json(state: State, read: Reading, per_second: Rates) -> str:
    """All views: their rows in the order of the screen."""
    rows = {}
    for view in VIEWS:
        state.view = view
        rows[view] = state.rows(read, per_second.seconds)
    seen = {"status": read.status, "total": read.total, "counted": read.counted, "lost": read.lost}
    return json.dumps({**seen, "rates": asdict(per_second), **rows})


def _read(ask: Callable[..., dict[str, Any]], **fields: Any) -> Reading:
    try:
        return reading(ask("top", **fields))
    except NoReadingError as error:
        raise NoAnswerError(str(error)) from None
    except NoAnswerError as error:
        if str(error).startswith(_OLDER):
            raise NoAnswerError("the daemon is older than this command: restart it") from None
        raise


def _is_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()


def _interval(given: str) -> float:
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not INTERVAL_LEAST <= seconds <= INTERVAL_MOST:
        raise argparse.ArgumentTypeError(f"{given!r}: write seconds, {INTERVAL_LEAST:g} to {INTERVAL_MOST:g}")
    return seconds
