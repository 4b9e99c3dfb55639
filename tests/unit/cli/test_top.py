"""proxsmtp-tp top without a terminal: readings, rates, rows, keys, lines; a daemon whose answers are given."""

from __future__ import annotations

import copy
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from proxsmtp_tp.cli import main as cli
from proxsmtp_tp.cli import top
from proxsmtp_tp.cli.daemon import NoAnswerError
from proxsmtp_tp.cli.top_lines import Style, page
from proxsmtp_tp.cli.top_reading import VIEWS, NoReadingError, Rates, Reading, rates, reading
from proxsmtp_tp.cli.top_rows import COLUMNS, cells_of, clipped, short, table
from proxsmtp_tp.cli.top_state import HELP, Action, State, press
from proxsmtp_tp.telemetry.metrics import SIZE, by_name
from proxsmtp_tp.telemetry.sessions import SessionPhase

if TYPE_CHECKING:
    from collections.abc import Callable

HOSTILE = "\x1b[2J\r\n\x9b\u202e\x07"


def session(identifier: str, client: str = "192.0.2.7:4711", **changes: object) -> dict[str, Any]:
    return {
        "id": identifier,
        "client": client,
        "server": "198.51.100.25",
        "phase": "filter",
        "phase_seconds": 3.0,
        "seconds": 5.0,
        "helo": "c.example",
        "messages": 1,
        "from": "a@c.example",
        "recipients": 3,
        "to": "b@mx.example",
        **changes,
    }


def peer(side: str, name: str, sessions: int = 1, **changes: object) -> dict[str, Any]:
    counts = dict.fromkeys(("messages", "waiting", "filter", "connecting", "final", "octets"), 0)
    replies = {"2xx": 0, "4xx": 0, "5xx": 0, "none": 0}
    times = {"wait": 0.0, "longest": 1.0, "slowest": 0.0}
    return {side: name, "sessions": sessions, **counts, **times, "replies": replies, **changes}


def answer(time: float = 1000.0, **changes: Any) -> dict[str, Any]:
    """What the daemon says; `totals` and `status` are changes of these objects."""
    totals = by_name([0] * SIZE)
    for family, series in changes.pop("totals", {}).items():
        totals[family] |= series
    status = {
        "instance": "inbound",
        "version": "2.1.0",
        "pid": 812,
        "uptime": int(time) - 100,
        "stopping": False,
        "connections": 4,
        "max_connections": 100,
        "sessions": {phase.name.lower(): 0 for phase in SessionPhase} | {"filter": 3},
        "filters": {"configured": True, "running": 3, "limit": 4, "waiting": 0, "oldest_wait": 0.0},
        "totals": totals,
        "servers_down": [],
        "workers": [{"phase": "running"}],
        **changes.pop("status", {}),
    }
    return {
        "time": time,
        "status": status,
        "times": {"filter": [0, 0.0]},
        "total": 3,
        "counted": 3,
        "sessions": [session("A", seconds=9.0), session("B", "192.0.2.9:1", phase_seconds=30.0), session("C")],
        "clients": [
            peer("client", "192.0.2.7", 2),
            peer("client", "192.0.2.9", 5),
            peer("client", "2001:db8:1:2::", 1),
        ],
        "servers": [peer("server", "198.51.100.25", 3)],
        "numbers": [3],
        "lost": 0,
        **changes,
    }


def two(seconds: float = 2.0, **changes: Any) -> tuple[Reading, Rates]:
    """The later one of two readings, and the rates between them."""
    now = reading(answer(1000.0 + seconds, **changes))
    return now, rates(reading(answer(1000.0)), now)


def shown(state: State, read: Reading, size: tuple[int, int] = (24, 80), per_second: Rates | None = None) -> list[str]:
    return [line.text for line in page(state, read, per_second or Rates(), "", size).lines]


