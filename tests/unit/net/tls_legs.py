"""Two TlsStreams that talk to each other without a socket, and certificates for tests."""

from __future__ import annotations

import functools
import ssl
import subprocess
import tempfile
from pathlib import Path

from proxsmtp_tp.certificates.material import Material
from proxsmtp_tp.net.tls_contexts import ClientContexts, server_context
from proxsmtp_tp.net.tls_stream import TlsStream
from proxsmtp_tp.tls.facts import Side

TLS_1_2, TLS_1_3 = 0x0303, 0x0304
VERSIONS = {TLS_1_2: ssl.TLSVersion.TLSv1_2, TLS_1_3: ssl.TLSVersion.TLSv1_3}


KEYS = {
    "ec": ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "P-384": ["ec", "-pkeyopt", "ec_paramgen_curve:P-384"],
    "rsa": ["rsa:2048"],
    "rsa:1024": ["rsa:1024"],
}


@functools.cache
def self_signed(name: str = "mx.example", key: str = "ec") -> Material:
    """A certificate for this name, of its own key: one of KEYS."""
    with tempfile.TemporaryDirectory() as directory:
        chain, private = Path(directory, "chain.pem"), Path(directory, "key.pem")
        wanted = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-days", "2", "-nodes"]
        made = ["-newkey", *KEYS[key], "-keyout", str(private), "-out", str(chain)]
        subprocess.run(["openssl", "req", "-x509", *wanted, *made], check=True, capture_output=True)
        return Material(chain.read_bytes(), private.read_bytes(), ends=0.0)


CONTEXTS = ClientContexts()


def client_leg(version: int = TLS_1_3, certificate: Material | None = None) -> TlsStream:
    """Our leg to a client that knows this version at most."""
    return TlsStream(CONTEXTS.get(certificate or self_signed(), {version}), Side.CLIENT, "mx.example")


@functools.cache
def only(version: int) -> ssl.SSLContext:
    """The context of a peer that knows only this version."""
    context = server_context()
    context.minimum_version = context.maximum_version = VERSIONS[version]
    return context


def server_leg(version: int = TLS_1_3, context: ssl.SSLContext | None = None) -> TlsStream:
    """Our leg to a server."""
    return TlsStream(context or only(version), Side.SERVER, "mx.example")


def shake(first: TlsStream, second: TlsStream) -> None:
    """Carry bytes in both directions until nobody has any."""
    moved = True
    while moved:
        moved = False
        for sender, receiver in ((first, second), (second, first)):
            while data := sender.to_send():
                assert receiver.receive(data) == b""
                moved = True


def connected(version: int = TLS_1_3) -> tuple[TlsStream, TlsStream]:
    """Both legs after the handshake: to the client, to the server."""
    client, server = client_leg(version), server_leg(version)
    shake(server, client)
    assert not client.handshaking
    assert not server.handshaking
    return client, server


def receive_all(stream: TlsStream, data: bytes) -> bytes:
    """All plain text, over as many turns as the stream needs."""
    plain = stream.receive(data)
    while stream.more:
        plain += stream.receive(b"")
    return plain
