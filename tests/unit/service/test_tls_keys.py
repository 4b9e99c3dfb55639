"""Own certificates and CAs in the master: read, checked, read again by a reload, and told before they expire."""

from __future__ import annotations

import datetime as dt
import errno
import os
import sys
from dataclasses import replace
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.certificates.leaf import LeafKey, mint
from proxsmtp_tp.config.settings import Settings, TlsDane
from proxsmtp_tp.config.tls_files import CertificateLine, KeyPair
from proxsmtp_tp.config.tls_lines import TlsAction, TlsLevel, TlsRule, UpstreamRule
from proxsmtp_tp.service import key_files
from proxsmtp_tp.service.key_files import KeyFileError, ca_files, open_key, read_own
from proxsmtp_tp.service.minting import Minting
from proxsmtp_tp.service.tls_keys import (
    TlsKeys,
    expiring,
    load_libraries,
    needs_ca,
    prepare_cas,
    problems,
)
from tests.unit.certificates.fixtures import make_ca
from tests.unit.service.test_user import may_become_nobody

if TYPE_CHECKING:
    from pathlib import Path

NOW = dt.datetime.now(dt.UTC)
TERMINATE = Settings(tls=(TlsRule(TlsAction.TERMINATE),))


class Own:
    """A certificate of the operator's with its key, in two files."""

    def __init__(self, folder: Path, name: str = "mx.example.org") -> None:
        self.certificate, self.key = folder / "mx.pem", folder / "mx.key"
        self.renew(folder / "ca", name)

    def renew(self, folder: Path, name: str = "mx.example.org", now: dt.datetime = NOW) -> None:
        """Another certificate and key."""
        made = mint(make_ca(folder).authority(), (name,), LeafKey(), now)
        self.certificate.write_bytes(made.chain)
        self.key.touch(0o600)
        self.key.write_bytes(made.key)

    @property
    def line(self) -> CertificateLine:
        """The directive."""
        return CertificateLine(KeyPair(str(self.certificate), str(self.key)))

    @property
    def settings(self) -> Settings:
        """It is for all servers."""
        return replace(TERMINATE, tls_certificate=(self.line,))


@pytest.fixture
def own(tmp_path: Path) -> Own:
    """Made now."""
    return Own(tmp_path)


