"""The daemon is killed during traffic: fail closed lets nothing through, fail open lets mail pass until it is back."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.gateway.doctor.listeners import listening
from proxsmtp_tp.gateway.heartbeat import Heartbeat
from proxsmtp_tp.gateway.plan import HEARTBEAT_HOLD, Fail, Method, Mode
from tests.gateway.daemon_host import DaemonHost
from tests.gateway.network import CLIENT, SERVER, greeting, inside, open_socket, run
from tests.gateway.rules_host import METHODS, MODES, PORT, SOON, RulesHost, within

if TYPE_CHECKING:
    from collections.abc import Iterator

BOTH = [(method, mode) for method in METHODS for mode in MODES]


class HeartbeatSender:
    """Sends the heartbeat of a daemon on the gateway of a test, ten times a second."""

    def __init__(self, host: RulesHost) -> None:
        self._heartbeat = inside(host.net.gateway, lambda: Heartbeat(PORT))
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._stopped.wait(0.1):
            self._heartbeat.beat()

    def stop(self) -> None:
        """As a daemon that was killed, or hangs."""
        self._stopped.set()
        self._thread.join()
        self._heartbeat.close()


@pytest.fixture
def heartbeat_senders() -> Iterator[list[HeartbeatSender]]:
    """They are stopped at the end."""
    found: list[HeartbeatSender] = []
    yield found
    for heartbeat_sender in found:
        heartbeat_sender.stop()


@pytest.mark.parametrize(("method", "mode"), BOTH)
def test_closed_never_lets_mail_through(host: RulesHost, method: Method, mode: Mode) -> None:
    host.server()
    daemon = host.daemon(mode)
    host.install(method=method, mode=mode)
    greetings: list[str] = []
    stop = threading.Event()

    def send_mails(version: int) -> None:
        while not stop.is_set():
            greetings.append(greeting(host.net.client, SERVER[version], wait=1))

    threads = [threading.Thread(target=send_mails, args=(version,)) for version in (4, 6)]
    for thread in threads:
        thread.start()
    assert within(60, lambda: len(greetings) > 20)
    daemon.close()
    dead_since = len(greetings)
    assert within(60, lambda: len(greetings) >= dead_since + 4)
    host.daemon(mode)
    assert within(60, lambda: any("daemon" in line for line in greetings[dead_since + 4 :]))
    stop.set()
    for thread in threads:
        thread.join()
    assert not [line for line in greetings if "server" in line]


@pytest.mark.parametrize(("method", "mode"), BOTH)
def test_open_lets_mail_pass_until_the_daemon_is_back(
    host: RulesHost, heartbeat_senders: list[HeartbeatSender], method: Method, mode: Mode
) -> None:
    net = host.net
    before = host.snapshot()
    host.server()

    def answer(version: int) -> str:
        return greeting(net.client, SERVER[version], wait=1)

    daemon = host.daemon(mode)
    heartbeat_senders.append(HeartbeatSender(host))
    host.install(method=method, mode=mode, fail=Fail.OPEN)
    for version in (4, 6):
        assert within(SOON, lambda: answer(version).startswith("daemon"))  # noqa: B023 - called at once
    assert host.check(method=method, mode=mode, fail=Fail.OPEN).in_place
    # A change of options lets no mail pass unfiltered while the daemon runs.
    host.install(method=method, mode=mode, fail=Fail.OPEN, ports=(25, 587))
    assert answer(4).startswith("daemon")

    heartbeat_senders[0].stop()
    daemon.close()
    for version in (4, 6):
        assert within(SOON, lambda: answer(version).startswith("server"))  # noqa: B023 - called at once
    # The rules are in place also without a daemon.
    assert host.check(method=method, mode=mode, fail=Fail.OPEN, ports=(25, 587)).in_place

    host.daemon(mode)
    heartbeat_senders.append(HeartbeatSender(host))
    for version in (4, 6):
        assert within(SOON, lambda: answer(version).startswith("daemon"))  # noqa: B023 - called at once
    host.remove()
    assert host.snapshot() == before


@pytest.mark.parametrize("method", METHODS)
def test_open_lets_the_hosts_own_mail_pass_too(
    host: RulesHost, heartbeat_senders: list[HeartbeatSender], method: Method
) -> None:
    host.server()
    daemon = host.daemon(Mode.TPROXY)
    heartbeat_senders.append(HeartbeatSender(host))
    host.install(method=method, mode=Mode.TPROXY, fail=Fail.OPEN, local=True, daemon_uid=65534)
    # These heartbeats come from root, who is not the daemon's user: they do not count.
    assert within(SOON, lambda: greeting(host.net.gateway, SERVER[4]).startswith("server"))
    host.install(method=method, mode=Mode.TPROXY, fail=Fail.OPEN, local=False)
    assert within(SOON, lambda: greeting(host.net.client, SERVER[4]).startswith("daemon"))
    daemon.close()


def test_a_daemon_that_hangs_counts_as_down(host: RulesHost, heartbeat_senders: list[HeartbeatSender]) -> None:
    host.server()
    host.daemon(Mode.REDIRECT)
    heartbeat_senders.append(HeartbeatSender(host))
    host.install(fail=Fail.OPEN)
    assert within(SOON, lambda: greeting(host.net.client, SERVER[4]).startswith("daemon"))
    heartbeat_senders[0].stop()
    assert within(SOON, lambda: greeting(host.net.client, SERVER[4]).startswith("server"))


def test_heartbeats_need_no_ipv6(host: RulesHost) -> None:
    run(host.net.gateway, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
    sign = inside(host.net.gateway, lambda: Heartbeat(PORT))
    sign.beat()
    sign.close()
    sign.close()


WORKERS = 4


class Attacked:
    """A gateway with the real daemon, RuleFail open, and the mail server behind it."""

    def __init__(self, method: Method, mode: Mode) -> None:
        directives = {"RuleMethod": method.value, "RuleMode": mode.value, "TransparentProxy": "client"}
        self.host = DaemonHost(RuleFail="open", Workers=str(WORKERS), **directives)
        self.peers: list[str] = []
        """Whom the mail server has seen, as soon as they came."""
        self._server = inside(self.host.net.server, lambda: socket.create_server((SERVER[4], 25), backlog=500))
        threading.Thread(target=self._serve, daemon=True).start()
        self._links: list[socket.socket] = []
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                link, peer = self._server.accept()
                self.peers.append(peer[0])
                threading.Thread(target=self._greet, args=(link,), daemon=True).start()

    @staticmethod
    def _greet(link: socket.socket) -> None:
        with link, suppress(OSError):
            link.settimeout(20)
            link.sendall(b"220 server.example\r\n")
            while link.recv(512):
                link.sendall(b"250 ok\r\n")

    def processes(self) -> tuple[int, list[int]]:
        """The master and its workers."""
        pids = {pid for item in inside(self.host.gateway, lambda: listening(PORT)) for pid in item.pids}
        (master,) = (pid for pid in pids if parent(pid) not in pids)
        return master, sorted(pids - {master})

    def greeting(self) -> str:
        """What a client gets."""
        return greeting(self.host.net.client, SERVER[4], wait=1)

    def passed_unfiltered(self) -> bool:
        """Whether the server has seen a client's own address."""
        return CLIENT[4] in self.peers

    def flood(self) -> None:
        """From now on four clients for each worker send what we refuse ourselves, as fast as it is taken."""
        for _ in range(4 * WORKERS):
            thread = threading.Thread(target=self._flood)
            self._threads.append(thread)
            thread.start()

    def _flood(self) -> None:
        while not self._over.is_set():
            with suppress(OSError), open_socket(self.host.net.client, socket.AF_INET) as link:
                link.settimeout(1)
                link.connect((SERVER[4], 25))
                while not self._over.is_set():
                    link.sendall(b"BURL\r\n" * 43690)  # 256 KiB
                    link.recv(1 << 16)

    def close(self) -> None:
        """End everything."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.host.close()


def parent(pid: int) -> int:
    """Its parent process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.fixture
