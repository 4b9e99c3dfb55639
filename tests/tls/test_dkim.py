"""A signature that the sender made is valid behind the gateway, and so is one that a filter of the gateway makes."""

from __future__ import annotations

import base64
import smtplib
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import dkim
import pytest

from tests.filters.daemons import daemon as running
from tests.tls.daemon import MailServer, daemon, mail_server

if TYPE_CHECKING:
    from collections.abc import Iterator

FROM, TO = "a@client.example", "b@mx.example"
HEADER = b"From: A <a@client.example>\r\nTo:  b@mx.example,\r\n\tc@mx.example\r\nSubject: \xe9 folded\r\n  twice \r\n"
BODIES = {
    "plain": b"hello\r\n",
    "empty": b"",
    "dots": b".\r\n..\r\n.x\r\n...\r\nQUIT\r\n.\r\n",
    "blanks": b"trailing \t\r\n\r\n \r\n\r\n\r\n",
    "8bit": b"Gr\xc3\xbc\xc3\x9fe \xff\r\n",
    "large": b"0123456789abcdef\r\n" * 40_000,
}
"""Each is more than a TLS record, or has what SMTP changes on the way."""
SIGNER = """
Mode s
Domain client.example
Selector s
KeyFile {0}/dkim.key
Socket local:{0}/signer
UMask 000
Canonicalization simple/simple
Syslog no
RequireSafeKeys no
"""


@dataclass(frozen=True)
class Key:
    """Of a sender's domain."""

    private: Path
    public: bytes

    def sign(self, text: bytes, canonicalization: bytes) -> bytes:
        """The message with a signature."""
        way = (canonicalization, canonicalization)
        made = dkim.sign(text, b"s", b"client.example", self.private.read_bytes(), canonicalize=way)
        return bytes(made) + text

    def valid(self, text: bytes) -> bool:
        """Whether the receiver finds the signature valid."""
        record = b"v=DKIM1; k=rsa; p=" + base64.b64encode(self.public)
        return bool(dkim.verify(text, dnsfunc=lambda *_, **__: record))


@pytest.fixture
def key(tmp_path: Path) -> Key:
    """A new one."""
    private = tmp_path / "dkim.key"
    made = ("openssl", "genrsa", "-traditional", "-out", private, "2048")
    subprocess.run(made, check=True, capture_output=True)
    public = ("openssl", "rsa", "-in", private, "-pubout", "-outform", "DER")
    return Key(private, subprocess.run(public, check=True, capture_output=True).stdout)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MailServer]:
    """It offers STARTTLS."""
    with mail_server(tmp_path) as found:
        yield found


def send(port: int, version: ssl.TLSVersion, *messages: bytes) -> None:
    """Several messages in one session with TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = version
    with smtplib.SMTP("127.0.0.1", port, "client.example", timeout=60) as client:
        client.starttls(context=context)
        for message in messages:
            client.sendmail(FROM, [TO], message)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("action", ["terminate", "pass"])
def test_a_signed_message_is_valid_after_the_proxy(
    tmp_path: Path, key: Key, server: MailServer, action: str, version: ssl.TLSVersion
) -> None:
    signed = [key.sign(HEADER + b"\r\n" + body, way) for body in BODIES.values() for way in (b"simple", b"relaxed")]
    with daemon(tmp_path, server.port, f"Tls: {action}\nFilterCommand: cat\n") as found:
        send(found.port, version, *signed)
        assert found.log.count("status=FILTERED") == (len(signed) if action == "terminate" else 0)
    assert [message.text for message in server.messages] == signed
    assert all(message.tls and key.valid(message.text) for message in server.messages)
    assert not any(key.valid(message.text + b"x\r\n") for message in server.messages)


def test_a_filter_signs_what_it_judges_in_tls(tmp_path: Path, key: Key, server: MailServer) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "signer.conf").write_text(SIGNER.format(tmp_path))
    lines = f"Tls: terminate\nFilter: dkim milter {tmp_path}/signer\n"
    plain = [HEADER + b"\r\n" + body for body in BODIES.values()]
    with (
        running(["opendkim", "-f", "-x", tmp_path / "signer.conf"], tmp_path / "signer"),
        daemon(tmp_path, server.port, lines) as found,
    ):
        send(found.port, ssl.TLSVersion.TLSv1_3, *plain)
    for message, text in zip(server.messages, plain, strict=True):
        assert message.tls
        assert message.text.startswith(b"DKIM-Signature: ")
        assert message.text.endswith(text)
        assert key.valid(message.text)
        assert not key.valid(message.text.replace(b"Subject:", b"Subject: x", 1))
