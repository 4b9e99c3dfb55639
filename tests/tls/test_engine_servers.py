"""The engine as a TLS client, against openssl s_server and gnutls-serv."""

from __future__ import annotations

import socket
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.net.tls_contexts import server_context
from proxsmtp_tp.net.tls_stream import End, TlsStreamError
from proxsmtp_tp.tls.alerts import Alert
from tests.tls.engine import Program, ServerLeg, connect, program
from tests.unit.net.tls_legs import self_signed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

VERSIONS = pytest.mark.parametrize("option", ["-tls1_2", "-tls1_3"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def files(directory: Path, key: str = "ec") -> tuple[str, str]:
    """Files of certificate and key."""
    certificate = self_signed("mx.example", key)
    (directory / "chain.pem").write_bytes(certificate.chain)
    (directory / "key.pem").write_bytes(certificate.key)
    return str(directory / "chain.pem"), str(directory / "key.pem")


@asynccontextmanager
async def s_server(directory: Path, *options: str, key: str = "ec") -> AsyncIterator[tuple[Program, int]]:
    """It answers each line with the line reversed."""
    chain, private = files(directory, key)
    port = free_port()
    async with program(
        "openssl", "s_server", "-rev", "-accept", f"127.0.0.1:{port}", "-cert", chain, "-key", private, *options
    ) as running:
        await running.until(b"ACCEPT\n")
        yield running, port


async def exchange(leg: ServerLeg) -> None:
    leg.send(b"EHLO a\n")
    assert await leg.next() == b"a OLHE"


@pytest.mark.parametrize("key", ["ec", "rsa"])
@VERSIONS
async def test_we_talk_with_openssl(option: str, key: str, tmp_path: Path) -> None:
    async with s_server(tmp_path, option, key=key) as (server, port):
        leg = await connect(port, server_context())
        facts = await leg.next()
        assert facts.version == ("TLSv1.2" if option == "-tls1_2" else "TLSv1.3")
        await exchange(leg)
        assert leg.stream is not None
        assert leg.stream.chain() == [ssl.PEM_cert_to_DER_cert(self_signed("mx.example", key).chain.decode())]
        leg.stream.close_notify()
        leg.transport.write(leg.stream.to_send())
        assert await leg.next() in {End.CLEAN, "lost"}
        assert b"CONNECTION CLOSED" in await server.until(b"CONNECTION CLOSED")


@pytest.mark.parametrize("priority", ["NORMAL:-VERS-ALL:+VERS-TLS1.2", "NORMAL:-VERS-ALL:+VERS-TLS1.3"])
async def test_we_talk_with_gnutls(priority: str, tmp_path: Path) -> None:
    chain, key = files(tmp_path)
    port = free_port()
    async with program(
        "gnutls-serv",
        "--echo",
        "-p",
        str(port),
        f"--x509certfile={chain}",
        f"--x509keyfile={key}",
        f"--priority={priority}",
    ):
        leg = await connect(port, server_context())
        await leg.next()
        leg.send(b"EHLO a\n")
        assert await leg.next() == b"EHLO a"
        assert leg.stream is not None
        leg.stream.close_notify()
        leg.transport.write(leg.stream.to_send())
        assert await leg.next() is End.CLEAN
        assert await leg.next() == "lost"


@VERSIONS
async def test_a_server_that_is_killed_has_truncated(option: str, tmp_path: Path) -> None:
    async with s_server(tmp_path, option) as (server, port):
        leg = await connect(port, server_context())
        await leg.next()
        await exchange(leg)
        server.kill()
        assert await leg.next() is End.TRUNCATED
        assert await leg.next() == "lost"


@VERSIONS
async def test_a_server_that_wants_a_certificate(option: str, tmp_path: Path) -> None:
    """In TLS 1.3 we learn it after our handshake is finished (RFC 8446 section 4.4.2.4)."""
    async with s_server(tmp_path, option, "-Verify", "1") as (_, port):
        leg = await connect(port, server_context())
        error = await leg.next()
        if option == "-tls1_3":
            error = await leg.next()
        assert isinstance(error, TlsStreamError)
        assert error.alert is (Alert.HANDSHAKE_FAILURE if option == "-tls1_2" else Alert.CERTIFICATE_REQUIRED)
        assert not error.certificate_rejected
        assert await leg.next() == "lost"


async def test_a_server_that_does_not_know_the_name(tmp_path: Path) -> None:
    chain, key = files(tmp_path)
    names = ("-servername", "mx.example", "-servername_fatal", "-cert2", chain, "-key2", key)
    async with s_server(tmp_path, *names) as (_, port):
        leg = await connect(port, server_context(), "other.example")
        error = await leg.next()
        assert isinstance(error, TlsStreamError)
        assert error.reason == "unrecognized name: the server does not know the server name"
        assert await leg.next() == "lost"


async def test_a_server_without_tls_1_2(tmp_path: Path) -> None:
    async with s_server(tmp_path, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0") as (_, port):
        leg = await connect(port, server_context())
        error = await leg.next()
        assert isinstance(error, TlsStreamError)
        assert error.reason == "protocol version: the server and we have no TLS version in common"
        assert await leg.next() == "lost"


@VERSIONS
async def test_a_short_key_is_taken(option: str, tmp_path: Path) -> None:
    """RSA with 1024 bit: still found at mail servers."""
    async with s_server(tmp_path, option, "-cipher", "DEFAULT:@SECLEVEL=0", key="rsa:1024") as (_, port):
        leg = await connect(port, server_context())
        assert (await leg.next()).version == ("TLSv1.2" if option == "-tls1_2" else "TLSv1.3")
        leg.transport.abort()
        assert await leg.next() == "lost"
