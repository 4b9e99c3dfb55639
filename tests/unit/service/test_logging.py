"""Log lines: one line each, printable, bounded, with the right priority, and never in the way of mail."""

from __future__ import annotations

import logging
import os
import socket
from io import StringIO
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.service import journal
from proxsmtp_tp.service import logging as logs
from proxsmtp_tp.service.logging import LEVELS, NOTICE, OneLine, StreamHandler, priority, set_up

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import TextIO


pytestmark = pytest.mark.usefixtures("root_logger")


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


# LogFormat postfix in the journal.


def journal_entry(data: bytes) -> dict[str, str]:
    """The fields of a datagram."""
    return dict(line.split("=", 1) for line in data.decode().splitlines())


@pytest.fixture
def journal_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[TextIO, socket.socket]]:
    """Standard error, as the service manager connects it, and the journal's socket."""
    monkeypatch.setattr(journal, "JOURNAL", str(tmp_path / "socket"))
    with (
        (tmp_path / "stream").open("w+") as stream,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listening,
    ):
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        listening.bind(str(tmp_path / "socket"))
        yield stream, listening


def record_of(text: str, daemon: str, level: int = logging.INFO) -> logging.LogRecord:
    record = logging.LogRecord("x", level, __file__, 1, "%s", (text,), None)
    record.daemon = daemon
    return record


def test_the_journal_gets_the_names_that_pflogsumm_reads(journal_stream: tuple[TextIO, socket.socket]) -> None:
    stream, listening = journal_stream
    handler = logs.StreamHandler("proxsmtp-tp", stream)
    handler.setFormatter(logs.PostfixLine("%(message)s"))
    handler.emit(record_of("01JD8Q3K7C2VA: client=unknown[192.0.2.7]", "smtpd"))
    handler.emit(record_of("filter\nfails", "cleanup", logging.WARNING))
    first, second = (journal_entry(listening.recv(9000)) for _ in range(2))
    assert first == {
        "MESSAGE": "01JD8Q3K7C2VA: client=unknown[192.0.2.7]",
        "PRIORITY": "6",
        "SYSLOG_FACILITY": "2",
        "SYSLOG_IDENTIFIER": "proxsmtp-tp/smtpd",
        "SYSLOG_PID": str(os.getpid()),
    }
    assert (second["SYSLOG_IDENTIFIER"], second["PRIORITY"], second["MESSAGE"]) == (
        "proxsmtp-tp/cleanup", "4", "filter\\nfails",
    )  # fmt: skip
    handler.close()
    stream.seek(0)
    assert stream.read() == ""


def test_a_line_that_the_journal_does_not_take_goes_to_standard_error(
    journal_stream: tuple[TextIO, socket.socket],
) -> None:
    stream, listening = journal_stream
    handler = logs.StreamHandler("proxsmtp-tp", stream)
    handler.setFormatter(logs.PostfixLine("%(message)s"))
    handler.emit(record_of("first", "smtpd"))
    for number in range(5000):  # nobody reads: its queue is full
        handler.emit(record_of(f"line {number}", "smtpd"))
    taken = 0
    while True:
        try:
            listening.recv(9000)
            taken += 1
        except BlockingIOError:
            break
    stream.flush()
    stream.seek(0)
    said = stream.read().splitlines()
    assert taken + len(said) == 5001
    assert said[-1] == "<6>line 4999"
    handler.close()


def test_other_forms_go_to_standard_error(journal_stream: tuple[TextIO, socket.socket]) -> None:
    stream, listening = journal_stream
    handler = logs.StreamHandler("proxsmtp-tp", stream)
    handler.setFormatter(logs.OneLine("%(message)s"))
    handler.emit(record_of("plain", "smtpd"))
    stream.seek(0)
    assert stream.read() == "<6>plain\n"
    with pytest.raises(BlockingIOError):
        listening.recv(9000)
    handler.close()