def keys(state: State, *pressed: str, read: Reading | None = None) -> Action | None:
    """Press keys; what the last one wants."""
    wanted = None
    for key in pressed:
        wanted = press(state, key, state.rows(read or reading(answer()), 0.0), 5)
    return wanted


# Readings and rates.


def test_rates_are_differences_of_two_readings() -> None:
    totals = {"messages_total": {"filtered": 30, "rejected": 10}, "message_bytes_total": {"": 4096}}
    read, per_second = two(2.0, totals=totals, times={"filter": [4, 6.0]})
    assert per_second.seconds == 2.0
    assert per_second.totals["messages_total"]["filtered"] == 15.0
    assert per_second.means == {"filter": 1.5}
    lines = shown(State(), read, per_second=per_second)
    assert "messages 20.0/s: filtered 15.0, rejected 5.0; 2.0 KiB/s" in lines
    assert "mean seconds filter 1.50" in lines


@pytest.mark.parametrize("change", [{"status": {"pid": 813}}, {"time": 999.0}], ids=["restarted", "no time passed"])
def test_nothing_is_known_between_two_daemons(change: dict[str, Any]) -> None:
    before = reading(answer(totals={"messages_total": {"filtered": 1000}}))
    now = reading(answer(**{"time": 1002.0, **change}))
    assert rates(before, now) == Rates() == rates(None, now)
    lines = shown(State(), now)
    assert "messages -" in lines
    assert re.search(r"192\.0\.2\.9 +5 +- +- +- +-", "\n".join(lines))


@pytest.mark.parametrize("gone", ["status", "time", "clients", "numbers", "times"])
def test_an_answer_of_another_version(gone: str) -> None:
    given = answer()
    del given[gone]
    with pytest.raises(NoReadingError, match="another version"):
        reading(given)


def test_a_server_that_is_down_has_a_row_without_a_session() -> None:
    down = [{"server": "198.51.100.25:25", "seconds": 7, "failures": 2}, {"server": "[2001:db8::25]:25", "seconds": 9}]
    read = reading(answer(status={"servers_down": down}))
    assert [(row["server"], row["down"]) for row in read.rows["servers"]] == [("198.51.100.25", 7), ("2001:db8::25", 9)]
    assert re.search(r"2001:db8::25 +0 .*9\.0s +-$", "\n".join(shown(State(view="servers"), read)), re.MULTILINE)


# Rows.


def test_clients_are_sorted_by_what_was_chosen() -> None:
    clients = [
        peer("client", "192.0.2.1", 9, replies={"2xx": 4, "5xx": 0}, octets=10),
        peer("client", "192.0.2.2", 1, replies={"2xx": 0, "5xx": 6}, octets=20, wait=3.0),
    ]
    read, per_second = two(clients=clients)
    for by, first in {"sessions": "1", "messages": "2", "refused": "2", "bytes": "2", "wait": "2"}.items():
        state = State()
        state.sort_by(by)
        assert state.rows(read, per_second.seconds)[0]["client"] == f"192.0.2.{first}", by
        keys(state, "r")
        assert state.rows(read, per_second.seconds)[0]["client"] != f"192.0.2.{first}", by
    assert re.search(r"192\.0\.2\.2 +1 +3\.0 +3\.0 +0 ", "\n".join(shown(State(), read, per_second=per_second)))


def test_every_column_can_be_sorted_and_the_way_back() -> None:
    for view in VIEWS:
        state = State(view=view)
        begin = state.sort[view]
        for _ in COLUMNS[view]:
            keys(state, ">")
            shown(state, reading(answer()))
        assert state.sort[view] == begin
        keys(state, ">", "<")
        assert state.sort[view] == begin


def test_text_is_sorted_from_a_to_z() -> None:
    state = State(view="sessions")
    state.sort["sessions"] = 0
    assert [row["id"] for row in state.rows(reading(answer()), 0.0)] == ["A", "B", "C"]
    keys(state, "r")
    assert [row["id"] for row in state.rows(reading(answer()), 0.0)] == ["C", "B", "A"]