def attacked(method: Method, mode: Mode) -> Iterator[Attacked]:
    """Filtering, at the beginning."""
    found = Attacked(method, mode)
    try:
        # With iptables the rules begin to intercept with the first heartbeat that they see.
        assert within(SOON, lambda: found.greeting().startswith("220") and found.peers[-1] != CLIENT[4])
        found.peers.clear()
        yield found
    finally:
        found.close()


@pytest.mark.parametrize(("method", "mode"), BOTH)
def test_clients_that_keep_every_worker_busy_do_not_open_it(attacked: Attacked) -> None:
    """First a flood, then workers that do nothing at all, which is the most that clients could do to them."""
    attacked.flood()
    end = time.monotonic() + HEARTBEAT_HOLD / 2
    while time.monotonic() < end:
        attacked.greeting()
    _, workers = attacked.processes()
    assert len(workers) == WORKERS
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    try:
        end = time.monotonic() + HEARTBEAT_HOLD + 5
        while time.monotonic() < end:
            attacked.greeting()
    finally:
        for worker in workers:
            os.kill(worker, signal.SIGCONT)
    assert not attacked.passed_unfiltered()
    assert "unfiltered" not in attacked.host.instance.log


@pytest.mark.parametrize(("method", "mode"), [(Method.NFTABLES, Mode.REDIRECT), (Method.IPTABLES, Mode.TPROXY)])
def test_each_opening_and_closing_is_an_error_in_the_log(attacked: Attacked) -> None:
    """A master that is stopped for a while, then a daemon that ends, and comes back."""
    instance = attacked.host.instance
    master, _ = attacked.processes()

    def passes() -> bool:
        attacked.greeting()
        return attacked.passed_unfiltered()

    os.kill(master, signal.SIGSTOP)
    try:
        assert within(SOON, passes)
    finally:
        os.kill(master, signal.SIGCONT)
    again = "RuleFail open: mail is filtered again; it passed unfiltered for"
    assert within(SOON, lambda: again in instance.log), instance.log
    attacked.peers.clear()
    attacked.greeting()
    assert not attacked.passed_unfiltered()
    instance.stop()
    assert "RuleFail open: the daemon stops: mail passes unfiltered until it is back" in instance.log
    assert within(SOON, passes)
    instance.start()
    since = "RuleFail open: mail is filtered again; without a daemon it passed unfiltered since 20"
    assert within(SOON, lambda: since in instance.log)
