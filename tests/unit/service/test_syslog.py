"""/dev/log: datagrams or a stream, slow, stuck, gone and back; nothing blocks, and what is lost is counted."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.service import syslog
from proxsmtp_tp.service.logging import set_up
from proxsmtp_tp.service.syslog import BACKLOG_MAX, SyslogHandler, problem
from tests.unit.service.conftest import WAIT_SECONDS, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("root_logger")
log = logging.getLogger("x")
KINDS = pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])


class LogDaemon:
    """What listens on /dev/log. `pause` seconds pass after each line that it takes."""

    def __init__(self, path: Path, kind: socket.SocketKind, pause: float = 0.0) -> None:
        self.path, self.pause = path, pause
        self.lines: list[bytes] = []
        self.stack = ExitStack()
        self.sock = self.stack.enter_context(socket.socket(socket.AF_UNIX, kind))
        self.sock.settimeout(0.05)
        self.sock.bind(str(path))
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        if kind == socket.SOCK_STREAM:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            self.sock.listen()
            self._run(self._accept)
        else:
            self._run(self._take)

    def _run(self, what: object, *arguments: object) -> None:
        thread = threading.Thread(target=what, args=arguments)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _take(self) -> None:
        while not self._over.is_set():
            try:
                self._line(self.sock.recv(1 << 16))
            except TimeoutError:
                continue

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                link, _ = self.sock.accept()
            except TimeoutError:
                continue
            self._run(self._read, self.stack.enter_context(link))

    def _read(self, link: socket.socket) -> None:
        link.settimeout(0.05)
        data = b""
        while not self._over.is_set():
            try:
                more = link.recv(4096)
            except TimeoutError:
                continue
            if not more:
                return
            *lines, data = (data + more).split(b"\0")
            for line in lines:
                self._line(line)

    def _line(self, line: bytes) -> None:
        time.sleep(self.pause)
        self.lines.append(line)

    def texts(self) -> list[str]:
        """What was said, without what stands before it."""
        return [line.decode().partition("]: ")[2] for line in self.lines]

    def close(self) -> None:
        """End, as a daemon that is restarted."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        self.stack.close()
        self.path.unlink(missing_ok=True)


@pytest.fixture
def daemons() -> Iterator[list[LogDaemon]]:
    """To be ended."""
    found: list[LogDaemon] = []
    yield found
    for daemon in found:
        daemon.close()


def handler(path: Path) -> SyslogHandler:
    """In use."""
    found = SyslogHandler("proxsmtpd", str(path))
    set_up(found, 3)
    return found


def pump(found: SyslogHandler, until: float = WAIT_SECONDS) -> None:
    """What the master does between two steps."""
    end = time.monotonic() + until
    while found.due < float("inf") and time.monotonic() < end:
        time.sleep(max(0.0, min(0.05, found.due - time.monotonic())))
        found.retry()
    assert found.due == float("inf")


@KINDS
def test_lines_carry_facility_mail_and_the_process(
    tmp_path: Path, daemons: list[LogDaemon], kind: socket.SocketKind
) -> None:
    daemons.append(LogDaemon(tmp_path / "log", kind))
    handler(tmp_path / "log")
    log.error("oh\nno")
    log.info("second")
    eventually(lambda: len(daemons[0].lines) == 2)
    head, _, text = daemons[0].lines[0].decode().partition(f" proxsmtpd[{os.getpid()}]: ")
    assert re.fullmatch(r"<19>[A-Z][a-z]{2} [ 1-3][0-9] [0-2][0-9]:[0-5][0-9]:[0-6][0-9]", head)  # mail 2, error 3
    assert text == "oh\\nno"
    assert daemons[0].lines[1].startswith(b"<22>")