def test_only_rows_that_contain_the_text() -> None:
    state = State()
    keys(state, "/", *"2001:X", "BACKSPACE", *"DB8", "ENTER")
    assert [row["client"] for row in state.rows(reading(answer()), 0.0)] == ["2001:db8:1:2::"]
    assert "with '2001:DB8'" in "\n".join(shown(state, reading(answer())))
    keys(state, "ESC")
    assert len(state.rows(reading(answer()), 0.0)) == 3
    keys(state, "/", "x", "ESC")
    assert state.text == ""
    keys(state, "/", *"y" * 100, "ENTER")
    assert state.text == "y" * 40


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0s"), (9.94, "9.9s"), (9.96, "10s"), (59.4, "59s"), (59.6, "1m00"), (3599, "59m59"), (3600, "1h00"),
     (86399, "23h59"), (86400 * 12 + 7200, "12d02h")],
)  # fmt: skip
def test_short_durations(seconds: float, text: str) -> None:
    assert short(seconds) == text


# Keys.


def test_the_selected_row_stays_selected_where_it_moves() -> None:
    state, read = State(view="sessions"), reading(answer())
    keys(state, "DOWN", read=read)
    chosen = state.selected["sessions"]
    moved = reading(answer(sessions=[session("X", phase_seconds=99.0), *answer()["sessions"]]))
    rows = state.rows(moved, 0.0)
    assert rows[state.place(rows)]["id"] == chosen
    keys(state, "END", read=moved)
    assert state.place(rows) == 3
    keys(state, "HOME", "UP", read=moved)
    assert state.place(rows) == 0


def test_a_session_is_ended_after_the_question_only() -> None:
    state, read = State(view="sessions"), reading(answer())
    assert keys(state, "k", read=read) is None
    assert state.asked
    assert shown(state, read)[-1] == "end session B with 421? y/n"
    assert keys(state, "n", read=read) is None
    assert state.message == "nothing was ended"
    keys(state, "k", read=read)
    gone = reading(answer(sessions=[session("Z")]))  # B ends meanwhile: the question stays about B
    assert keys(state, "y", read=gone) is Action.KILL
    assert state.killing == "B"
    for view in ("clients", "servers"):
        state = State(view=view)
        assert keys(state, "k", "y", read=read) is None
        assert not state.asked
    assert keys(State(view="sessions"), "k", "y", read=reading(answer(sessions=[]))) is None


@pytest.mark.parametrize(
    ("view", "name", "ids"), [("clients", "192.0.2.9", ["B"]), ("servers", "198.51.100.25", ["B", "A", "C"])]
)
def test_enter_shows_the_sessions_of_a_row(view: str, name: str, ids: list[str]) -> None:
    state, read = State(view=view), reading(answer())
    keys(state, "ENTER", read=read)
    assert (state.view, state.text) == ("sessions", name)
    assert [row["id"] for row in state.rows(read, 0.0)] == ids


def test_enter_finds_the_sessions_of_an_ipv6_client() -> None:
    clients = [peer("client", "2001:db8:1:2::")]
    sessions = [session("six", "[2001:db8:1:2:3::4]:25"), session("other", "[2001:db8:9::4]:25")]
    state, read = State(), reading(answer(clients=clients, sessions=sessions))
    keys(state, "ENTER", read=read)
    assert [row["id"] for row in state.rows(read, 0.0)] == ["six"]


