"""The CAs of the system, and results that are kept."""

from __future__ import annotations

import ctypes
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.certificates import path_check
from proxsmtp_tp.certificates.path_check import KEPT_MAX, KEPT_SECONDS, Anchors

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.certificates.fixtures import Ca

IN_OPEN = 0x20
"""inotify(7)"""


@pytest.fixture
def system_cas(ca: Ca, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A directory with the CA, as update-ca-certificates makes it; there is no file with all of them."""
    folder = tmp_path / "certs"
    folder.mkdir()
    asked = ["openssl", "x509", "-noout", "-hash", "-in", str(ca.file)]
    name = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    (folder / f"{name}.0").write_bytes(ca.certificate)
    monkeypatch.setenv("SSL_CERT_DIR", str(folder))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    return folder


@pytest.mark.usefixtures("system_cas")
def test_a_ca_in_the_directory_of_the_system(ca: Ca, other_ca: Ca) -> None:
    anchors = Anchors()
    assert not anchors.check([ca.leaf("mx.example.org"), ca.der])
    assert "unable to get local issuer" in anchors.check([other_ca.leaf("mx.example.org")])


def test_a_ca_in_the_file_of_the_system(ca: Ca, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "missing"))
    monkeypatch.setenv("SSL_CERT_FILE", str(ca.file))
    assert not Anchors().check([ca.leaf("mx.example.org")])


def test_the_directory_is_not_read_for_an_unknown_issuer(system_cas: Path, other_ca: Ca) -> None:
    """A worker would wait for the disk at each handshake with a self-signed server."""
    libc = ctypes.CDLL(None)
    watch = libc.inotify_init1(os.O_NONBLOCK)
    try:
        anchors, leaf = Anchors(), other_ca.leaf("mx.example.org")
        assert libc.inotify_add_watch(watch, str(system_cas).encode(), IN_OPEN) >= 0
        assert anchors.check([leaf])
        with pytest.raises(BlockingIOError):
            os.read(watch, 4096)
        list(system_cas.iterdir())
        assert os.read(watch, 4096)
    finally:
        os.close(watch)


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The results of the checks that are really done."""
    done: list[str] = []
    check = path_check._check

    def counted(*given: object) -> str:
        done.append(check(*given))  # type: ignore[arg-type]
        return done[-1]

    monkeypatch.setattr(path_check, "_check", counted)
    return done


def test_a_chain_is_checked_again_after_a_time(ca: Ca, checks: list[str]) -> None:
    times = iter((0.0, KEPT_SECONDS - 1, KEPT_SECONDS))
    anchors, good = Anchors(ca.file, lambda: next(times)), [ca.leaf("mx.example.org"), ca.der]
    assert [(anchors.check(good), len(checks)) for _ in range(3)] == [("", 1), ("", 1), ("", 2)]


def test_another_chain_has_its_own_result(ca: Ca, other_ca: Ca, checks: list[str]) -> None:
    anchors = Anchors(ca.file)
    leaf, other = ca.leaf("mx.example.org"), other_ca.leaf("mx.example.org")
    results = [anchors.check(chain) for chain in ([leaf], [other], [leaf, other], [other, leaf], [])]
    assert [not result for result in results] == [True, False, True, False, False]
    assert len(checks) == 5


def test_a_limited_number_of_results_is_kept(ca: Ca, checks: list[str]) -> None:
    anchors = Anchors(ca.file)
    anchors.check([ca.der])
    for number in range(KEPT_MAX):
        anchors.check([number.to_bytes(2)])
    anchors.check([ca.der])
    assert len(checks) == KEPT_MAX + 2
    assert len(anchors._checked) == KEPT_MAX
