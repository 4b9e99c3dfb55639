"""The bypass: its beginning, its end, and what is left of it after a restart."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.service import bypass as module
from proxsmtp_tp.service.bypass import Bypass, describe
from proxsmtp_tp.service.control import ControlError, ask
from proxsmtp_tp.telemetry.counters import Counter, Counters
from proxsmtp_tp.telemetry.switches import Switch, Switches

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.service.conftest import Daemon


class Clock:
    """Both clocks, put forward by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        monotonic, wall = time.monotonic, time.time
        monkeypatch.setattr(time, "monotonic", lambda: monotonic() + self.ahead)
        monkeypatch.setattr(time, "time", lambda: wall() + self.ahead)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Place:
    """What is kept over a restart, and what is not."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "state" / "bypass.json"
        self.start()

    def start(self) -> Bypass:
        self.switches, self.counters = Switches(), Counters(2)
        self.bypass = Bypass(self.switches, self.counters, self.file)
        return self.bypass

    @property
    def until(self) -> int:
        return self.switches[Switch.BYPASS_UNTIL]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_it_begins_counts_and_ends_at_its_time(place: Place, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    bypass = place.bypass
    place.counters.count(0, Counter.BYPASSED)  # of an earlier one
    assert (bypass.report(), place.until, bypass.due()) == (None, 0, float("inf"))
    assert bypass.begin(1800, "the filter is broken")
    assert 1790e9 < place.until - time.monotonic_ns() <= 1800e9
    place.counters.count(1, Counter.BYPASSED)
    report = bypass.report()
    assert report is not None
    assert (report["left"], report["reason"], report["messages"]) == (1800, "the filter is broken", 1)
    assert describe(report).startswith("BYPASS: mail passes unjudged for another 30 min, until 20")
    bypass.step()
    assert bypass.active
    clock.ahead = 1800
    bypass.step()
    assert (bypass.report(), place.until) == (None, 0)
    assert not place.file.exists()
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "until" in caplog.messages[0]
    assert "the filter is broken" in caplog.messages[0]
    assert caplog.messages[1] == "bypass: ended at its time: 1 messages passed unjudged; mail is judged again"


def test_another_end_and_reason(place: Place) -> None:
    place.bypass.begin(60, "one")
    place.counters.count(0, Counter.BYPASSED)
    place.bypass.begin(600, "two")
    report = place.bypass.report()
    assert report is not None
    assert (report["left"], report["reason"], report["messages"]) == (600, "two", 1)
    assert place.bypass.end() == 1
    assert place.bypass.report() is None


def test_it_goes_on_after_a_restart_until_its_end(place: Place, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    place.bypass.begin(1800, "broken")
    assert place.file.stat().st_mode & 0o777 == 0o600
    clock.ahead = 600
    report = place.start().report()
    assert report is not None
    assert (report["left"], report["reason"], report["messages"]) == (1200, "broken", 0)
    assert place.until
    assert "bypass: goes on until" in caplog.text
    clock.ahead = 1801
    assert place.start().report() is None
    assert (place.until, place.file.exists()) == (0, False)
    assert "bypass: ended while the daemon was down" in caplog.text


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b"\xff", b'{"until": "x", "reason": ""}', b'{"until": 1e999}', b'{"until": null}']
)
def test_an_empty_file_bypasses_nothing(place: Place, data: bytes) -> None:
    place.file.parent.mkdir(parents=True)
    place.file.write_bytes(data)
    assert place.start().report() is None
    assert place.until == 0


def test_an_end_in_the_far_future_is_not_believed(place: Place) -> None:
    place.file.parent.mkdir(parents=True)
    place.file.write_text(json.dumps({"until": time.time() + 1e9, "reason": "x" * 10_000}))
    report = place.start().report()
    assert report is not None
    assert report["left"] <= module.LONGEST
    assert len(report["reason"]) == module.REASON_MAX


def test_where_nothing_can_be_kept(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    place = Place(tmp_path)
    assert place.bypass.begin(60, "broken") is False
    assert place.bypass.active
    place.bypass.end()
    assert not place.bypass.active


def test_the_command(daemon: Daemon) -> None:
    daemon.configure(FilterCommand="cat")
    daemon.start()
    path = daemon.folder / "d.control"
    assert ask(path, "bypass") == {"bypass": None}
    assert ask(path, "bypass", seconds=60, reason=" up\ndate ")["bypass"]["reason"] == "up\\ndate"
    status = daemon.status()["bypass"]
    assert (status["messages"], status["reason"]) == (0, "up\\ndate")
    assert ask(path, "bypass", end=True) == {"bypass": None, "passed": 0}
    assert daemon.status()["bypass"] is None
    for bad in ({"end": True}, {"seconds": 60}, {"seconds": 60, "reason": " "}, {"seconds": 8 * 86400, "reason": "x"},
                {"seconds": 60, "reason": "x" * 201}, {"seconds": -1, "reason": "x"}):  # fmt: skip
        with pytest.raises(ControlError):
            ask(path, "bypass", **bad)
    assert "control: bypass seconds=60" in daemon.log()


@pytest.mark.parametrize("directives", [{}, {"FilterCommand": "cat", "FilterType": "reject"}])
def test_there_must_be_something_to_bypass(daemon: Daemon, directives: dict[str, str]) -> None:
    daemon.configure(**directives)
    daemon.start()
    with pytest.raises(ControlError, match="nothing to bypass"):
        ask(daemon.folder / "d.control", "bypass", seconds=60, reason="x")
