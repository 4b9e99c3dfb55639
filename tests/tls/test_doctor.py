"""What doctor says of keys, certificates and a real resolver."""

from __future__ import annotations

import datetime as dt
import os
import re
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.certificates.leaf import LeafKey, mint
from proxsmtp_tp.cli import doctor_tls
from proxsmtp_tp.cli.main import main
from proxsmtp_tp.cli.state_files import owners_of
from proxsmtp_tp.config.settings import Settings
from proxsmtp_tp.config.tls_files import CertificateLine, KeyPair
from proxsmtp_tp.config.tls_lines import TlsAction, TlsRule
from proxsmtp_tp.gateway.doctor import unit
from proxsmtp_tp.service.key_files import ca_files
from proxsmtp_tp.service.tls_keys import prepare_cas, problems
from tests.tls.dns import Dns
from tests.unit.certificates.fixtures import make_ca
from tests.unit.service.test_user import may_become_nobody

if TYPE_CHECKING:
    from pathlib import Path

    from proxsmtp_tp.gateway.doctor.findings import Finding

NOW = dt.datetime.now(dt.UTC)
TERMINATE = Settings(tls=(TlsRule(TlsAction.TERMINATE),), instance="d")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state directory, and a resolv.conf with the resolver of the lab."""
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    return tmp_path / "state"


def said(settings: Settings, folder: Path) -> dict[str, tuple[str, str]]:
    """Each step with its state and its text; paths are shortened."""
    found = doctor_tls.examine(str(folder / "d.conf"), settings, folder / "resolv.conf")
    return {
        each.step.replace(str(folder), ""): (each.state.value, each.text.replace(str(folder), "")) for each in found
    }


def own(folder: Path, age_days: int = 0) -> CertificateLine:
    """A certificate of the operator's, made some days ago."""
    when = NOW - dt.timedelta(days=age_days)
    made = mint(make_ca(folder / "own").authority(), ("mx.example.org",), LeafKey(), when)
    (folder / "mx.pem").write_bytes(made.chain)
    (folder / "mx.key").touch(0o600)
    (folder / "mx.key").write_bytes(made.key)
    return CertificateLine(KeyPair(str(folder / "mx.pem"), str(folder / "mx.key")))


def test_without_tls_there_is_nothing_to_say() -> None:
    assert list(doctor_tls.examine("/srv/d.conf", Settings())) == []


def test_a_resolver_that_validates(tmp_path: Path, state: Path) -> None:
    prepare_cas(ca_files(TERMINATE, state))
    with Dns(tmp_path / "dns", ""):
        found = said(TERMINATE, tmp_path)
    assert found.pop("resolver for TLSA records") == ("ok", "127.0.0.1 validates DNSSEC")
    assert found.pop("CAs of servers") == ("ok", "those of the system")
    assert list(found) == ["CA /state/tls/ca.pem", "untrusted CA /state/tls/untrusted-ca.pem"]
    assert all(state == "ok" and text.startswith("valid until ") for state, text in found.values())


def test_a_resolver_that_does_not_validate(tmp_path: Path) -> None:
    with Dns(tmp_path / "dns", "", validates=False):
        state, text = said(TERMINATE, tmp_path)["resolver for TLSA records"]
    assert state == "WRONG"
    assert text.startswith("127.0.0.1 does not answer, or does not validate DNSSEC")


