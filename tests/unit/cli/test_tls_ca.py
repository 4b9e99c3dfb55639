"""tls-ca: the CA of an instance, for people and for trust stores."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.cli.main import main
from proxsmtp_tp.config.settings import Settings
from proxsmtp_tp.config.tls_lines import TlsAction, TlsRule
from proxsmtp_tp.gateway.doctor import unit
from proxsmtp_tp.service.key_files import ca_files
from proxsmtp_tp.service.tls_keys import prepare_cas
from tests.unit.service.test_user import may_become_nobody

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A configuration that needs a CA, which is not made yet."""
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    path = tmp_path / "d.conf"
    path.write_text("Listen: 127.0.0.1:10025\nOutAddress: 127.0.0.1:25\nTls: terminate\n")
    return str(path)


def make(folder: Path) -> None:
    """As the first start does."""
    prepare_cas(ca_files(Settings(tls=(TlsRule(TlsAction.TERMINATE),)), folder / "state"))


def test_export_is_the_certificate_that_clients_must_trust(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path)
    assert main(["tls-ca", "export", "-f", file]) == 0
    assert capsys.readouterr().out == (tmp_path / "state" / "tls" / "ca.pem").read_text()


def test_show_names_both_with_their_fingerprints(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path)
    assert main(["tls-ca", "show", "-f", file]) == 0
    said = capsys.readouterr().out
    assert "CA for verified servers: clients must trust it" in said
    assert "CA for other servers: no client may trust it" in said
    for name in ("ca", "untrusted-ca"):
        path = tmp_path / "state" / "tls" / f"{name}.pem"
        shown = subprocess.run(
            ["openssl", "x509", "-in", path, "-noout", "-fingerprint", "-sha256"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert shown.stdout.strip().partition("=")[2] in said
        assert str(path) in said


@pytest.mark.parametrize("what", ["show", "export"])
def test_before_the_first_start(file: str, capsys: pytest.CaptureFixture[str], what: str) -> None:
    assert main(["tls-ca", what, "-f", file]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "No such file or directory" in said.err
    assert "it is made when the daemon starts for the first time" in said.err


def test_where_none_is_needed(tmp_path: Path, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "d.conf").write_text("Listen: 127.0.0.1:10025\nOutAddress: 127.0.0.1:25\n")
    assert main(["tls-ca", "export", "-f", file]) == 1
    assert "none is needed" in capsys.readouterr().err


def test_a_file_without_a_certificate(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path)
    (tmp_path / "state" / "tls" / "ca.pem").write_text("nothing")
    for what in ("show", "export"):
        assert main(["tls-ca", what, "-f", file]) == 1
        assert "there is no certificate in PEM in it" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["show", "export"])
@pytest.mark.parametrize("linked", ["folder", "file"])
def test_a_link_in_the_state_directory_is_not_followed(
    what: str, linked: str, file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The directory belongs to the daemon's user: a filter must not give its own CA to the clients."""
    make(tmp_path)
    folder, moved = tmp_path / "state" / "tls", tmp_path / "moved"
    if linked == "folder":
        folder.rename(moved)
        folder.symlink_to(moved)
    else:
        (folder / "ca.pem").rename(moved)
        (folder / "ca.pem").symlink_to(moved)
    assert main(["tls-ca", what, "-f", file]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "/state/tls" in said.err


@pytest.mark.parametrize("systemd", [True, False])
def test_the_folder_is_of_the_user_of_the_unit(
    systemd: bool, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under systemd the daemon has its user from the start. Started by root, its CAs are root's."""
    monkeypatch.setattr(unit, "SYSTEMD", tmp_path if systemd else tmp_path / "none")
    monkeypatch.setattr(unit, "CONFIGURATION", tmp_path)
    with (tmp_path / "d.conf").open("a") as configuration:
        configuration.write("User: nobody\n")
    make(tmp_path)
    if may_become_nobody():
        os.chown(tmp_path / "state" / "tls", 65534, 65534)
        assert main(["tls-ca", "export", "-f", file]) == (0 if systemd else 1)
        said = capsys.readouterr()
        assert ("BEGIN CERTIFICATE" in said.out) == systemd
        assert ("it belongs to user 65534" in said.err) != systemd


def certificate(state: Path, name: str = "ca") -> str:
    return (state / "tls" / f"{name}.pem").read_text()


def test_renew_makes_the_next_ca_and_use_puts_it_in_place(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path)
    state = tmp_path / "state"
    old, untrusted = certificate(state), certificate(state, "untrusted-ca")
    old_key = (state / "tls/ca.key").read_bytes()
    assert main(["tls-ca", "renew", "-f", file]) == 0
    assert f"made {state}/tls/next-ca.pem; the old CA stays in use." in capsys.readouterr().out
    new = certificate(state, "next-ca")
    assert (certificate(state), (state / "tls/ca.key").read_bytes()) == (old, old_key)
    assert (state / "tls/next-ca.key").stat().st_mode & 0o777 == 0o600
    assert main(["tls-ca", "export", "-f", file]) == 0
    assert capsys.readouterr().out == old + new
    assert main(["tls-ca", "show", "-f", file]) == 0
    assert "after `tls-ca renew --use`: clients must trust it, too, before that" in capsys.readouterr().out
    assert main(["tls-ca", "renew", "-f", file]) == 1  # once is enough
    assert "is there already" in capsys.readouterr().err
    assert main(["tls-ca", "renew", "--use", "-f", file]) == 0
    assert "restart the daemon" in capsys.readouterr().out
    assert certificate(state) == new
    assert certificate(state, "untrusted-ca") != untrusted
    prepare_cas(ca_files(Settings(tls=(TlsRule(TlsAction.TERMINATE),)), state))  # key and certificate fit
    assert main(["tls-ca", "export", "-f", file]) == 0
    assert capsys.readouterr().out == new
    assert sorted(path.name for path in (state / "tls").iterdir()) == [
        "ca.key", "ca.pem", "untrusted-ca.key", "untrusted-ca.pem"
    ]  # fmt: skip


def test_use_goes_on_after_a_crash(file: str, tmp_path: Path) -> None:
    make(tmp_path)
    state = tmp_path / "state"
    assert main(["tls-ca", "renew", "-f", file]) == 0
    new = certificate(state, "next-ca")
    (state / "tls/next-ca.key").rename(state / "tls/ca.key")
    assert main(["tls-ca", "renew", "--use", "-f", file]) == 0
    assert certificate(state) == new
    prepare_cas(ca_files(Settings(tls=(TlsRule(TlsAction.TERMINATE),)), state))


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["renew"], 1, "there is no CA to renew"),
        (["renew", "--use"], 1, "there is no CA to renew"),
        (["show", "--use"], 2, "--use is for renew"),
    ],
)
def test_what_cannot_be_renewed(
    file: str, arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tls-ca", *arguments, "-f", file]) == code
    assert said in capsys.readouterr().err


def test_use_without_a_next_ca(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path)
    before = certificate(tmp_path / "state")
    assert main(["tls-ca", "renew", "--use", "-f", file]) == 1
    assert "proxsmtp-tp tls-ca renew makes it" in capsys.readouterr().err
    assert certificate(tmp_path / "state") == before


def test_a_ca_of_the_operator_is_not_changed(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path)
    folder = tmp_path / "state/tls"
    (tmp_path / "d.conf").write_text(
        f"Listen: 127.0.0.1:10025\nOutAddress: 127.0.0.1:25\nTls: terminate\nTlsCa: {folder}/ca.pem {folder}/ca.key\n"
    )
    assert main(["tls-ca", "renew", "-f", file]) == 1
    assert "is from TlsCa: renew it where it was made" in capsys.readouterr().err
    assert not (folder / "next-ca.pem").exists()


def test_the_folder_of_another_user_is_not_changed(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path)
    if may_become_nobody():
        os.chown(tmp_path / "state/tls", 65534, 65534)
        assert main(["tls-ca", "renew", "-f", file]) == 1
        assert "it belongs to user 65534: type this as this user" in capsys.readouterr().err
