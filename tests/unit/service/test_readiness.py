"""What the service manager is told, and that no other process can send messages in our name."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from proxsmtp_tp.service.readiness import Notifier

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_without_a_service_manager_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setenv("WATCHDOG_USEC", "1000")
    notifier = Notifier()
    notifier.ready("x")
    notifier.alive()
    assert notifier.watchdog is None


def test_an_abstract_socket_and_a_clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(10)
        manager.bind(f"\0proxsmtp-tp-test-{os.getpid()}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@proxsmtp-tp-test-{os.getpid()}")
        monkeypatch.setenv("WATCHDOG_USEC", "2000000")
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
        notifier = Notifier()
        assert notifier.watchdog == 2.0
        assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & set(os.environ)
        notifier.alive()
        assert manager.recv(99) == b"WATCHDOG=1"
    notifier.ready("the manager is gone: no error")
    notifier.close()


def test_kept_sockets_and_lent_keys_are_distinguished() -> None:
    """In a child, because the numbers of the descriptors are fixed (SD_LISTEN_FDS_START)."""
    out, into = os.pipe()
    if not (child := os.fork()):
        said = "crashed"
        try:
            os.dup2(into, 30)
            for number in (3, 4, 5):
                os.dup2(30, number)
            os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="3", LISTEN_FDNAMES="a:b:c:tls-ca.key")
            assert Notifier().stored == [3, 4, 5]  # names that do not fit name nothing
            os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="3", LISTEN_FDNAMES="a:tls-ca.key:b")
            notifier = Notifier()
            said = f"{notifier.stored} {notifier.lent} {[os.get_inheritable(number) for number in (3, 4, 5)]}"
        finally:
            os.write(30, said.encode())
            os._exit(0)
    os.close(into)
    os.waitpid(child, 0)
    with open(out) as file:  # noqa: PTH123  (a descriptor)
        assert file.read() == "[3, 5] {'tls-ca.key': 4} [False, False, False]"


def test_the_watchdog_of_another_process_is_not_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "n"))
    monkeypatch.setenv("WATCHDOG_USEC", "2000000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    notifier = Notifier()
    assert notifier.watchdog is None
    notifier.close()
