"""Where the files of an instance are that its unit, or a daemon without one, keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxsmtp_tp.cli.state_files import directory_of, owners_of
from proxsmtp_tp.config.settings import Settings
from proxsmtp_tp.gateway.doctor import unit

SETTINGS = Settings(instance="other", user="nobody")


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root, outside of the unit."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)


def test_under_systemd_it_has_the_name_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit, "SYSTEMD", tmp_path)
    path = "/etc/proxsmtp-tp/gateway.conf"
    assert directory_of(path, SETTINGS) == Path("/var/lib/proxsmtp-tp/gateway")
    assert owners_of(path, SETTINGS) == {65534}
    assert owners_of(path, Settings(user="no-such-user")) == set()


@pytest.mark.parametrize("path", ["/etc/proxsmtp-tp/gateway.conf", "/srv/gateway.conf"])
def test_without_a_unit_it_has_the_name_of_the_instance(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unit, "SYSTEMD", tmp_path / ("none" if path.startswith("/etc") else ""))
    assert directory_of(path, SETTINGS) == Path("/var/lib/proxsmtp-tp/other")
    assert owners_of(path, SETTINGS) == set()
