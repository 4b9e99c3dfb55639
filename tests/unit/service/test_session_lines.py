"""Lines about sessions go to the log without a record of logging: each looks as it would have with one."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
from contextlib import contextmanager, suppress
from io import StringIO
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.service import journal
from proxsmtp_tp.service import logging as logs
from proxsmtp_tp.service.syslog import SyslogHandler
from proxsmtp_tp.telemetry import session_lines
from proxsmtp_tp.telemetry.forms import Line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("root_logger")
log = logging.getLogger("x")

LINES = [
    Line("000001: client=192.0.2.7, from=ann@c.example, id=1"),
    Line("000001: status=a\r\nproxsmtpd: all is well\x1b[2J\udcff, id=1", "cleanup"),
    Line("x" * 900 + "é" * 200),
    Line("é" * 5000),
    Line("", fields={"v": 1, "event": "session", "text": "a\nb"}),
]
LEVELS = [logging.INFO, logging.WARNING, logging.ERROR, logging.DEBUG]
FORMS = pytest.mark.parametrize("form", [logs.OneLine, logs.PostfixLine, logs.JsonLine])


class Another(logging.Handler):
    """One more handler, as a test has: with it, all lines go through logging."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def write(level: int, line: Line) -> None:
    """As `net.reporting` does."""
    if not session_lines.taken(level, line):
        log.log(level, "%s", line.text, extra=session_lines.attributes(line))


def write_all() -> None:
    for level in LEVELS:
        for line in LINES:
            write(level, line)


@contextmanager
def through_logging() -> Iterator[None]:
    another = Another()
    logging.getLogger().addHandler(another)
    yield
    assert len(another.records) == len(LINES) * len(LEVELS)
    logging.getLogger().removeHandler(another)


@FORMS
@pytest.mark.parametrize("to_journal", [False, True])
def test_a_line_looks_as_with_a_record(
    form: type[logs.OneLine], to_journal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "JOURNAL", str(tmp_path / "nobody"))
    with (tmp_path / "log").open("w") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino if to_journal else 0}")
        handler = logs.StreamHandler("proxsmtpd", stream)
        logs.set_up(handler, 4)
        handler.setFormatter(form("%(message)s"))
        monkeypatch.setattr(handler, "emit", pytest.fail)
        write_all()
        monkeypatch.undo()
        direct = (tmp_path / "log").read_bytes()
        with through_logging():
            write_all()
    written = (tmp_path / "log").read_bytes()
    assert direct.count(b"\n") == len(LINES) * len(LEVELS)
    assert max(map(len, direct.split(b"\n"))) < 4096
    if form is logs.JsonLine:  # without fields, a record is a line of text with the time
        assert [json.loads(line.partition(b"{")[1] + line.partition(b"{")[2]) for line in direct.splitlines()]
    else:
        assert written == direct * 2


@FORMS
@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_the_log_daemon_gets_the_same(form: type[logs.OneLine], kind: socket.SocketKind, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, kind) as daemon:
        daemon.bind(str(tmp_path / "log"))
        if kind == socket.SOCK_STREAM:
            daemon.listen()
        handler = SyslogHandler("proxsmtpd", str(tmp_path / "log"))
        logs.set_up(handler, 4)
        handler.setFormatter(form("%(message)s"))
        for line in LINES[:2]:
            write(logging.INFO, line)
        logging.getLogger().addHandler(another := Another())
        for line in LINES[:2]:
            write(logging.INFO, line)
        assert len(another.records) == 2
        taken = daemon.accept()[0] if kind == socket.SOCK_STREAM else daemon
        data = b"".join(taken.recv(9000) + b"\0" for _ in range(4)) if taken is daemon else taken.recv(90000)
        if taken is not daemon:
            taken.close()
    found = [re.sub(rb"\w+ +\d+ \d\d:\d\d:\d\d", b"TIME", line) for line in data.split(b"\0") if line]
    assert len(found) == 4
    assert all(line.startswith(b"<22>TIME proxsmtpd") for line in found)
    if form is not logs.JsonLine:
        assert found[:2] == found[2:]


def test_the_journal_gets_the_names_that_pflogsumm_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "JOURNAL", str(tmp_path / "socket"))
    with (
        (tmp_path / "stream").open("w") as stream,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listening,
    ):
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        listening.bind(str(tmp_path / "socket"))
        handler = logs.StreamHandler("proxsmtpd", stream)
        logs.set_up(handler, 4)
        handler.setFormatter(logs.PostfixLine("%(message)s"))
        write(logging.WARNING, Line("01JD: milter-reject", "cleanup"))
        entry = listening.recv(9000)
        assert b"MESSAGE=01JD: milter-reject\nPRIORITY=4\n" in entry
        assert b"SYSLOG_IDENTIFIER=proxsmtpd/cleanup\n" in entry
    assert (tmp_path / "stream").read_text() == ""


def test_each_line_is_one_write() -> None:
    """So workers that share a pipe do not mix their lines: a pipe in packet mode (pipe(2)) keeps writes apart."""
    reading, writing = os.pipe2(os.O_DIRECT | os.O_NONBLOCK)
    with os.fdopen(reading, "rb", 0) as got, os.fdopen(writing, "w") as stream:
        logs.set_up(logs.StreamHandler("p", stream), 4)
        for line in LINES:
            write(logging.INFO, line)
            assert os.read(got.fileno(), 9000).endswith(b"\n")
        with pytest.raises(BlockingIOError):
            os.read(got.fileno(), 1)


def fill(descriptor: int) -> int:
    octets = 0
    with suppress(BlockingIOError):
        while True:
            octets += os.write(descriptor, b"x" * 4096)
    return octets


def test_a_full_pipe_gets_its_lines_later_and_in_order() -> None:
    reading, writing = os.pipe2(os.O_NONBLOCK)
    with os.fdopen(reading, "rb", 0) as got, os.fdopen(writing, "w") as stream:
        logs.set_up(logs.StreamHandler("p", stream), 4)
        filled = fill(writing)
        write(logging.INFO, Line("first"))
        assert len(got.read(filled)) == filled
        for text in ("second", "third"):
            write(logging.INFO, Line(text))
        assert got.read(9000) == b"p: first\np: second\np: third\n"


def test_a_stream_in_memory_gets_the_line() -> None:
    stream = StringIO()
    logs.set_up(logs.StreamHandler("p", stream), 4)
    write(logging.INFO, LINES[0])
    assert stream.getvalue() == f"p: {LINES[0].text}\n"
