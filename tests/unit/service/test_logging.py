"""Log lines: one line each, printable, bounded, with the right priority, and never in the way of mail."""

from __future__ import annotations

import logging
import os
from io import StringIO
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.service.logging import LEVELS, NOTICE, OneLine, StreamHandler, priority, set_up

if TYPE_CHECKING:
    from pathlib import Path


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
