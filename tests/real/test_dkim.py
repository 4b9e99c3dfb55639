"""Promise 4: a DKIM signature over header and body, simple/simple, still verifies behind the gateway (RFC 6376)."""

from __future__ import annotations

import base64
import sys
from typing import TYPE_CHECKING

import dkim
import pytest

from proxsmtp_tp.lab import network
from proxsmtp_tp.lab.client import Client
from proxsmtp_tp.lab.gateway import Instance
from proxsmtp_tp.lab.mx import Journal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from proxsmtp_tp.lab.network import GatewayNetwork

# Two known primes make a key that protects nothing, and needs no making: 2^521 - 1 and 2^607 - 1 (Mersenne).
P, Q, E = (1 << 521) - 1, (1 << 607) - 1, 65537
D = pow(E, -1, (P - 1) * (Q - 1))

MESSAGE = (
    b"From: Alice <alice@sender.example>\r\n"
    b"To: bob@mx.example,\r\n\tcarol@mx.example\r\n"
    b"Subject:  white   space \r\n"
    b"Date: Thu, 01 Jan 2026 00:00:00 +0000\r\n"
    b"Message-ID: <dkim@sender.example>\r\n"
    b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"
    b"\r\n"
    b".\r\n..\r\n.x\r\ntrailing \t\r\n\r\n  \r\n" + "Grüße\r\n".encode() + b"y" * 998 + b"\r\n.\r\n\r\n\r\n\r\n"
)


def _der(tag: int, content: bytes) -> bytes:
    """One element of ITU-T X.690 DER, up to 65535 octets."""
    size = len(content)
    length = bytes([size]) if size < 128 else b"\x82" + size.to_bytes(2, "big")
    return bytes([tag]) + length + content


def _sequence(*integers: int) -> bytes:
    return _der(0x30, b"".join(_der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big")) for value in integers))


def _key() -> tuple[bytes, bytes]:
    """The private key as PEM (RFC 8017, A.1.2), and the TXT record of the public one (RFC 6376, 3.6.1)."""
    private = base64.encodebytes(_sequence(0, P * Q, E, D, P, Q, D % (P - 1), D % (Q - 1), pow(Q, -1, P)))
    pem = b"-----BEGIN RSA PRIVATE KEY-----\n" + private + b"-----END RSA PRIVATE KEY-----\n"
    return pem, b"v=DKIM1; k=rsa; p=" + base64.b64encode(_sequence(P * Q, E))


def _signed() -> bytes:
    pem, _ = _key()
    header = dkim.sign(MESSAGE, b"lab", b"sender.example", pem, canonicalize=(b"simple", b"simple"))
    return bytes(header) + MESSAGE


def _verifies(octets: bytes) -> bool:
    _, record = _key()
    return bool(dkim.verify(octets, dnsfunc=lambda *_args, **_options: record))


@pytest.fixture(scope="module")
def journal(lab: GatewayNetwork, directory: Path) -> Iterator[Journal]:
    """The embedded MX, which keeps every octet."""
    output = directory / "mx.jsonl"
    addresses = ("--listen", network.MX_V4, "--listen", network.MX_V6)
    with output.open("wb") as file:
        process = lab.mx.start(sys.executable, "-m", "proxsmtp_tp.lab.mx", *addresses, output=file)
    journal = Journal(output)
    assert journal.wait(lambda journal: journal.ready, 20)
    yield journal
    lab.mx.stop(process)


@pytest.mark.parametrize(
    ("filter_type", "filter_command", "intact"),
    [
        ("pipe", None, True),
        ("pipe", "cat", True),
        ("file", "true", True),
        ("file", "cp $EMAIL $EMAIL.new; mv $EMAIL.new $EMAIL", True),
        ("pipe", "sed 's/^trailing .*/trailing/'", False),
        ("pipe", "sed 's/^Subject:  /Subject: /'", False),
    ],
)
@pytest.mark.parametrize("address", [network.MX_V4, network.MX_V6], ids=["v4", "v6"])
def test_signature(
    lab: GatewayNetwork,
    directory: Path,
    journal: Journal,
    address: str,
    filter_type: str,
    filter_command: str | None,
    intact: bool,
) -> None:
    """It verifies where the filter changes nothing; it does not where one octet is gone, so verifying means much."""
    signed = _signed()
    assert _verifies(signed)
    directives = {"TransparentProxy": "client", "TempDirectory": str(directory), "RuleInterface": "lan"}
    if filter_command:
        directives |= {"FilterCommand": filter_command, "FilterType": filter_type}
    before = len(journal.messages)
    with (
        Instance(lab.gateway, directory, directives, "dkim").running(),
        Client(lab.sender, address) as client,
    ):
        client.ehlo()
        assert client.submit("alice@sender.example", ["bob@mx.example"], signed, ["BODY=8BITMIME"])[:3] == "250"
    assert journal.wait(lambda journal: len(journal.messages) > before, 20)
    arrived = journal.messages[-1].octets
    assert (arrived == signed) is intact
    assert _verifies(arrived) is intact
