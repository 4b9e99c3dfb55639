"""What a command knows of its message (proxsmtpd(8), FILTER SCRIPTS)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.smtp.envelope import Envelope
from proxsmtp_tp.tls.facts import Legs, TlsFacts, Verified
from tests.unit.filters.filter_harness import filtering, judge

if TYPE_CHECKING:
    from pathlib import Path

    from proxsmtp_tp.filters.command import Kind
    from tests.unit.filters.conftest import Run

NAMES = (
    b"CLIENT",
    b"SERVER",
    b"SENDER",
    b"RECIPIENTS",
    b"REMOTE",
    b"REMOTE_HELO",
    b"EMAIL",
    b"TMPDIR",
    b"HELO",
    b"TRACE_ID",
    b"CLIENT_TLS",
    b"CLIENT_TLS_CIPHER",
    b"CLIENT_TLS_NAME",
    b"SERVER_TLS",
    b"SERVER_TLS_CIPHER",
    b"SERVER_TLS_NAME",
    b"SERVER_TLS_VERIFIED",
)


def seen(run: Run, directory: Path, kind: Kind = "pipe", **known: object) -> dict[bytes, bytes]:
    async def scenario() -> None:
        async with filtering(
            f"cat >/dev/null; cat /proc/$$/environ >{directory}/seen; echo", directory, kind
        ) as filter_:
            await judge(filter_, b"text", **known)

    run(scenario())
    pairs = (line.partition(b"=") for line in (directory / "seen").read_bytes().split(b"\0") if line)
    return {name: value for name, _, value in pairs}


def of_ours(environment: dict[bytes, bytes]) -> dict[bytes, bytes]:
    return {name: value for name, value in environment.items() if name in NAMES}


def test_all_that_is_known(run: Run, tmp_path: Path) -> None:
    environment = seen(
        run, tmp_path, helo=b"me", remote=b"203.0.113.9", remote_helo=b"origin.example", trace_id="01JD8Q3K7C2VA"
    )
    assert of_ours(environment) == {
        b"CLIENT": b"192.0.2.7",
        b"SERVER": b"198.51.100.25",
        b"SENDER": b"alice@example.com",
        b"RECIPIENTS": b"bob@example.net\ncarol@example.org",
        b"REMOTE": b"203.0.113.9",
        b"REMOTE_HELO": b"origin.example",
        b"TMPDIR": bytes(tmp_path),
        b"HELO": b"me",
        b"TRACE_ID": b"01JD8Q3K7C2VA",
    }


def test_tls_of_both_legs(run: Run, tmp_path: Path) -> None:
    client = TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", "mx.example")
    legs = Legs(client, TlsFacts("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256", verified=Verified.DANE))
    environment = seen(run, tmp_path, tls=legs)
    assert {name: value for name, value in of_ours(environment).items() if b"TLS" in name} == {
        b"CLIENT_TLS": b"TLSv1.3",
        b"CLIENT_TLS_CIPHER": b"TLS_AES_256_GCM_SHA384",
        b"CLIENT_TLS_NAME": b"mx.example",
        b"SERVER_TLS": b"TLSv1.2",
        b"SERVER_TLS_CIPHER": b"ECDHE-RSA-AES128-GCM-SHA256",
        b"SERVER_TLS_VERIFIED": b"dane",
    }


def test_what_is_not_known_is_not_set_even_where_the_daemon_has_it(
    run_uvloop: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in NAMES:
        monkeypatch.setenv(name.decode(), "the daemon's own")
    monkeypatch.setenv("FILTER_LEVEL", "high")
    envelope = Envelope(b"", b"", [b"postmaster"])
    environment = seen(run_uvloop, tmp_path, envelope=envelope, helo=b"", client="2001:db8::1", server="", trace_id="")
    assert of_ours(environment) == {
        b"CLIENT": b"2001:db8::1",
        b"SENDER": b"<>",
        b"RECIPIENTS": b"postmaster",
        b"TMPDIR": bytes(tmp_path),
    }
    assert environment[b"FILTER_LEVEL"] == b"high"


def test_the_file_is_named(run_uvloop: Run, tmp_path: Path) -> None:
    environment = seen(run_uvloop, tmp_path, "file")
    assert environment[b"EMAIL"].startswith(bytes(tmp_path / "proxsmtpd."))


@pytest.mark.parametrize(
    "value",
    ["$(touch HACKED)", "`touch HACKED`", "';touch HACKED;'", "() { :;}; touch HACKED", "-rf *", "a\tb\x01\x7f", "ä@ö"],
)
def test_hostile_values_are_values(run_uvloop: Run, tmp_path: Path, value: str) -> None:
    octets = value.encode()
    envelope = Envelope(octets, b"", [octets, octets])
    environment = seen(run_uvloop, tmp_path, envelope=envelope, helo=octets, remote=octets, remote_helo=octets)
    assert environment[b"SENDER"] == environment[b"HELO"] == environment[b"REMOTE"] == octets
    assert environment[b"REMOTE_HELO"] == octets
    assert environment[b"RECIPIENTS"] == octets + b"\n" + octets
    assert not (tmp_path / "HACKED").exists()


def test_a_thousand_recipients_fit(run_uvloop: Run, tmp_path: Path) -> None:
    """RFC 5321 section 4.5.3.1.8 asks for a hundred; the session stops at 100 000 octets."""
    recipients = [b"%090d@example.net" % number for number in range(950)]
    environment = seen(run_uvloop, tmp_path, envelope=Envelope(b"a@example.com", b"", recipients))
    assert environment[b"RECIPIENTS"].split(b"\n") == recipients
