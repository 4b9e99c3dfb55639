"""Log lines: one line each, printable, bounded, with the right priority, and never in the way of mail."""

from __future__ import annotations

import logging
import os
import socket
from io import StringIO
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.service.logging import LEVELS, NOTICE, OneLine, StreamHandler, SyslogHandler, priority, set_up

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _root_logger_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, raising = list(root.handlers), root.level, logging.raiseExceptions
    for handler in handlers:  # those of the test runner must not be closed by set_up
        root.removeHandler(handler)
    yield
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    logging.raiseExceptions = raising


def test_a_peer_cannot_write_lines_of_its_own() -> None:
    stream = StringIO()
    set_up(StreamHandler("proxsmtpd", stream), 4)
    logging.getLogger("x").info("from=<%s>", "a\r\nproxsmtpd: all is well\x1b[2J\0\u2028\udcff")
    assert stream.getvalue() == ("proxsmtpd: from=<a\\r\\nproxsmtpd: all is well\\x1b[2J\\x00\\u2028\\udcff>\n")


def test_a_traceback_is_one_line() -> None:
    stream = StringIO()
    set_up(StreamHandler("proxsmtpd", stream), 4)
    try:
        raise RuntimeError("a\nb")
    except RuntimeError:
        logging.getLogger("x").exception("oh")
    assert stream.getvalue().count("\n") == 1
    assert "oh\\nTraceback" in stream.getvalue()
    assert "RuntimeError: a\\nb\n" in stream.getvalue()


@pytest.mark.parametrize("char", ["x", "é", "\n", "€"])
def test_a_line_is_not_longer_than_what_is_written_at_once(char: str) -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, char * 9000, None, None)
    text = OneLine("%(message)s").format(record)
    assert len(text.encode()) <= 4000
    assert text.endswith("...")


@pytest.mark.parametrize(("level", "shown"), [(0, "E"), (1, "EW"), (2, "EWN"), (3, "EWNI"), (4, "EWNID")])
def test_levels_are_those_of_the_original(level: int, shown: str) -> None:
    stream = StringIO()
    set_up(StreamHandler("p", stream), level)
    for number, letter in zip(LEVELS, "EWNID", strict=True):
        logging.getLogger("x").log(number, letter)
    assert stream.getvalue() == "".join(f"p: {letter}\n" for letter in shown)


def test_the_journal_gets_priorities(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with path.open("w") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        set_up(StreamHandler("p", stream), 3)
        logging.getLogger("x").warning("w")
        logging.getLogger("x").log(NOTICE, "n")
    assert path.read_text() == "<4>w\n<5>n\n"


def test_another_stream_is_not_the_journal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:1")
    with (tmp_path / "log").open("w") as stream:
        set_up(StreamHandler("p", stream), 3)
        logging.getLogger("x").warning("w")
    assert (tmp_path / "log").read_text() == "p: w\n"


def test_priorities_are_those_of_syslog() -> None:
    assert [priority(level) for level in (50, 40, 30, 25, 20, 10)] == [2, 3, 4, 5, 6, 7]


def syslog(path: Path, kind: socket.SocketKind = socket.SOCK_DGRAM) -> socket.socket:
    daemon = socket.socket(socket.AF_UNIX, kind)
    daemon.settimeout(10)
    daemon.bind(str(path))
    return daemon


def test_syslog_lines_carry_facility_mail_and_the_process(tmp_path: Path) -> None:
    with syslog(tmp_path / "log") as daemon:
        set_up(SyslogHandler("proxsmtpd", str(tmp_path / "log")), 3)
        logging.getLogger("x").error("oh\nno")
        line = daemon.recv(8192).decode()
    head, _, text = line.partition(f" proxsmtpd[{os.getpid()}]: ")
    assert head.startswith("<19>")  # mail is 2, an error is 3
    assert text == "oh\\nno"


def test_a_syslog_that_is_gone_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "log"
    set_up(SyslogHandler("p", str(path)), 3)
    logging.getLogger("x").error("lost: nobody is there yet")
    with syslog(path) as daemon:
        logging.getLogger("x").error("one")
        assert daemon.recv(8192).endswith(b": one")
    path.unlink()
    logging.getLogger("x").error("lost: it was stopped")
    with syslog(path) as daemon:
        logging.getLogger("x").error("two")
        assert daemon.recv(8192).endswith(b": two")


def test_a_syslog_that_is_stuck_blocks_nobody(tmp_path: Path) -> None:
    with syslog(tmp_path / "log") as daemon:
        set_up(SyslogHandler("p", str(tmp_path / "log")), 3)
        for number in range(5000):  # more than any queue: net.unix.max_dgram_qlen is hundreds
            logging.getLogger("x").error("%d", number)
        assert daemon.recv(8192).endswith(b": 0")
