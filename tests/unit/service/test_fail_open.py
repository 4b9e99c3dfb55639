"""The heartbeat for rules that fail open, and what the log says of the time without one."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.config.addresses import InetAddress, UnixAddress
from proxsmtp_tp.config.settings import RuleFail, Settings, TransparentProxy
from proxsmtp_tp.gateway.heartbeat import INTERVAL, Heartbeat
from proxsmtp_tp.gateway.plan import HEARTBEAT_HOLD
from proxsmtp_tp.service.fail_open import FailOpen

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Clock:
    """The monotonic clock, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


Make = Callable[..., FailOpen]


@pytest.fixture
def make() -> Iterator[Make]:
    """FailOpen, closed at the end."""
    with ExitStack() as stack:

        def make(wanted: Settings, path: Path | None = None) -> FailOpen:
            sender = FailOpen(wanted, path)
            stack.callback(sender.close_in_worker)
            return sender

        yield make


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    """Where the heartbeats arrive."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.bind(("127.0.0.1", 0))
        found.setblocking(False)
        yield found


def settings(receiver: socket.socket) -> Settings:
    return Settings(listen=(InetAddress("", receiver.getsockname()[1]),), rule_fail=RuleFail.OPEN)


def heartbeats(receiver: socket.socket) -> int:
    """How many heartbeats have come since the last call."""
    count = 0
    while True:
        try:
            receiver.recv(1)
        except BlockingIOError:
            return count
        count += 1


@pytest.mark.parametrize("mode", TransparentProxy)
@pytest.mark.parametrize("fail", RuleFail)
def test_whatever_the_configuration_rules_may_fail_open(
    make: Make, clock: Clock, receiver: socket.socket, mode: TransparentProxy, fail: RuleFail
) -> None:
    sender = make(replace(settings(receiver), transparent_proxy=mode, rule_fail=fail))
    for _ in range(3):
        assert sender.due() <= clock.now
        sender.step(serves=True)
        sender.step(serves=True)  # too early
        assert heartbeats(receiver) == 1
        clock.now += INTERVAL


def test_nothing_is_sent_where_no_rule_leads(make: Make, clock: Clock) -> None:
    sender = make(Settings(listen=(UnixAddress("/x"),), rule_fail=RuleFail.OPEN))
    assert sender.due() == float("inf")
    sender.step(serves=True)
    sender.stop()


def test_a_reload_to_another_port_takes_the_heartbeat_along(make: Make, clock: Clock, receiver: socket.socket) -> None:
    sender = make(replace(settings(receiver), listen=(InetAddress("", 9),)))
    sender.step(serves=True)
    assert heartbeats(receiver) == 0
    sender.configure(settings(receiver))
    clock.now += INTERVAL
    sender.step(serves=True)
    assert heartbeats(receiver) == 1


def test_no_heartbeat_and_a_line_once_it_stops(
    make: Make, clock: Clock, receiver: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    sender = make(settings(receiver))
    sender.step(serves=True)
    assert heartbeats(receiver) == 1
    assert caplog.text == ""  # the very first start
    sender.stop()
    clock.now += 60
    sender.step(serves=True)
    sender.stop()
    assert heartbeats(receiver) == 0
    [record] = caplog.records
    assert record.levelname == "ERROR"
    assert record.message == "RuleFail open: the daemon stops: mail passes unfiltered until it is back"


def test_without_a_worker_it_opens_and_says_so_and_says_when_it_is_over(
    make: Make, clock: Clock, receiver: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    sender = make(settings(receiver))
    sender.step(serves=True)
    for _ in range(HEARTBEAT_HOLD):
        clock.now += INTERVAL
        sender.step(serves=False)
    assert caplog.text == ""  # the last one still holds
    for _ in range(20):
        clock.now += INTERVAL
        sender.step(serves=False)
    assert heartbeats(receiver) == 1
    [opened] = caplog.records
    assert "no worker can serve clients: mail passes unfiltered from now on" in opened.message
    clock.now += INTERVAL
    sender.step(serves=True)
    assert heartbeats(receiver) == 1
    closed = caplog.records[-1]
    assert closed.levelname == "ERROR"
    assert "mail is filtered again; it passed unfiltered for 21 s: no worker could serve clients" in closed.message
    clock.now += INTERVAL
    sender.step(serves=True)
    assert len(caplog.records) == 2


def test_a_master_that_was_stopped_sees_it_itself(
    make: Make, clock: Clock, receiver: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    sender = make(settings(receiver))
    sender.step(serves=True)
    clock.now += HEARTBEAT_HOLD - 1
    sender.step(serves=True)
    assert caplog.text == ""
    clock.now += HEARTBEAT_HOLD + 30
    sender.step(serves=True)
    assert "it passed unfiltered for 30 s: the daemon was stopped, or got no processor" in caplog.text


def test_a_heartbeat_that_the_kernel_forgot_a_jiffy_early_is_reported(
    make: Make, clock: Clock, receiver: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    sender = make(settings(receiver))
    sender.step(serves=True)
    clock.now += HEARTBEAT_HOLD - 0.01
    sender.step(serves=True)
    assert "it passed unfiltered for 0 s: the daemon was stopped" in caplog.text


def test_rules_that_fail_closed_need_no_line(
    make: Make, clock: Clock, receiver: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    sender = make(replace(settings(receiver), rule_fail=RuleFail.CLOSED))
    sender.step(serves=True)
    clock.now += 100
    sender.step(serves=False)
    sender.step(serves=True)
    sender.stop()
    assert caplog.text == ""


def test_the_next_daemon_says_since_when_there_was_none(
    make: Make, clock: Clock, receiver: socket.socket, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    path = tmp_path / "heartbeat"
    first = make(settings(receiver), path)
    first.step(serves=True)
    quickly = make(settings(receiver), path)
    quickly.step(serves=True)
    assert caplog.text == ""  # the first start, and one before the last heartbeat had lost its force
    then = time.time() - 3600
    os.utime(path, (then, then))
    late = make(settings(receiver), path)
    late.step(serves=False)
    assert caplog.text == ""
    clock.now += INTERVAL
    late.step(serves=True)
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(then + HEARTBEAT_HOLD))
    assert f"without a daemon it passed unfiltered since {since}" in caplog.text
    assert path.stat().st_mtime > then + 3000
    clock.now += INTERVAL
    late.step(serves=True)
    assert len(caplog.records) == 1


def test_the_last_heartbeat_follows_no_link_and_a_missing_folder_stops_nothing(
    make: Make, clock: Clock, receiver: socket.socket, tmp_path: Path
) -> None:
    (tmp_path / "precious").write_text("")
    os.utime(tmp_path / "precious", (5, 5))
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    for path in (tmp_path / "link", tmp_path / "nowhere" / "x"):
        sender = make(settings(receiver), path)
        sender.step(serves=True)
        sender.close_in_worker()
    assert (tmp_path / "precious").stat().st_mtime == 5
    assert heartbeats(receiver) == 2


def test_a_daemon_that_is_stopped_while_it_sends_a_heartbeat(
    make: Make,
    clock: Clock,
    receiver: socket.socket,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between the look at the clock and the heartbeat: the kernel has had none for longer than the clock said."""
    sender = make(settings(receiver))
    sender.step(serves=True)
    clock.now += INTERVAL
    beat = Heartbeat.beat

    def late(heartbeat: Heartbeat) -> None:
        clock.now += HEARTBEAT_HOLD - INTERVAL / 2
        beat(heartbeat)

    monkeypatch.setattr(Heartbeat, "beat", late)
    sender.step(serves=True)
    monkeypatch.undo()
    [record] = caplog.records
    assert "mail is filtered again; it passed unfiltered for 0 s: the daemon was stopped" in record.getMessage()
