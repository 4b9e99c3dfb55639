"""The unix sockets of the master: the mode of the file, and a reader that waits only so long."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.service import unix_listener
from proxsmtp_tp.service.unix_listener import UnixListener, read_answer
from tests.unit.service.conftest import eventually

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_the_file_has_its_mode_whatever_the_umask_is(tmp_path: Path, mode: int) -> None:
    for umask in (0, 0o077, 0o777):
        listener = UnixListener()
        before = os.umask(umask)
        try:
            listener.listen(tmp_path / "s", mode, 1)
            assert os.umask(umask) == umask
        finally:
            os.umask(before)
        assert (tmp_path / "s").stat().st_mode & 0o777 == mode
        listener.close(remove=True)
        assert listener.fileno() is None
        assert not (tmp_path / "s").exists()


def test_a_reader_waits_only_so_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a daemon that accepts nobody, also where its queue is full."""
    monkeypatch.setattr(unix_listener, "SECONDS", 0.2)
    listener = UnixListener()
    listener.listen(tmp_path / "s", 0o600, 0)
    with pytest.raises(TimeoutError, match="timed out"):
        read_answer(tmp_path / "s")
    with pytest.raises(TimeoutError, match="busy with other clients"):
        read_answer(tmp_path / "s")
    while (client := listener.accept()) is not None:
        client.close()
    monkeypatch.setattr(unix_listener, "SECONDS", 20.0)
    serving = threading.Thread(target=lambda: eventually(lambda: listener.answer_next(lambda: b"x" * 1000)))
    serving.start()
    assert read_answer(tmp_path / "s", most=1000) == b"x" * 1000
    serving.join()
    serving = threading.Thread(target=lambda: eventually(lambda: listener.answer_next(lambda: b"x" * 1001)))
    serving.start()
    with pytest.raises(ConnectionError, match="too long"):
        read_answer(tmp_path / "s", most=1000)
    serving.join()
    listener.close()


def test_a_closed_socket_gives_no_answer(tmp_path: Path) -> None:
    listener = UnixListener()
    assert not listener.answer_next(bytes)
    (tmp_path / "s").write_text("precious")
    with pytest.raises(OSError, match="in use"):
        listener.listen(tmp_path / "s", 0o600, 1)
    listener.close(remove=True)
    assert listener.fileno() is None
    assert (tmp_path / "s").read_text() == "precious"