def test_pause_interval_views_help_and_the_end() -> None:
    state = State()
    assert keys(state, "p") is None
    assert state.paused
    assert "PAUSED" in shown(state, reading(answer()))[0]
    assert keys(state, "p") is Action.READ
    assert keys(state, " ") is Action.READ
    keys(state, *"++++++++++")
    assert state.interval == 60.0
    keys(state, *"----------")
    assert state.interval == 0.5
    for view in (*VIEWS[1:], VIEWS[0]):
        keys(state, "TAB")
        assert state.view == view
    keys(state, "?")
    assert set(HELP) <= set(shown(state, reading(answer())))
    assert keys(state, "k") is None
    assert (state.help, state.asked) == (False, False)
    assert keys(state, "?", "q") is Action.QUIT
    assert keys(State(), "q") is Action.QUIT
    assert keys(State(), "F1") is None


# The screen.


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("size", [(24, 80), (50, 200), (12, 60), (6, 40), (3, 20), (1, 1), (24, 300)])
def test_the_screen_has_its_size_whatever_is_shown(view: str, size: tuple[int, int]) -> None:
    many = [session(f"{number:013}", f"[2001:db8::{number:x}]:40000", helo="x" * 300) for number in range(100)]
    wide = [session("wide", **{"from": "日本語" * 40 + "@例え.example"})]
    busy = {"sessions": 100_000, "octets": 10**12, "wait": 10**7}
    clients = [peer("client", f"2001:db8:1234:{number:x}::", **busy) for number in range(50)]
    servers = [peer("server", f"2001:db8:1234:5678:9abc:def0:1234:{number:x}") for number in range(50)]
    read, per_second = two(sessions=many + wide, clients=clients, servers=servers)
    for help_ in (False, True):
        state = State(view=view, help=help_)
        lines = shown(state, read, size, per_second)
        assert len(lines) == size[0]
        assert all(cells_of(line) <= size[1] for line in lines)
        for key in ("END", "UP", "PAGE UP"):
            keys(state, key, read=read)
            found = page(state, read, per_second, "", size).lines
            assert help_ or size[0] < 6 or [line.style for line in found].count(Style.SELECTED) == 1
            state.help = help_


def test_what_matters_is_seen_in_24_lines_of_80() -> None:
    clients = [peer("client", "2001:db8:1234:5678::", 12, wait=12.0, waiting=3), peer("client", "192.0.2.255")]
    read, per_second = two(clients=clients)
    lines = shown(State(), read, per_second=per_second)
    header = next(line for line in lines if line.startswith("CLIENT"))
    assert header.split() == [column.title for column in COLUMNS["clients"]]
    assert re.search(r"^2001:db8:1234:5678:: +12 .* 3 +12s ", "\n".join(lines), re.MULTILINE)
    header = next(line for line in shown(State(view="sessions"), read) if line.startswith("ID"))
    assert header.split()[:7] == [column.title for column in COLUMNS["sessions"]][:7]
    assert shown(State(view="sessions"), read)[-2] == "B HELO c.example, from a@c.example to b@mx.example and 2 more"


def test_nothing_of_a_peer_controls_the_terminal() -> None:
    bad = dict.fromkeys(("id", "client", "server", "helo", "from", "to", "phase"), HOSTILE)
    read = reading(
        answer(
            sessions=[session("x", **bad)],
            clients=[peer("client", HOSTILE)],
            servers=[peer("server", HOSTILE)],
            status={"instance": HOSTILE, "bypass": {"reason": HOSTILE}},
        )
    )
    for view in VIEWS:
        state = State(view=view, text="\x1b", message=HOSTILE)
        for line in page(state, read, Rates(), HOSTILE, (24, 200)).lines:
            assert line.text.isprintable()
        state.view = view
        assert all(line.isprintable() for line in top.text(State(view=view), read, Rates()))


def test_trouble_and_faults_come_first() -> None:
    read = reading(answer(status={"connections": 100}))
    lines = [line.text for line in page(State(), read, Rates(), "nobody listens", (24, 80)).lines]
    assert lines[0].endswith("NO ANSWER")
    assert lines[1] == "last reading. nobody listens"
    assert lines[2].startswith("WRONG: all 100 connections are taken")


