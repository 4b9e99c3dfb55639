"""The engine as a TLS server, against openssl s_client and gnutls-cli."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.net.tls_contexts import ClientContexts
from proxsmtp_tp.net.tls_stream import RECORDS_PER_CALL, SILENT_MAX, End, TlsStreamError
from proxsmtp_tp.tls.alerts import Alert
from tests.tls.engine import ClientLeg, Listening, Program, listening, program
from tests.unit.net.tls_legs import self_signed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from proxsmtp_tp.certificates.material import Material

S_CLIENT = ("openssl", "s_client", "-servername", "mx.example", "-connect")
VERSIONS = pytest.mark.parametrize("option", ["-tls1_2", "-tls1_3"])


@asynccontextmanager
async def s_client(*options: str, certificate: Material | None = None) -> AsyncIterator[tuple[Listening, Program]]:
    """Our server, and a client that connects to it."""
    async with (
        listening(ClientContexts(), certificate) as ours,
        program(*S_CLIENT, f"127.0.0.1:{ours.port}", *options) as client,
    ):
        yield ours, client


async def echoed(client: Program, leg: ClientLeg, line: bytes = b"EHLO a") -> None:
    """The client sends a line and gets it back."""
    client.type(line + b"\n")
    assert await leg.next() == line
    await client.until(line)


def trusted(directory: Path) -> str:
    """The file of our certificate, for a client that trusts it."""
    file = directory / "ca.pem"
    file.write_bytes(self_signed().chain)
    return str(file)


@pytest.mark.parametrize("key", ["ec", "rsa"])
@VERSIONS
async def test_openssl_talks_with_us_and_closes(option: str, key: str) -> None:
    async with s_client(option, "-quiet", "-no_ign_eof", certificate=self_signed("mx.example", key)) as (ours, client):
        leg = await ours.accepted()
        facts = await leg.next()
        assert facts.version == ("TLSv1.2" if option == "-tls1_2" else "TLSv1.3")
        assert facts.server_name == "mx.example"
        await echoed(client, leg)
        client.end_of_input()
        assert await leg.next() is End.CLEAN
        await client.rest()


@pytest.mark.parametrize("priority", ["NORMAL:-VERS-ALL:+VERS-TLS1.2", "NORMAL:-VERS-ALL:+VERS-TLS1.3"])
async def test_gnutls_talks_with_us_and_closes(priority: str, tmp_path: Path) -> None:
    ca = f"--x509cafile={trusted(tmp_path)}"
    async with (
        listening(ClientContexts()) as ours,
        program(
            "gnutls-cli", ca, f"--priority={priority}", "--sni-hostname=mx.example", "--verify-hostname=mx.example",
            "-p", str(ours.port), "127.0.0.1",
        ) as client,
    ):  # fmt: skip
        leg = await ours.accepted()
        assert (await leg.next()).server_name == "mx.example"
        await client.until(b"Simple Client Mode:\n\n")
        await echoed(client, leg)
        client.end_of_input()
        assert await leg.next() is End.CLEAN


@VERSIONS
async def test_a_client_that_is_killed_has_truncated(option: str) -> None:
    async with s_client(option, "-quiet") as (ours, client):
        leg = await ours.accepted()
        await leg.next()
        await echoed(client, leg, b"half a message")
        client.kill()
        assert await leg.next() is End.TRUNCATED


@VERSIONS
async def test_a_client_that_does_not_trust_our_certificate(option: str) -> None:
    async with s_client(option, "-verify_return_error") as (ours, _):
        error = await (await ours.accepted()).next()
        assert isinstance(error, TlsStreamError)
        assert error.reason == "unknown CA: the client rejects our certificate"
        assert error.certificate_rejected


@VERSIONS
async def test_a_client_that_trusts_our_certificate_but_not_its_name(option: str, tmp_path: Path) -> None:
    verified = "-verify_return_error", "-CAfile", trusted(tmp_path), "-verify_hostname", "other.example"
    async with s_client(option, *verified) as (ours, _):
        error = await (await ours.accepted()).next()
        assert isinstance(error, TlsStreamError)
        assert error.certificate_rejected
        assert error.alert in {Alert.BAD_CERTIFICATE, Alert.CERTIFICATE_UNKNOWN}


async def test_gnutls_that_does_not_trust_us() -> None:
    async with (
        listening(ClientContexts()) as ours,
        program("gnutls-cli", "-p", str(ours.port), "127.0.0.1") as client,
    ):
        error = await (await ours.accepted()).next()
        assert isinstance(error, TlsStreamError)
        assert error.reason == "bad certificate: the client rejects our certificate"
        assert b"PKI verification of server certificate failed" in await client.rest()


async def test_smtp_is_agreed_on() -> None:
    async with s_client("-alpn", "h2,smtp") as (_, client):
        await client.until(b"ALPN protocol: smtp")


async def test_tls_1_1_is_refused() -> None:
    async with s_client("-tls1_1", "-cipher", "ALL:@SECLEVEL=0") as (ours, client):
        error = await (await ours.accepted()).next()
        assert isinstance(error, TlsStreamError)
        assert error.reason == "unsupported protocol"
        assert b"alert protocol version" in await client.rest()


@VERSIONS
async def test_no_session_is_resumed(option: str, tmp_path: Path) -> None:
    session = tmp_path / "session"
    contexts = ClientContexts()
    async with listening(contexts) as ours:
        arguments = (*S_CLIENT, f"127.0.0.1:{ours.port}", option)
        async with program(*arguments, "-sess_out", session) as first:
            await (leg := await ours.accepted()).next()
            await echoed(first, leg)
            with suppress(FileNotFoundError):
                assert option == "-tls1_2" or not session.stat().st_size
            if option == "-tls1_3":
                assert not session.exists()  # it comes with a ticket
                return
            async with program(*arguments, "-sess_in", session) as second:
                await (await ours.accepted()).next()
                assert b"Reused, TLS" not in await second.until(b"---\nNew, TLS")


async def test_renegotiation_is_refused() -> None:
    async with s_client("-tls1_2") as (ours, client):
        await (leg := await ours.accepted()).next()
        await client.until(b"Verify return code")
        client.type(b"R\n")
        assert b"no renegotiation" in await client.until(b"no renegotiation")
        assert leg.stream is not None
        assert not leg.stream.handshaking


async def key_updates(client: Program, count: int) -> None:
    """s_client reads a command only at the beginning of what it reads from its input: one at a time."""
    for _ in range(count):
        client.type(b"K\n")
        await client.until(b"KEYUPDATE\n")


async def test_a_few_key_updates_are_answered_and_many_are_not() -> None:
    async with s_client("-tls1_3") as (ours, client):
        await (leg := await ours.accepted()).next()
        await client.until(b"Verify return code")
        await key_updates(client, 3)
        await echoed(client, leg)
        with suppress(AssertionError):
            await key_updates(client, SILENT_MAX + 1)
        error = await leg.next()
        assert isinstance(error, TlsStreamError)
        assert error.reason == "the client sends too many TLS records without data"


@VERSIONS
async def test_many_small_records_take_many_turns(option: str) -> None:
    """A client that sends 8 KiB in records of 512 octets at most, many of them in one segment."""
    async with s_client(option, "-quiet", "-max_send_frag", "512") as (ours, client):
        await (leg := await ours.accepted()).next()
        text = (b"x" * 70 + b"\n") * 20000
        client.type(text)
        for _ in range(20000):
            assert await leg.next() == b"x" * 70
        assert leg.turns >= len(text) / 512 / RECORDS_PER_CALL


async def test_plain_smtp_gets_an_alert() -> None:
    async with listening(ClientContexts()) as ours:
        with socket.create_connection(("127.0.0.1", ours.port)) as client:
            client.sendall(b"EHLO a\r\n")
            leg = await ours.accepted()
            assert "TLS" in str(await leg.next())
            await leg.next()
            assert client.recv(100) == b"\x15\x03\x03\x00\x02\x02\x0a"
