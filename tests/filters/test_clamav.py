"""ClamAV: clamd by INSTREAM over a unix socket and TCP, and clamav-milter in front of the same clamd."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.filters.member import FilterFailedError
from proxsmtp_tp.filters.verdict import Action
from tests.filters.daemons import daemon
from tests.filters.recipes import fragment
from tests.unit.filters.member_harness import TEXT, Judged, describe, judge

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
INFECTED = (
    b"Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: application/octet-stream\r\n"
    b"Content-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(EICAR).replace(b"\n", b"\r\n")
)
PORT = 3310
"""Outside the ports that the kernel gives to connections."""

CLAMD = """
Foreground yes
LocalSocket {0}/clamd
LocalSocketMode 666
TCPSocket {1}
TCPAddr 127.0.0.1
DatabaseDirectory {0}/db
TemporaryDirectory {0}
StreamMaxLength 2M
MaxFileSize 1M
"""
MILTER = """
Foreground yes
MilterSocket unix:{0}/milter
MilterSocketMode 666
ClamdSocket unix:{0}/clamd
OnInfected Reject
RejectMsg Virus found: %v
AddHeader Replace
TemporaryDirectory {0}
"""


@pytest.fixture(scope="module")
def clamav(directory: Path) -> Iterator[Path]:
    """clamd knows one virus: it starts in a second."""
    (directory / "db").mkdir()
    (directory / "db" / "test.ndb").write_text(f"Eicar-Test-Signature:0:*:{EICAR.hex()}\n")
    (directory / "clamd.conf").write_text(CLAMD.format(directory, PORT) + fragment("/etc/clamav/clamd.conf"))
    (directory / "milter.conf").write_text(MILTER.format(directory))
    with (
        daemon(["clamd", "--config-file", directory / "clamd.conf"], directory / "clamd", ("127.0.0.1", PORT)),
        daemon(["clamav-milter", "--config-file", directory / "milter.conf"], directory / "milter"),
    ):
        yield directory


def ask(clamav: Path, kind: str, text: bytes) -> Judged:
    """What clamd, or clamav-milter, says of a message."""
    addresses = {"unix": f"clamd {clamav}/clamd", "tcp": f"clamd 127.0.0.1:{PORT}", "milter": f"milter {clamav}/milter"}
    return asyncio.run(judge(f"v {addresses[kind]}", text, str(clamav), after=TEXT))


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_clean(clamav: Path, kind: str) -> None:
    judged = ask(clamav, kind, TEXT)
    assert (judged.judgement.action, judged.text) == (Action.PASS, TEXT)


@pytest.mark.parametrize("kind", ["unix", "tcp"])
@pytest.mark.parametrize("text", [INFECTED, TEXT + EICAR + b"\r\n"])
def test_infected(clamav: Path, kind: str, text: bytes) -> None:
    judgement = ask(clamav, kind, text).judgement
    assert judgement.action is Action.REJECT
    assert judgement.reply is not None
    assert judgement.reply.wire == b"554 5.7.1 Virus found: Eicar-Test-Signature.UNOFFICIAL\r\n"


@pytest.mark.parametrize("size", [1_500_000, 2_500_000, 40_000_000])
def test_what_is_larger_than_clamd_scans_is_never_clean(clamav: Path, size: int) -> None:
    """MaxFileSize, StreamMaxLength, far above it: clamd closes before it has read all, and its answer may be lost."""
    words = r"not scanned as a whole|larger than StreamMaxLength|before it had read the whole message"
    with pytest.raises(FilterFailedError, match=words):
        ask(clamav, "unix", TEXT + b"0123456789abcdef\r\n" * (size // 18))


def test_check(clamav: Path) -> None:
    assert "ClamAV 1." in asyncio.run(describe(f"v clamd {clamav}/clamd"))[0]


def test_milter(clamav: Path) -> None:
    judged = ask(clamav, "milter", TEXT)
    assert judged.judgement.action is Action.PASS
    assert b"X-Virus-Status: Clean\r\n" in judged.text
    assert judged.text.endswith(b"\r\n\r\nGood morning.\r\n")


def test_milter_infected(clamav: Path) -> None:
    judgement = ask(clamav, "milter", INFECTED).judgement
    assert judgement.action is Action.REJECT
    assert "Virus found: Eicar-Test-Signature" in judgement.said