def test_no_resolver_of_this_host(tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 192.0.2.53\n")
    state, text = said(TERMINATE, tmp_path)["resolver for TLSA records"]
    assert state == "WRONG"
    assert "apt install unbound" in text


def test_before_the_first_start(tmp_path: Path) -> None:
    assert said(TERMINATE, tmp_path)["CA /state/tls/ca.pem"][0] == "?"


def test_a_key_that_others_may_read(tmp_path: Path, state: Path) -> None:
    prepare_cas(ca_files(TERMINATE, state))
    (state / "tls" / "ca.key").chmod(0o640)
    found = said(TERMINATE, tmp_path)["CA /state/tls/ca.pem"]
    assert found == ("WRONG", "/state/tls/ca.key: others may read this key: chmod 600 /state/tls/ca.key")


@pytest.mark.parametrize("systemd", [True, False])
def test_the_key_of_a_ca_belongs_to_the_user_of_the_unit_or_to_root(
    systemd: bool, tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root types doctor. Under systemd the daemon, as its user, has made the CAs."""
    monkeypatch.setattr(unit, "SYSTEMD", tmp_path if systemd else tmp_path / "none")
    monkeypatch.setattr(unit, "CONFIGURATION", tmp_path)
    prepare_cas(ca_files(TERMINATE, state))
    given = make_ca(tmp_path / "given")
    key = given.folder / "ca.key"
    key.touch(0o600)
    key.write_bytes(given.key)
    if not may_become_nobody():
        return
    for path in (state / "tls", *(state / "tls").iterdir(), *(tmp_path / "given").iterdir()):
        os.chown(path, 65534, 65534)
    ours = replace(TERMINATE, user="nobody")
    theirs = replace(ours, tls_ca=KeyPair(str(given.file), str(key)))
    for settings, name in ((ours, "CA /state/tls/ca.pem"), (theirs, "CA /given/ca.pem")):
        assert said(settings, tmp_path)[name][0] == ("ok" if systemd else "WRONG"), name
    owners = owners_of(str(tmp_path / "d.conf"), theirs)
    assert [each.partition(": ")[2] for each in problems(theirs, (), owners)] == (
        [] if systemd else [f"the key of a CA must belong to root: chown root {key}"]
    )


def test_own_certificates(tmp_path: Path) -> None:
    fresh = replace(TERMINATE, tls_certificate=(own(tmp_path),))
    assert said(fresh, tmp_path)["certificate /mx.pem"][0] == "ok"
    own(tmp_path, age_days=8)
    state, text = said(fresh, tmp_path)["certificate /mx.pem"]
    assert (state, "its renewal has failed" in text) == ("WRONG", True)
    own(tmp_path, age_days=29)
    assert "it has expired on" in said(fresh, tmp_path)["certificate /mx.pem"][1]
    (tmp_path / "mx.key").unlink()
    assert said(fresh, tmp_path)["certificate /mx.pem"] == ("WRONG", "/mx.key: No such file or directory")


def test_a_ca_file_that_cannot_be_read(tmp_path: Path) -> None:
    settings = replace(TERMINATE, upstream_ca_file=str(tmp_path / "missing.pem"))
    assert said(settings, tmp_path)["CAs of servers"] == (
        "WRONG",
        "/missing.pem: no certificates in PEM can be read from it",
    )


@pytest.mark.parametrize("systemd", [True, False])
def test_how_a_ca_is_renewed_command_by_command(
    systemd: bool, tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """doctor names each step for this configuration; what it names is typed here."""
    monkeypatch.setattr(unit, "SYSTEMD", tmp_path if systemd else tmp_path / "none")
    monkeypatch.setattr(unit, "CONFIGURATION", tmp_path)
    monkeypatch.setattr(doctor_tls, "CA_SOON", 11 * 365 * 86400)
    path = tmp_path / "d.conf"
    path.write_text("Listen: 127.0.0.1:10025\nOutAddress: 127.0.0.1:10026\nTls: terminate\n")
    prepare_cas(ca_files(TERMINATE, state))

    def findings() -> list[Finding]:
        return [
            each for each in doctor_tls.examine(str(path), TERMINATE, tmp_path / "resolv.conf") if "CA /" in each.step
        ]

    def types(command: str) -> None:
        assert command.startswith("proxsmtp-tp ")
        assert main(shlex.split(command)[1:]) == 0, capsys.readouterr().err

    trusted, untrusted = findings()
    assert (trusted.state.value, trusted.fix) == ("WRONG", f"proxsmtp-tp tls-ca renew -f {path}")
    assert not untrusted.fix
    types(trusted.fix)
    capsys.readouterr()
    trusted, untrusted = findings()
    assert not trusted.fix  # clients must trust the next one before it is used
    export, use, *restart = re.findall("`(.*?)`", trusted.text)
    assert restart == (["systemctl restart proxsmtp-tp@d"] if systemd else [])
    types(export)
    assert capsys.readouterr().out.count("BEGIN CERTIFICATE") == 2
    following = (state / "tls" / "next-ca.pem").read_bytes()
    types(use)
    assert (state / "tls" / "ca.pem").read_bytes() == following
    assert f"`{use}`" in untrusted.text
