"""Peers in TLS that a test plays itself, over the engine of Python and the sockets of `Peer`."""

from __future__ import annotations

import asyncio
import functools
import ssl
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.config.tls_lines import parse_tls
from tests.unit.net.dialogue import DOT, MESSAGE, address, meet, relayed
from tests.unit.net.proxy_harness import PIECE, WAIT_SECONDS, Peer, wire
from tests.unit.net.tls_certificate import OneCertificate
from tests.unit.net.tls_legs import self_signed

if TYPE_CHECKING:
    from tests.unit.net.proxy_harness import Mx, ProxyHarness

READY = "220 2.0.0 ready"
TERMINATE: dict[str, Any] = {"tls": parse_tls("terminate")}


class TlsPeer(Peer):
    """A peer that has begun TLS on its socket."""

    def __init__(self, peer: Peer, context: ssl.SSLContext, *, server_side: bool, name: str | None) -> None:
        super().__init__(peer.sock)
        self.wire = peer.wire
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side, server_hostname=name)
        self.alert = ""
        """Why TLS has failed, as OpenSSL says it."""
        self.raw = b""
        """What came, as it was sent."""
        self.goodbye = False
        """The other side has sent close_notify."""

    async def flush(self) -> None:
        """Send what the engine has."""
        if data := self._outgoing.read():
            async with asyncio.timeout(WAIT_SECONDS):
                await self._loop.sock_sendall(self.sock, data)

    async def shake(self) -> bool:
        """The handshake; False: it failed."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.flush()
                if not await self._feed():
                    return False
            except ssl.SSLError as error:
                self.alert = error.reason
                await self.flush()
                return False
            else:
                await self.flush()
                return True

    async def _feed(self) -> bool:
        async with asyncio.timeout(WAIT_SECONDS):
            try:
                data = await self._loop.sock_recv(self.sock, PIECE)
            except ConnectionResetError:
                self.was_reset = True
                return False
        self.raw += data
        self.wire += data
        self._incoming.write(data)
        return bool(data)

    async def say(self, text: str | bytes) -> None:
        """Send all of it, encrypted."""
        data = wire(text)
        for at in range(0, len(data), PIECE):
            self.tls.write(data[at : at + PIECE])
            await self.flush()

    async def _more(self) -> bool:
        before = len(self.heard)
        while True:
            try:
                data = self.tls.read(PIECE)
                self.heard += data
                if not data:
                    self.goodbye = True
                    break
            except ssl.SSLWantReadError:
                if len(self.heard) > before:
                    break
                if not await self._feed():
                    return False
            except ssl.SSLZeroReturnError:
                self.goodbye = True
                break
            except ssl.SSLError as error:
                self.alert = error.reason
                break
        self._without_ids(before)
        return len(self.heard) > before

    async def say_goodbye(self) -> None:
        """Send close_notify; still listen."""
        with suppress(ssl.SSLError):
            self.tls.unwrap()
        await self.flush()


@functools.cache
def server_side(name: str = "mx.example", version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """The context of a server that knows this version at most."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = version
    certificate = self_signed(name)
    with tempfile.NamedTemporaryFile() as file:
        file.write(certificate.chain + certificate.key)
        file.flush()
        context.load_cert_chain(file.name)
    return context


@functools.cache
def client_side(ca: str = "") -> ssl.SSLContext:
    """The context of a client that verifies nothing, or only by the certificate of this name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if ca:
        context.verify_mode = ssl.CERT_REQUIRED
        with tempfile.NamedTemporaryFile() as file:
            file.write(self_signed(ca).chain)
            file.flush()
            context.load_verify_locations(Path(file.name))
    return context


async def asked(harness: ProxyHarness, mx: Mx) -> tuple[Peer, Peer]:
    """Client and server past the 220 to STARTTLS."""
    client, server = await meet(harness, mx, "STARTTLS", "SIZE")
    await client.say("STARTTLS")
    assert await server.line() == b"STARTTLS"
    await server.say(READY)
    assert await client.reply() == READY.encode()
    return client, server


def in_tls(client: Peer, server: Peer, name: str | None = "mx.example", ca: str = "") -> tuple[TlsPeer, TlsPeer]:
    """Both, ready for the handshake."""
    return (
        TlsPeer(client, client_side(ca), server_side=False, name=name),
        TlsPeer(server, server_side(), server_side=True, name=None),
    )


async def terminated(harness: ProxyHarness, mx: Mx, name: str | None = "mx.example") -> tuple[TlsPeer, TlsPeer]:
    """Client and server, each in TLS with the proxy, past EHLO within it."""
    client, server = in_tls(*await asked(harness, mx), name)
    assert all(await asyncio.gather(client.shake(), server.shake()))
    await client.say("EHLO c.example")
    assert await server.line() == b"EHLO c.example"
    await server.say("250-mx\n250-AUTH PLAIN\n250 SIZE")
    assert await client.reply() == b"250-smtp.passthru\r\n250-AUTH PLAIN\r\n250 SIZE"
    return client, server


async def send_one(client: Peer, server: Peer, text: str = DOT, heard: bytes = MESSAGE) -> None:
    """One message by the filter."""
    await address(client, server)
    assert (await client.ask("DATA")).startswith(b"354")
    await client.say(text)
    assert await server.line() == b"DATA"
    await server.say("354 go")
    assert await server.text() == heard + b".\r\n"
    await server.say("250 queued")
    assert await client.reply() == b"250 queued"


async def quit_cleanly(client: TlsPeer, server: TlsPeer) -> None:
    """QUIT, and both sides get a close_notify."""
    await relayed(client, server, "QUIT", "221 bye")
    for peer in (client, server):
        assert await peer.rest() == b""
        assert peer.goodbye


def source(harness: ProxyHarness) -> OneCertificate:
    """Where the certificates come from."""
    assert harness.proxy.context.tls is not None
    found = harness.proxy.context.tls.certificates
    assert isinstance(found, OneCertificate)
    return found
