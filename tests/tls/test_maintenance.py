"""Reload, restart and drain, with a terminated and a passed stream in the middle of a message each."""

from __future__ import annotations

import signal
import smtplib
import ssl
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.certificates.pem import certificates_of
from tests.tls.daemon import NAME, WAIT_SECONDS, Daemon, MailServer, daemon, mail_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PASSED = "pass.example"
DRAIN = 4
"""Seconds of DrainTimeOut where a drain ends streams."""
LINES = f"Tls: pass name={PASSED}\nTls: terminate\nFilterCommand: cat\n"


class Session(smtplib.SMTP):
    """A client in TLS, with this server name in its hello."""

    def __init__(self, port: int, name: str) -> None:
        super().__init__("127.0.0.1", port, "client.example", timeout=WAIT_SECONDS)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._host = name
        self.starttls(context=context)
        self.ehlo()

    @property
    def issuer(self) -> str:
        """Who has signed the certificate that it sees."""
        assert isinstance(self.sock, ssl.SSLSocket)
        pem = ssl.DER_cert_to_PEM_cert(self.sock.getpeercert(binary_form=True) or b"")
        return str(certificates_of(pem.encode(), "leaf")[0].issuer.rfc4514_string())

    def begin(self) -> None:
        """The first half of a message."""
        assert self.mail("a@client.example")[0] == 250
        assert self.rcpt("b@mx.example")[0] == 250
        assert self.docmd("DATA")[0] == 354
        self.send(b"Subject: " + self._host.encode() + b"\r\n\r\nfirst half\r\n")

    def finish(self) -> int:
        """The other half, and the reply."""
        self.send(b"second half\r\n.\r\n")
        return self.getreply()[0]


@contextmanager
def begun(found: Daemon) -> Iterator[tuple[Session, Session]]:
    """A terminated and a passed stream."""
    judged, passed = (Session(found.port, name) for name in (NAME, PASSED))
    try:
        for each in (judged, passed):
            each.begin()
        yield judged, passed
    finally:
        for each in (judged, passed):
            each.close()


def check_whole(server: MailServer, names: list[str]) -> None:
    """Each message arrived once and whole, by TLS."""
    wanted = sorted(f"Subject: {name}\r\n\r\nfirst half\r\nsecond half\r\n".encode() for name in names)
    assert sorted(message.text for message in server.messages) == wanted
    assert all(message.tls for message in server.messages)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MailServer]:
    """It offers STARTTLS."""
    with mail_server(tmp_path) as found:
        yield found


def test_a_reload(tmp_path: Path, server: MailServer) -> None:
    """Both finish; what passes goes on; new clients have the new configuration."""
    with daemon(tmp_path, server.port, f"{LINES}DrainTimeOut: 60\n") as found, begun(found) as (judged, passed):
        conf = tmp_path / "conf"
        conf.write_text(conf.read_text().replace(f"Tls: pass name={PASSED}\n", ""))
        found.process.send_signal(signal.SIGHUP)
        found.logged("the new configuration is in force")
        assert (judged.finish(), passed.finish()) == (250, 250)
        assert judged.noop()[0] == 421
        passed.begin()
        assert passed.finish() == 250
        with Session(found.port, PASSED) as new:
            assert "proxsmtp-tp" in new.issuer
            new.begin()
            assert new.finish() == 250
        assert passed.quit()[0] == 221
        found.logged(f"TLS passed on, not judged (Tls: pass name={PASSED})")
        assert found.log.count("status=FILTERED") == 2
    check_whole(server, [NAME, PASSED, PASSED, PASSED])


def test_a_stop_and_a_start(tmp_path: Path, server: MailServer) -> None:
    """Both finish their messages; what passes is reset at the end of the drain; the next daemon has the same CA."""
    with daemon(tmp_path, server.port, f"{LINES}DrainTimeOut: {DRAIN}\n") as found, begun(found) as (judged, passed):
        issuer = judged.issuer
        found.process.terminate()
        assert (judged.finish(), passed.finish()) == (250, 250)
        assert judged.noop()[0] == 421
        assert passed.noop()[0] == 250
        with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionResetError)):
            _wait_for_the_end(passed)
        assert found.process.wait(WAIT_SECONDS) == 0
        found.logged(f"TLS passed on, not judged (Tls: pass name={PASSED})")
    check_whole(server, [NAME, PASSED])
    with daemon(tmp_path, server.port, LINES) as found, Session(found.port, NAME) as judged:
        assert judged.issuer == issuer


def _wait_for_the_end(session: Session) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        session.noop()
        time.sleep(0.1)


def test_a_stop_does_not_wait_for_an_idle_terminated_stream(tmp_path: Path, server: MailServer) -> None:
    with daemon(tmp_path, server.port, f"{LINES}DrainTimeOut: 600\n") as found:
        idle = Session(found.port, NAME)
        found.process.terminate()
        assert idle.getreply()[0] == 421
        idle.close()
        assert found.process.wait(WAIT_SECONDS) == 0
    assert server.messages == []
