"""What happens between the configuration and the first worker; and parts of the master."""

from __future__ import annotations

import os
import resource
import socket
from dataclasses import fields
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.config.reader import Configuration
from proxsmtp_tp.config.settings import Settings
from proxsmtp_tp.net.listening import Endpoint
from proxsmtp_tp.service.generation import RowAllocator
from proxsmtp_tp.service.launch import Launch, _check_temp_directory, _pid_path, _raise_descriptor_limit
from proxsmtp_tp.service.master import _close_everywhere
from proxsmtp_tp.service.reload import FIXED, ReloadError, acceptable, with_workers

if TYPE_CHECKING:
    from pathlib import Path


def test_a_listener_stops_in_every_process_that_has_it() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    in_a_worker = listener.dup()
    _close_everywhere({Endpoint(socket.AF_INET, address): listener})
    with in_a_worker, socket.socket() as client, pytest.raises(ConnectionRefusedError):
        client.connect(address)


def test_workers_are_counted_once_and_for_all() -> None:
    assert with_workers(Settings()).workers == len(os.sched_getaffinity(0))
    assert with_workers(Settings(workers=3)).workers == 3


def test_with_more_cores_than_workers_a_reload_still_has_rows_for_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(300)))
    settings = with_workers(Settings())
    rows = RowAllocator()
    for _ in range(settings.workers):
        rows.take()
    assert acceptable(Settings(), settings, len(rows)) == (settings, [])


def test_descriptors_are_raised_and_what_is_missing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
    try:
        _raise_descriptor_limit(Settings())
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard
        assert caplog.text == "" or hard < 500
        _raise_descriptor_limit(Settings(max_connections=1 << 40))
        assert "LimitNOFILE=" in caplog.text
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_temp_directory_that_is_missing_is_made(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = tmp_path / "spool"
    _check_temp_directory(Settings(temp_directory=str(made)))
    assert not made.exists()  # without a filter nothing is stored
    _check_temp_directory(Settings(filter_command="cat", temp_directory=str(made)))
    assert made.stat().st_mode & 0o777 == 0o700
    assert not caplog.records


def test_a_folder_that_cannot_be_written_to_is_said_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    _check_temp_directory(Settings(filter_command="cat"))
    _check_temp_directory(Settings(temp_directory="/nowhere/temp"))
    assert caplog.text == ""
    _check_temp_directory(Settings(filter_command="cat", temp_directory="/nowhere/temp"))
    assert "TempDirectory /nowhere/temp" in caplog.text


def test_the_fields_that_a_reload_cannot_change_exist() -> None:

    assert set(FIXED) <= {field.name for field in fields(Settings)}


def test_the_pid_file_of_the_configuration_overrides_the_option(caplog: pytest.LogCaptureFixture) -> None:

    wanted = Launch(Configuration(Settings()), "x", "p", pid_file="/a")
    assert _pid_path(Settings(), wanted) == "/a"
    assert caplog.text == ""
    assert _pid_path(Settings(pid_file="/b"), wanted) == "/b"
    assert "ignoring pid file specified on the command line" in caplog.text


def test_a_reload_that_finds_no_row_for_its_workers_is_put_off() -> None:
    assert acceptable(Settings(workers=1, instance="x"), Settings(), rows=1) == (Settings(workers=1), ["Instance"])
    with pytest.raises(ReloadError, match="DrainTimeOut"):
        acceptable(Settings(workers=2), Settings(), rows=1)
