"""UpstreamTls: dane and TlsDane, with the daemon, a signed zone and a resolver that validates it."""

from __future__ import annotations

import hashlib
import ssl
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.tls.tlsa import public_key_of
from tests.tls import daemon as running
from tests.tls.daemon import NAME, Daemon, MailServer, daemon, mail_server, run
from tests.tls.dns import Dns

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def resolv_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon alone sees another /etc/resolv.conf."""
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    script = tmp_path / "command"
    inner = f'mount --bind {tmp_path}/resolv.conf /etc/resolv.conf && exec {running.COMMAND} "$@"'
    script.write_text(f"#!/bin/sh\nexec unshare -m sh -c '{inner}' sh \"$@\"\n")
    script.chmod(0o755)
    monkeypatch.setattr(running, "COMMAND", script)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MailServer]:
    """Its certificate is self-signed."""
    with mail_server(tmp_path) as found:
        yield found


def tlsa(folder: Path, server: MailServer, *, right: bool = True) -> str:
    """A zone with the record 3 1 1 of the server, or another one."""
    der = ssl.PEM_cert_to_DER_cert((folder / f"{NAME}.pem").read_text())
    digest = hashlib.sha256(public_key_of(der) if right else b"another key").hexdigest()
    return f"{NAME}. 60 A 127.0.0.1\n_{server.port}._tcp.{NAME}. 60 TLSA 3 1 1 {digest}"


def starttls(found: Daemon, name: str = NAME) -> str:
    """What openssl says of a session with the server name."""
    given = ("-servername", name) if name else ("-noservername",)
    words = ("openssl", "s_client", "-starttls", "smtp", "-crlf", "-connect", f"127.0.0.1:{found.port}")
    return run(*words, *given, text="QUIT\n")[1]


def test_the_certificate_that_the_record_names(tmp_path: Path, server: MailServer) -> None:
    with (
        Dns(tmp_path / "dns", tlsa(tmp_path, server)),
        daemon(tmp_path, server.port, "Tls: terminate\nTlsDane: terminate\nUpstreamTls: dane") as found,
    ):
        assert "CN = mail gateway" in starttls(found)
        found.logged("server_tls=TLSv1.3/dane")


def test_another_certificate_gets_no_mail(tmp_path: Path, server: MailServer) -> None:
    with (
        Dns(tmp_path / "dns", tlsa(tmp_path, server, right=False)),
        daemon(tmp_path, server.port, "Tls: terminate\nTlsDane: terminate\nUpstreamTls: dane") as found,
    ):
        starttls(found)
        found.logged("UpstreamTls demands dane")
        assert "TLSv1.3/dane" not in found.log


def test_a_sender_that_may_compare_records_passes(tmp_path: Path, server: MailServer) -> None:
    with Dns(tmp_path / "dns", tlsa(tmp_path, server)), daemon(tmp_path, server.port, "Tls: terminate") as found:
        assert "issuer=CN = mx.example" in starttls(found)
        assert "CN = UNTRUSTED" in starttls(found, "").replace('"', "")