def test_a_stream_gets_what_syslog_3_writes(tmp_path: Path) -> None:
    """Compared with the C library of this machine: the same bytes, except the names and the process."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.settimeout(WAIT_SECONDS)
        listener.bind(str(tmp_path / "log"))
        listener.listen()
        handler(tmp_path / "log")
        log.error("hello")
        link, _ = listener.accept()
        with link:
            assert link.recv(4096).endswith(b": hello\0")  # as glibc does with SOCK_STREAM (misc/syslog.c)


@KINDS
def test_a_log_daemon_that_is_gone_and_comes_back_gets_every_line(
    tmp_path: Path, daemons: list[LogDaemon], kind: socket.SocketKind
) -> None:
    path = tmp_path / "log"
    found = handler(path)
    log.error("0: nobody is there yet")
    daemons.append(LogDaemon(path, kind))
    log.error("1")
    eventually(lambda: len(daemons[0].lines) == 2)
    daemons[0].close()
    for number in range(2, 5):
        log.error("%d: it was stopped", number)
    daemons.append(LogDaemon(path, kind))
    pump(found)
    log.error("5")
    eventually(lambda: len(daemons[1].lines) == 4)
    said = [int(text[0]) for daemon in daemons for text in daemon.texts()]
    assert said == [0, 1, 2, 3, 4, 5]


@KINDS
def test_a_slow_log_daemon_gets_all_of_a_burst(
    tmp_path: Path, daemons: list[LogDaemon], kind: socket.SocketKind
) -> None:
    """In the event loop of a worker, which goes on meanwhile."""
    daemons.append(LogDaemon(tmp_path / "log", kind, pause=0.001))
    found = handler(tmp_path / "log")
    lines = 3000  # more than net.unix.max_dgram_qlen and the buffers of a stream hold

    async def work() -> None:
        found.attach(asyncio.get_running_loop())
        for number in range(lines):
            log.info("%d %s", number, "x" * 200)
        assert len(daemons[0].lines) < lines  # nobody waited for it
        await asyncio.to_thread(eventually, lambda: len(daemons[0].lines) == lines)

    asyncio.run(asyncio.wait_for(work(), WAIT_SECONDS))
    assert [int(text.split()[0]) for text in daemons[0].texts()] == list(range(lines))


def test_what_does_not_fit_is_counted_in_its_place(tmp_path: Path, daemons: list[LogDaemon]) -> None:
    path = tmp_path / "log"
    found = handler(path)
    filler = "x" * 1000
    for number in range(2000):  # twice what is kept
        log.info("%d %s", number, filler)
    assert BACKLOG_MAX - 2000 < found._octets <= BACKLOG_MAX
    daemons.append(LogDaemon(path, socket.SOCK_DGRAM))
    pump(found)
    log.info("after it")
    pump(found)  # the queue of the log daemon may still be full
    eventually(lambda: "after it" in daemons[0].texts())
    *kept, count, last = daemons[0].texts()
    assert [int(text.split()[0]) for text in kept] == list(range(len(kept)))
    assert count == f"{2000 - len(kept)} log lines are lost: the log daemon did not take them in time"
    assert last == "after it"


def test_a_log_daemon_that_is_stuck_blocks_and_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syslog, "FLUSH_SECONDS", 0.2)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stuck:
        stuck.bind(str(tmp_path / "log"))
        found = handler(tmp_path / "log")
        for number in range(5000):  # more than any queue: net.unix.max_dgram_qlen is hundreds
            log.error("%d", number)
        for _ in range(20):
            found.due = 0.0
            found.retry()
        assert found._pause == syslog.RETRY_MAX  # it is asked less and less often
        assert stuck.recv(8192).endswith(b": 0")
        begun = time.monotonic()
        found.close()
        assert 0.2 <= time.monotonic() - begun < WAIT_SECONDS


def test_the_rest_is_sent_at_the_end(tmp_path: Path, daemons: list[LogDaemon]) -> None:
    daemons.append(LogDaemon(tmp_path / "log", socket.SOCK_DGRAM, pause=0.001))
    found = handler(tmp_path / "log")
    for number in range(200):  # more than its socket takes at once; ten times as many could be sent in FLUSH_SECONDS
        log.info("%d", number)
    found.close()
    eventually(lambda: len(daemons[0].lines) == 200)


def test_what_waits_is_not_said_twice_by_a_child(tmp_path: Path, daemons: list[LogDaemon]) -> None:
    path = tmp_path / "log"
    code = (
        "import logging, os, sys\n"
        "from proxsmtp_tp.service.syslog import SyslogHandler, in_use\n"
        "from proxsmtp_tp.service.logging import set_up\n"
        "set_up(SyslogHandler('p', sys.argv[1]), 3)\n"
        "logging.info('of the parent')\n"
        "child = os.fork() == 0\n"
        "if child: [handler.start_anew() for handler in in_use()]; logging.info('of the child')\n"
        "else: os.wait()\n"
        "sys.stdin.readline() if not child else None\n"
        "if not child: [handler.retry() for handler in in_use()]\n"
        "logging.shutdown()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE) as parent:
        daemons.append(LogDaemon(path, socket.SOCK_STREAM))
        parent.communicate(b"\n", timeout=WAIT_SECONDS)
    eventually(lambda: daemons[0].texts().count("of the parent") == 1)
    assert daemons[0].texts().count("of the parent") == 1


@KINDS
def test_the_starter_learns_that_no_log_daemon_takes_its_lines(
    tmp_path: Path, daemons: list[LogDaemon], kind: socket.SocketKind
) -> None:
    path = tmp_path / "log"
    assert problem(str(path)) == (
        f"no log daemon listens on {path} (No such file or directory):"
        " up to 1 MiB of lines for each process are kept until it comes"
    )
    daemons.append(LogDaemon(path, kind))
    assert problem(str(path)) is None