def test_what_is_not_counted_is_said() -> None:
    read, per_second = two(total=20_000, counted=10_000, lost=5)
    text = "\n".join(shown(State(), read, (24, 120), per_second))
    assert "10000 of 20000 sessions, the longest in their phase; 5 messages not counted" in text
    assert "3 of 20000 sessions" in "\n".join(shown(State(view="sessions"), read, (24, 120)))


def test_cells_of_wide_and_combining_characters() -> None:
    assert [cells_of(text) for text in ("abc", "日本", "e\u0301")] == [3, 4, 1]
    assert clipped("日本語", 4) == "日~"
    assert clipped("abc", 0) == ""


def test_a_table_for_scripts_is_as_wide_as_it_takes() -> None:
    lines = table("sessions", [session("A", **{"from": "a" * 110 + "@x"})], 0.0, None)
    assert "a" * 110 + "@x > b@mx.example +2" in lines[1]


# The command.


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    requests: list[dict[str, Any]] = []

    def ask(_args: object, command: str, **fields: Any) -> dict[str, Any]:
        requests.append({"command": command, **fields})
        return answer(1000.0 + 2 * len(requests), totals={"messages_total": {"filtered": 10 * len(requests)}})

    monkeypatch.setattr(top, "ask_daemon", ask)
    monkeypatch.setattr("time.sleep", lambda seconds: requests.append({"slept": seconds}))
    return requests


def test_once_is_text_with_rates(asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["top", "--once", "--view", "sessions", "--filter", "192.0.2.9", "--interval", "3"]) == 0
    assert asked == [{"command": "top"}, {"slept": 3.0}, {"command": "top", "since": [3]}]
    out = capsys.readouterr().out
    assert "messages 5.0/s: filtered 5.0\n" in out
    assert re.search(r"\n\nID +CLIENT.*\nB +192\.0\.2\.9:1.*\n$", out)


def test_where_no_terminal_is_it_is_once(asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["top"]) == 0
    out, err = capsys.readouterr()
    assert "CLIENT" in out
    assert err == ""


@pytest.mark.parametrize("term", ["dumb", "", "no-such-terminal"])
def test_a_terminal_that_cannot_show_it(
    term: str, asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(top, "_is_terminal", lambda: True)
    monkeypatch.setenv("TERM", term)
    assert cli.main(["top"]) == 0
    out, err = capsys.readouterr()
    assert "CLIENT" in out
    assert err.startswith(f"TERM is {term or 'not set'}")
    assert err.endswith(": no live view here, this is --once\n")


def test_json_has_all_views(asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["top", "--json", "--by", "wait"]) == 0
    seen = json.loads(capsys.readouterr().out)
    assert [row["id"] for row in seen["sessions"]] == ["B", "A", "C"]
    assert {view: len(seen[view]) for view in VIEWS} == {"clients": 3, "servers": 1, "sessions": 3}
    assert seen["rates"]["totals"]["messages_total"]["filtered"] == 5.0
    assert seen["status"]["pid"] == 812


@pytest.mark.parametrize("given", ["0", "-1", "x", "nan", "61", "inf"])
def test_intervals_that_are_none(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["top", "--interval", given])
    assert ended.value.code == 2
    assert "write seconds, 0.5 to 60" in capsys.readouterr().err


def _raise(text: str) -> Callable[..., Any]:
    def ask(*_: object, **__: object) -> Any:
        raise NoAnswerError(text)

    return ask


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("only root and the daemon's user may ask: try again with sudo", "try again with sudo"),
        ("no such command; there are: limits", "the daemon is older than this command: restart it"),
    ],
)
def test_what_is_missing_is_said(
    said: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(top, "ask_daemon", _raise(said))
    assert cli.main(["top", "--once"]) == 1
    assert told in capsys.readouterr().err


def test_an_answer_is_not_changed_by_showing_it() -> None:
    given = answer()
    before = copy.deepcopy(given)
    shown(State(), reading(given))
    assert given == before
