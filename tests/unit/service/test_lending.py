"""The keys of CAs that root opens for a daemon which never is root."""

from __future__ import annotations

import array
import importlib
import os
import socket
import stat
import tempfile
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.config.settings import Settings
from proxsmtp_tp.config.tls_lines import TlsAction, TlsRule
from proxsmtp_tp.service.key_files import KeyFileError, ca_files, read_all
from proxsmtp_tp.service.lending import lend, take
from proxsmtp_tp.service.minting import Minting
from proxsmtp_tp.service.readiness import LENT, Notifier
from proxsmtp_tp.service.tls_keys import TlsKeys, load_libraries, prepare_cas
from tests.unit.service.test_user import may_become_nobody

if TYPE_CHECKING:
    from collections.abc import Iterator

TERMINATE = Settings(tls=(TlsRule(TlsAction.TERMINATE),))
NOBODY = 65534


class Manager:
    """What systemd does: it reads messages, and keeps descriptors by name."""

    def __init__(self, path: Path) -> None:
        self.kept: dict[str, int] = {}
        self.said: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            data, parts, _, _ = self._socket.recvmsg(4096, 64)
            descriptors = array.array("i", b"".join(part for _, _, part in parts))
            text = data.decode()
            if text == "end":
                return
            self.said.append(text)
            if text.startswith("FDSTORE=1"):
                self.kept[text.partition("FDNAME=")[2]] = descriptors[0]
            else:
                for descriptor in descriptors:
                    os.close(descriptor)

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"end", self._socket.getsockname())
        self._thread.join()
        self._socket.close()
        for descriptor in self.kept.values():
            os.close(descriptor)


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    path = tmp_path / "notify"
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    with closing(Manager(path)) as manager:
        yield manager


@pytest.fixture
def notifier(manager: Manager) -> Iterator[Notifier]:
    """Of the command."""
    assert not manager.said
    with closing(Notifier()) as made:
        yield made


def test_both_keys_are_given_to_the_manager(manager: Manager, notifier: Notifier, tmp_path: Path) -> None:
    lend(TERMINATE, tmp_path / "state", (), notifier)
    files = ca_files(TERMINATE, tmp_path / "state")
    assert manager.said == [
        text
        for name in ("tls-ca.key", "tls-untrusted-ca.key")
        for text in (f"FDSTOREREMOVE=1\nFDNAME={name}", f"FDSTORE=1\nFDNAME={name}")
    ] + ["BARRIER=1"]
    assert [read_all(manager.kept[LENT[each.trusted]]) for each in files] == [each.key.read_bytes() for each in files]


def test_where_no_ca_is_needed_nothing_is_done(tmp_path: Path) -> None:
    lend(Settings(), tmp_path / "state", (), Notifier())
    assert not (tmp_path / "state").exists()


def test_without_a_manager_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    with pytest.raises(KeyFileError, match="this command is for ExecStartPre"):
        lend(TERMINATE, tmp_path / "state", (), Notifier())


def test_the_folder_and_the_certificates_are_for_all_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        prepare_cas(ca_files(TERMINATE, tmp_path))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "tls").stat().st_mode) == 0o755
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "tls").iterdir()}
    assert modes == {"ca.pem": 0o644, "ca.key": 0o600, "untrusted-ca.pem": 0o644, "untrusted-ca.key": 0o600}


def as_nobody(manager: Manager, state: Path, lent: bool) -> str:
    """The beginning of a daemon of another user. What it says of the keys."""
    out, into = os.pipe()
    load_libraries(TERMINATE)
    importlib.import_module("encodings.idna")
    if not (child := os.fork()):
        said = "crashed"
        try:
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            for each in ca_files(TERMINATE, state):
                with pytest.raises(PermissionError):
                    each.key.read_bytes()
            keys = {trusted: manager.kept[name] for trusted, name in LENT.items()} if lent else {}
            made = TlsKeys(TERMINATE, state, (), keys)
            assert made.minting is not None
            said = "reads " + " ".join(str(len(read_all(key)) > 100) for key in made.minting._keys)
        except KeyFileError as error:
            said = str(error)
        finally:
            os.write(into, said.encode())
            os._exit(0)
    os.close(into)
    with open(out, "rb") as file:  # noqa: PTH123  (a descriptor)
        said = file.read().decode()
    os.waitpid(child, 0)
    return said


def test_a_daemon_that_may_not_read_the_keys_is_given_them(manager: Manager, notifier: Notifier) -> None:
    if not may_become_nobody():
        return
    with tempfile.TemporaryDirectory() as folder:  # everybody may reach it, other than pytest's
        Path(folder).chmod(0o755)
        state = Path(folder, "state")
        lend(TERMINATE, state, (), notifier)
        state.chmod(0o755)
        assert as_nobody(manager, state, lent=True) == "reads True True"
        wrong = f"{state}/tls: it belongs to user 0: start the daemon as root, or by its unit"
        assert as_nobody(manager, state, lent=False) == wrong


def test_a_daemon_takes_them_and_the_manager_forgets_them(manager: Manager, notifier: Notifier, tmp_path: Path) -> None:
    lend(TERMINATE, tmp_path / "state", (), notifier)
    notifier.lent = {name: os.dup(key) for name, key in manager.kept.items()}
    del manager.said[:]
    lent = take(notifier)
    assert sorted(lent) == [False, True]
    minting = Minting(ca_files(TERMINATE, tmp_path / "state"), lent)
    for key in lent.values():
        os.close(key)
    assert all(read_all(key) for key in minting._keys)
    minting.close()
    assert notifier.barrier(10)
    assert manager.said[:2] == [f"FDSTOREREMOVE=1\nFDNAME={name}" for name in notifier.lent]
