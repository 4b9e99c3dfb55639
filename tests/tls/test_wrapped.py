"""TLS from the first octet (TlsWrapped) with tools of administrators, a real server, and a capture of both legs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.cli.main import main
from proxsmtp_tp.filters.mail import Mail, Octets
from proxsmtp_tp.filters.quarantine import QuarantineFolder
from tests.tls.daemon import NAME, daemon, mail_server, run
from tests.tls.test_tools import own_certificate, swaks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.tls.daemon import MailServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MailServer]:
    """As a server on port 465."""
    with mail_server(tmp_path, wrapped=True) as running:
        yield running


def s_client(port: int, *options: str, text: str = "quit\r\n") -> str:
    arguments = ("-connect", f"127.0.0.1:{port}", "-servername", NAME, "-crlf", *options)
    return run("openssl", "s_client", *arguments, text=text)[1]


@pytest.mark.parametrize("protocol", ["tlsv1_2", "tlsv1_3"])
def test_terminate(tmp_path: Path, server: MailServer, protocol: str) -> None:
    rest = f"Tls: terminate\n{own_certificate(tmp_path)}TlsWrapped: {server.port}\nFilterCommand: cat\n"
    with daemon(tmp_path, server.port, rest) as running:
        for _ in range(2):
            status, said = swaks(running.port, "--tls-on-connect", "--tls-protocol", protocol)
            assert status == 0, said + running.log
            assert "gateway.example" in said
        assert [b"a line" in message.text for message in server.messages] == [True, True]
        version = protocol.replace("tlsv1_", "TLSv1.")
        assert f", client_tls={version}, server_tls=TLSv1.3/unverified, changed=no" in running.logged("status=FILTERED")
        s_client(running.port, "-verify_return_error")
        running.logged("unknown CA: the client rejects our certificate")
        assert "alert number 120" in s_client(running.port, "-alpn", "h2,http/1.1")
        status, said = swaks(running.port)  # in clear: it waits for a greeting, and gets none
        assert status != 0
        assert "<-  " not in said


def test_pass(tmp_path: Path, server: MailServer) -> None:
    with daemon(tmp_path, server.port, f"Tls: pass\nTlsWrapped: {server.port}\nFilterCommand: false\n") as running:
        status, said = swaks(running.port, "--tls-on-connect")
        assert status == 0, said + running.log
        assert NAME in said  # the server's own certificate
        running.logged("TLS passed on, not judged (Tls: pass)")
    assert len(server.messages) == 1


def test_refuse(tmp_path: Path, server: MailServer) -> None:
    with daemon(tmp_path, server.port, f"Tls: refuse\nTlsWrapped: {server.port}\n") as running:
        assert "alert access denied" in s_client(running.port)
        running.logged("TLS from the first octet is refused (Tls: refuse)")
    assert server.messages == []


def test_a_server_that_speaks_smtp_in_clear_gets_nothing(tmp_path: Path) -> None:
    with (
        mail_server(tmp_path) as clear,
        daemon(
            tmp_path, clear.port, f"Tls: terminate\n{own_certificate(tmp_path)}TlsWrapped: {clear.port}\n"
        ) as running,
    ):
        status, _ = swaks(running.port, "--tls-on-connect")
        assert status != 0
        running.logged("the server speaks in clear where TLS begins with the first octet (TlsWrapped): closing")
    assert clear.messages == []


def test_a_kept_message_is_released_by_tls_from_the_first_octet(
    tmp_path: Path, server: MailServer, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "x.conf"
    lines = ["OutAddress: 192.0.2.1", "Filter: a pipe cat", f"QuarantineDirectory: {tmp_path}/q", "Tls: terminate"]
    config.write_text("\n".join([*lines, f"TlsWrapped: {server.port}", ""]))
    envelope = {
        "sender": "a@x.example", "sender_parameters": "", "recipients": ["b@y.example"], "recipient_parameters": [""],
    }  # fmt: skip
    facts = {"id": "1", "kind": "quarantine", "reason": "x", "server": "127.0.0.1", "server_port": server.port}
    name = QuarantineFolder(str(tmp_path / "q")).add(
        Mail.of(Octets(b"Subject: x\r\n\r\na line\r\n")), facts | {"envelope": envelope, "tls": True}
    )
    assert main(["quarantine", "release", name, "-f", str(config)]) == 0, capsys.readouterr()
    assert [b"a line" in message.text for message in server.messages] == [True]