def test_own_certificates_are_for_their_servers(own: Own, tmp_path: Path) -> None:
    line = replace(own.line, servers=(ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")))
    found = read_own(line, (), NOW)
    assert [found.fits(server) for server in ("192.0.2.9", "2001:db8::1", "198.51.100.1", "")] == [
        True,
        True,
        False,
        False,
    ]
    assert read_own(own.line, (), NOW).fits("")


def test_with_an_own_certificate_for_all_servers_there_is_no_ca(own: Own, tmp_path: Path) -> None:
    keys = TlsKeys(own.settings, tmp_path / "state")
    assert keys.minting is None
    assert not (tmp_path / "state").exists()
    assert [each.material.chain for each in keys.of_worker().own] == [own.certificate.read_bytes()]


def test_a_renewed_certificate_is_read_by_a_reload(own: Own, tmp_path: Path) -> None:
    keys = TlsKeys(own.settings, tmp_path / "state")
    before = keys.of_worker()
    own.renew(tmp_path / "next")
    use = keys.read_again(own.settings)
    assert keys.of_worker() == before
    use()
    assert keys.of_worker().own[0].material.chain == own.certificate.read_bytes()


def test_a_certificate_that_a_reload_cannot_read_stays(
    own: Own, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = TlsKeys(own.settings, tmp_path / "state")
    before = keys.of_worker()
    own.key.unlink()
    keys.read_again(own.settings)()
    assert keys.of_worker() == before
    assert f"{own.key}: No such file or directory: the certificate that was read before stays in force" in caplog.text


def test_a_new_line_that_cannot_be_read_is_an_error_of_the_reload(own: Own, tmp_path: Path) -> None:
    keys = TlsKeys(own.settings, tmp_path / "state")
    missing = CertificateLine(KeyPair("/nonexistent/mx.pem", "/nonexistent/mx.key"))
    with pytest.raises(KeyFileError, match=r"/nonexistent/mx\.key: No such file"):
        keys.read_again(replace(own.settings, tls_certificate=(own.line, missing)))


def test_a_certificate_with_another_key_is_refused(own: Own, tmp_path: Path) -> None:
    kept = own.certificate.read_bytes()
    own.renew(tmp_path / "next")
    own.certificate.write_bytes(kept)
    with pytest.raises(KeyFileError, match=r"mx\.key: this is not the key of .*mx\.pem"):
        read_own(own.line, (), NOW)


def test_an_expired_certificate_is_refused(own: Own) -> None:
    with pytest.raises(KeyFileError, match=r"mx\.pem: it has expired on"):
        read_own(own.line, (), NOW + dt.timedelta(days=40))


@pytest.mark.parametrize("octets", [b"", b"nothing", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_key_is_refused(own: Own, octets: bytes) -> None:
    own.key.write_bytes(octets)
    with pytest.raises(KeyFileError, match="no key without a passphrase"):
        read_own(own.line, (), NOW)


@pytest.mark.parametrize(
    ("mode", "groups", "allowed"),
    [
        (0o600, False, True),
        (0o400, False, True),
        (0o640, False, False),
        (0o640, True, True),
        (0o660, True, False),
        (0o604, False, False),
        (0o644, True, False),
    ],
)
def test_who_may_read_a_key(own: Own, mode: int, groups: bool, allowed: bool) -> None:
    own.key.chmod(mode)
    gids = {own.key.stat().st_gid} if groups else set()
    if allowed:
        assert read_own(own.line, gids, NOW).material.key == own.key.read_bytes()
        return
    with pytest.raises(KeyFileError, match="others may read this key: chmod 600"):
        open_key(own.key, gids)


def test_a_folder_or_a_pipe_is_no_key(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(KeyFileError, match="no file"):
            open_key(path)


def test_what_expires_is_reported_with_what_to_do(own: Own, tmp_path: Path) -> None:
    settings = replace(TERMINATE, tls_certificate=(replace(own.line, servers=(ip_network("192.0.2.0/24"),)),))
    prepare_cas(ca_files(settings, tmp_path))
    now = NOW.timestamp()
    assert list(expiring(settings, tmp_path, now)) == []
    (path, _, what), *others = expiring(settings, tmp_path, now + 8 * 86400)
    assert (path, what, others) == (own.certificate, "renew it, and reload the daemon", [])
    cas = list(expiring(settings, tmp_path, now + 9.2 * 365 * 86400))[1:]
    assert [path.name for path, _, _ in cas] == ["ca.pem", "untrusted-ca.pem"]
    assert cas[0][2] == "type proxsmtp-tp tls-ca renew, and let all clients trust the new CA, too"


def test_a_half_made_ca_is_made_again(tmp_path: Path) -> None:
    files = ca_files(TERMINATE, tmp_path)
    prepare_cas(files)
    before = files[0].certificate.read_bytes(), files[1].certificate.read_bytes()
    files[0].certificate.unlink()
    prepare_cas(files)
    assert files[0].certificate.read_bytes() != before[0]
    assert files[1].certificate.read_bytes() == before[1]


def test_a_state_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "tls").write_text("a file")
    with pytest.raises(KeyFileError, match="a CA cannot be made: "):
        prepare_cas(ca_files(TERMINATE, tmp_path))


def test_who_needs_what(own: Own) -> None:
    dane = (UpstreamRule(TlsLevel.DANE),)
    assert [needs_ca(s) for s in (Settings(), TERMINATE, own.settings)] == [False, True, False]
    passing = Settings(tls=(TlsRule(TlsAction.PASS),))
    assert not Settings().needs_resolver
    assert not passing.needs_resolver
    assert replace(passing, upstream_tls=dane).needs_resolver
    assert TERMINATE.needs_resolver
    assert not replace(TERMINATE, tls_dane=TlsDane.TERMINATE).needs_resolver


@pytest.mark.parametrize(
    ("module", "package"), [("cryptography", "python3-cryptography"), ("dns", "python3-dnspython")]
)
def test_a_missing_library_is_an_error_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: str, package: str
) -> None:
    load_libraries(TERMINATE)
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, module, None)
    load_libraries(Settings())
    with pytest.raises(KeyFileError, match=f"apt install {package}, or pip install 'proxsmtp-tp\\[tls\\]'"):
        TlsKeys(TERMINATE, tmp_path)


def test_cas_of_servers_that_cannot_be_read_end_the_start_and_the_reload(own: Own, tmp_path: Path) -> None:
    wrong = replace(own.settings, upstream_ca_file=str(tmp_path / "missing.pem"))
    for use in (lambda: TlsKeys(wrong, tmp_path), lambda: TlsKeys(own.settings, tmp_path).read_again(wrong)):
        with pytest.raises(KeyFileError, match=r"missing\.pem: no certificates in PEM can be read from it"):
            use()


def test_check_config_names_files_that_end_the_start(own: Own, tmp_path: Path) -> None:
    assert list(problems(own.settings, ())) == []
    own.key.chmod(0o644)
    assert list(problems(own.settings, ())) == [f"{own.key}: others may read this key: chmod 600 {own.key}"]
    given = KeyPair(str(own.certificate), str(own.key))
    own.key.chmod(0o600)
    wrong = replace(TERMINATE, tls_ca=given)
    assert list(problems(wrong, ())) == [f"{own.certificate}: it is no certificate of a CA (basicConstraints)"]
    missing = KeyPair("/nonexistent/a.pem", "/nonexistent/a.key")
    unread = replace(TERMINATE, tls_ca=missing, tls_certificate=(CertificateLine(missing),))
    for settings in (unread, replace(TERMINATE, tls_ca=missing)):
        assert list(problems(settings, ())) == ["/nonexistent/a.key: No such file or directory"]


def test_check_config_is_silent_about_files_that_only_the_daemon_may_read(
    own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, _folder: int | None) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    given = KeyPair(str(own.certificate), str(own.key))
    monkeypatch.setattr(key_files, "_open", refuse)
    assert list(problems(own.settings, ())) == []
    assert list(problems(replace(TERMINATE, tls_ca=given), ())) == []


def test_root_follows_no_link_that_a_filter_may_have_made(tmp_path: Path) -> None:
    state, elsewhere = tmp_path / "state", tmp_path / "elsewhere"
    state.mkdir()
    elsewhere.mkdir()
    (state / "tls").symlink_to(elsewhere)
    with pytest.raises(KeyFileError, match="a CA cannot be made: "):
        prepare_cas(ca_files(TERMINATE, state))
    assert list(elsewhere.iterdir()) == []
    (state / "tls").unlink()
    if may_become_nobody():
        (state / "tls").mkdir()
        os.chown(state / "tls", 65534, 65534)
        with pytest.raises(KeyFileError, match="it belongs to user 65534: remove it"):
            prepare_cas(ca_files(TERMINATE, state))
        assert list((state / "tls").iterdir()) == []


@pytest.mark.parametrize("how", ["links to the files", "a link to the folder", "a folder of another user"])
def test_links_cannot_exchange_the_two_cas(how: str, tmp_path: Path) -> None:
    """The state directory belongs to the daemon's user. The trusted CA must not sign what is for unverified servers."""
    files = ca_files(TERMINATE, tmp_path)
    prepare_cas(files)
    folder, moved = tmp_path / "tls", tmp_path / "moved"
    folder.rename(moved)
    if how == "a link to the folder":
        folder.symlink_to(moved)
    else:
        folder.mkdir()
        for name, other in (("ca", "untrusted-ca"), ("untrusted-ca", "ca")):
            for kind in ("pem", "key"):
                made = folder / f"{name}.{kind}"
                if how == "links to the files":
                    made.symlink_to(moved / f"{other}.{kind}")
                else:
                    made.hardlink_to(moved / f"{other}.{kind}")
        if how == "a folder of another user":
            if not may_become_nobody():
                return
            os.chown(folder, 65534, 65534)
    with pytest.raises(KeyFileError, match="/tls"):
        prepare_cas(files)
    with pytest.raises(KeyFileError, match="/tls"):
        Minting(files)
