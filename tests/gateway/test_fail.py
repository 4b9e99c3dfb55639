"""The daemon dies under traffic: fail closed lets nothing through, fail open lets mail pass until it is back."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.gateway.heartbeat import Heartbeat
from proxsmtp_tp.gateway.plan import Fail, Method, Mode
from tests.gateway.box import METHODS, MODES, PORT, SOON, Box, within
from tests.gateway.network import SERVER, greeting, inside, run

if TYPE_CHECKING:
    from collections.abc import Iterator

BOTH = [(method, mode) for method in METHODS for mode in MODES]


class Heart:
    """The heartbeat of a daemon, from the gateway of a test, ten a second."""

    def __init__(self, box: Box) -> None:
        self._sign = inside(box.net.gateway, lambda: Heartbeat(PORT))
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._stopped.wait(0.1):
            self._sign.beat()

    def stop(self) -> None:
        """As a daemon that was killed, or hangs."""
        self._stopped.set()
        self._thread.join()
        self._sign.close()


@pytest.fixture
def hearts() -> Iterator[list[Heart]]:
    """Hearts to be stopped at the end."""
    found: list[Heart] = []
    yield found
    for heart in found:
        heart.stop()


@pytest.mark.parametrize(("method", "mode"), BOTH)
def test_closed_never_lets_mail_through(box: Box, method: Method, mode: Mode) -> None:
    box.server()
    daemon = box.daemon(mode)
    box.install(method=method, mode=mode)
    heard: list[str] = []
    stop = threading.Event()

    def talk(version: int) -> None:
        while not stop.is_set():
            heard.append(greeting(box.net.client, SERVER[version], wait=1))

    talkers = [threading.Thread(target=talk, args=(version,)) for version in (4, 6)]
    for talker in talkers:
        talker.start()
    assert within(20, lambda: len(heard) > 20)
    daemon.close()
    dead_since = len(heard)
    assert within(20, lambda: len(heard) >= dead_since + 4)
    box.daemon(mode)
    assert within(20, lambda: any("daemon" in line for line in heard[dead_since + 4 :]))
    stop.set()
    for talker in talkers:
        talker.join()
    assert not [line for line in heard if "server" in line]


@pytest.mark.parametrize(("method", "mode"), BOTH)
def test_open_lets_mail_pass_until_the_daemon_is_back(
    box: Box, hearts: list[Heart], method: Method, mode: Mode
) -> None:
    net = box.net
    before = box.snapshot()
    box.server()

    def heard(version: int) -> str:
        return greeting(net.client, SERVER[version], wait=1)

    daemon = box.daemon(mode)
    hearts.append(Heart(box))
    box.install(method=method, mode=mode, fail=Fail.OPEN)
    for version in (4, 6):
        assert within(SOON, lambda: heard(version).startswith("daemon"))  # noqa: B023 - called at once
    assert box.check(method=method, mode=mode, fail=Fail.OPEN).in_place
    # A change of options does not let mail slip past a daemon that lives.
    box.install(method=method, mode=mode, fail=Fail.OPEN, ports=(25, 587))
    assert heard(4).startswith("daemon")

    hearts[0].stop()
    daemon.close()
    for version in (4, 6):
        assert within(SOON, lambda: heard(version).startswith("server"))  # noqa: B023 - called at once
    # Without a daemon the rules are in place all the same.
    assert box.check(method=method, mode=mode, fail=Fail.OPEN, ports=(25, 587)).in_place

    box.daemon(mode)
    hearts.append(Heart(box))
    for version in (4, 6):
        assert within(SOON, lambda: heard(version).startswith("daemon"))  # noqa: B023 - called at once
    box.remove()
    assert box.snapshot() == before


@pytest.mark.parametrize("method", METHODS)
def test_open_lets_the_boxes_own_mail_pass_too(box: Box, hearts: list[Heart], method: Method) -> None:
    box.server()
    daemon = box.daemon(Mode.TPROXY)
    hearts.append(Heart(box))
    box.install(method=method, mode=Mode.TPROXY, fail=Fail.OPEN, local=True, daemon_uid=65534)
    # The signs come from root, who is not the daemon's user: they do not count.
    assert within(SOON, lambda: greeting(box.net.gateway, SERVER[4]).startswith("server"))
    box.install(method=method, mode=Mode.TPROXY, fail=Fail.OPEN, local=False)
    assert within(SOON, lambda: greeting(box.net.client, SERVER[4]).startswith("daemon"))
    daemon.close()


def test_a_daemon_that_hangs_counts_as_down(box: Box, hearts: list[Heart]) -> None:
    box.server()
    box.daemon(Mode.REDIRECT)
    hearts.append(Heart(box))
    box.install(fail=Fail.OPEN)
    assert within(SOON, lambda: greeting(box.net.client, SERVER[4]).startswith("daemon"))
    hearts[0].stop()
    assert within(SOON, lambda: greeting(box.net.client, SERVER[4]).startswith("server"))


def test_heartbeats_need_no_ipv6(box: Box) -> None:
    run(box.net.gateway, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
    sign = inside(box.net.gateway, lambda: Heartbeat(PORT))
    sign.beat()
    sign.close()
    sign.close()
