"""Who decides about the log level, and when a command ends."""

from __future__ import annotations

import logging
import time
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.service.log_levels import LogLevels
from proxsmtp_tp.service.logging import NOTICE
from proxsmtp_tp.telemetry.switches import TRACED_MAX, Switch, Switches

if TYPE_CHECKING:
    from collections.abc import Iterator

ONE, TWO = ip_network("192.0.2.1"), ip_network("2001:db8::/64")


@pytest.fixture(autouse=True)
def _root_level() -> Iterator[None]:
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


class Clock:
    """The monotonic clock, moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "monotonic_ns", lambda: int(self.now * 1e9))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def levels(given: int | None = None, configured: int = 3) -> tuple[LogLevels, Switches]:
    switches = Switches()
    return LogLevels(switches, given, configured), switches


def test_a_command_overrides_the_command_line_and_that_the_configuration() -> None:
    of, switches = levels()
    assert (of.level, of.report()["source"]) == (3, "LogLevel")
    of.configure(2)
    assert of.level == 2
    assert switches[Switch.LOG_LEVEL] == logging.getLogger().level == NOTICE
    of, switches = levels(given=4)
    of.configure(2)
    assert (of.level, of.report()["source"]) == (4, "-d")
    of.command(1, None)
    of.configure(0)
    assert (of.level, of.report()["source"]) == (1, "log-level")
    assert switches[Switch.LOG_LEVEL] == logging.WARNING
    of.command(None, None)
    assert of.level == 4


def test_a_command_ends_after_its_time(clock: Clock) -> None:
    of, switches = levels()
    of.command(4, 60)
    assert of.due() == clock.now + 60
    clock.now += 59
    of.step()
    assert of.level == 4
    clock.now += 1
    of.step()
    assert of.level == 3
    assert of.due() == float("inf")
    assert switches[Switch.LOG_LEVEL] == logging.INFO


def test_a_trace_ends_after_its_time_or_on_command(clock: Clock) -> None:
    of, switches = levels()
    of.trace(ONE, 30)
    of.trace(TWO, 60)
    of.trace(TWO, 90)
    assert [traced["network"] for traced in of.report()["traced"]] == ["192.0.2.1/32", "2001:db8::/64"]
    assert of.report()["traced"][1]["left"] == 90
    clock.now += 31
    of.step()
    assert [traced.network for traced in switches.traced() or ()] == [TWO]
    assert of.end_trace(ONE) == 0
    assert of.end_trace(TWO) == 1
    assert switches.traced() == ()
    of.trace(ONE, 60)
    assert of.end_trace(None) == 1


def test_no_more_traces_than_there_is_space_for() -> None:
    of, switches = levels()
    for number in range(TRACED_MAX):
        of.trace(ip_network(f"192.0.2.{number}"), 60)
    with pytest.raises(ValueError, match="16 networks"):
        of.trace(TWO, 60)
    assert len(of.report()["traced"]) == len(switches.traced() or ()) == TRACED_MAX
