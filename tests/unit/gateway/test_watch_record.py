"""The record of the watch over the rules, as status shows it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from proxsmtp_tp.cli import status
from proxsmtp_tp.gateway.state import Store
from proxsmtp_tp.gateway.watch_record import STALE, Record, describe, forget, path_of, read, write

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_an_old_or_damaged_record_counts_for_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert read("a", store) is None
    record = Record("drifted", ("missing: x",), time.time())
    before = os.umask(0o077)  # of the unit; `status` is for everybody
    try:
        write("a", store, record)
    finally:
        os.umask(before)
    assert path_of("a", store).stat().st_mode & 0o777 == 0o644
    assert read("a", store) == record
    write("a", store, Record("in place", (), time.time() - STALE - 1))
    assert read("a", store) is None
    path_of("a", store).write_text("[]")
    assert read("a", store) is None
    (tmp_path / "b@1.json").touch()
    forget("a", store)
    forget("a", store)
    assert tmp_path.exists()
    store = Store(tmp_path / "new")
    write("a", store, record)
    forget("a", store)
    assert not (tmp_path / "new").exists()


def test_status_is_wrong_where_rules_are_not_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    lines, wrong = describe(Record("in place", (), time.time(), time.time()))
    assert not wrong
    assert lines[0].startswith("rules: in place (seen 0 s ago; put back at 20")
    lines, wrong = describe(Record("drifted", ("chain x\x1b: missing",), time.time()))
    assert wrong
    assert lines[1] == "  chain x\\x1b: missing"
    assert status.rules_lines({"rules": None}) == ([], False)
