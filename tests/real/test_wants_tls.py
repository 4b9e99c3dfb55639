"""A real Postfix that takes no mail without TLS, which is not available through us: a retry, a warning, no bounce."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.lab.client import Client
from proxsmtp_tp.lab.gateway import Instance
from proxsmtp_tp.lab.network import MX_V4
from proxsmtp_tp.smtp import answers
from tests.real.postfix import Postfix
from tests.trace_ids import without_ids

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from proxsmtp_tp.lab.network import GatewayNetwork

MAIL = "MAIL FROM:<a@client.example>"


@pytest.fixture(scope="module")
def strict(lab: GatewayNetwork, directory: Path) -> Iterator[Postfix]:
    """postconf(5): smtpd_tls_security_level, smtpd_tls_auth_only."""
    folder = directory / "strict"
    folder.mkdir()
    files = ("-keyout", str(folder / "key"), "-out", str(folder / "cert"))
    command = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=mx.example", *files)
    subprocess.run(command, check=True, capture_output=True)
    settings = {
        "smtpd_tls_security_level": "encrypt",
        "smtpd_tls_cert_file": f"{folder}/cert",
        "smtpd_tls_key_file": f"{folder}/key",
    }
    server = Postfix.start(lab.mx, folder, "mx.example", ("mx.example",), {}, settings)
    server.wait_ready()
    yield server
    lab.mx.stop_all()


def test_it_becomes_a_retry_with_a_warning(lab: GatewayNetwork, directory: Path, strict: Postfix) -> None:
    with Client(lab.sender, MX_V4) as client:
        client.ehlo()
        assert client.has_extn("starttls"), strict.log
        assert client.docmd(MAIL)[0] == 530
    directives = {"TransparentProxy": "client", "TempDirectory": str(directory), "RuleInterface": "lan"}
    with Instance(lab.gateway, directory, directives, "strict").running() as instance:
        with Client(lab.sender, MX_V4) as client:
            client.ehlo()
            assert not client.has_extn("starttls")
            code, words = client.docmd("STARTTLS")
            assert (code, b"not available through this mail filter" in words) == (502, True)
            code, words = client.docmd(MAIL)
            assert without_ids(f"{code} {words.decode()}\r\n".encode()) == answers.SERVER_WANTS_TLS.wire
        assert instance.wait_log(f"RuleExceptDestination: {MX_V4}"), instance.log
