"""The settings of both legs, as a peer sees them."""

from __future__ import annotations

import gc
import ssl
import subprocess
import weakref
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.net.tls_contexts import ClientContexts, client_context, server_context
from proxsmtp_tp.net.tls_stream import TlsStream, TlsStreamError
from proxsmtp_tp.tls.alerts import Alert
from proxsmtp_tp.tls.facts import Side
from tests.unit.net.tls_legs import CONTEXTS, TLS_1_2, TLS_1_3, VERSIONS, client_leg, self_signed, server_leg, shake

if TYPE_CHECKING:
    from pathlib import Path

BOTH = pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])


class Peer:
    """A TLS client of the standard library, which may resume a session."""

    def __init__(
        self, version: int, session: ssl.SSLSession | None = None, context: ssl.SSLContext | None = None
    ) -> None:
        self.context = context or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.check_hostname = False
        self.context.verify_mode = ssl.CERT_NONE
        self.context.maximum_version = VERSIONS[version]
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = self.context.wrap_bio(self.incoming, self.outgoing, session=session)

    def shake(self, stream: TlsStream) -> None:
        for _ in range(6):
            with suppress(ssl.SSLWantReadError):
                self.tls.do_handshake()
            if data := self.outgoing.read():
                stream.receive(data)
            self.incoming.write(stream.to_send())


@BOTH
def test_no_session_can_be_resumed(version: int) -> None:
    """Neither by ticket nor by id, and not by the certificate's context of other clients."""
    peer = Peer(version)
    kept = client_leg(version)  # a stream that is freed without close_notify takes its session out of the cache
    peer.shake(kept)
    session = peer.tls.session
    assert session is not None
    assert not session.has_ticket
    again = Peer(version, session if version == TLS_1_2 else None, peer.context)
    again.shake(client_leg(version))
    assert again.tls.version() == ("TLSv1.2" if version == TLS_1_2 else "TLSv1.3")
    assert not again.tls.session_reused
    assert not kept.handshaking


def test_a_shared_context_would_resume() -> None:
    """Why a client of TLS 1.2 gets a context of its own: this is what the test above would find without it."""
    context = client_context(self_signed())
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    peer = Peer(TLS_1_2)
    kept = TlsStream(context, Side.CLIENT)
    peer.shake(kept)
    again = Peer(TLS_1_2, peer.tls.session, peer.context)
    again.shake(TlsStream(context, Side.CLIENT))
    assert again.tls.session_reused
    assert not kept.handshaking


@pytest.mark.parametrize("known", [{TLS_1_2}, {TLS_1_3, TLS_1_2}])
def test_tls_1_1_is_refused(known: set[int]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    stream = TlsStream(CONTEXTS.get(self_signed(), known), Side.CLIENT)
    with pytest.raises(TlsStreamError, match=r"^unsupported protocol$"):
        stream.receive(outgoing.read())
    assert stream.to_send()[-2:] == bytes((2, Alert.PROTOCOL_VERSION))


@BOTH
def test_smtp_is_chosen_where_a_client_offers_it(version: int) -> None:
    peer = Peer(version)
    peer.context.set_alpn_protocols(["smtp"])
    peer = Peer(version, context=peer.context)
    peer.shake(client_leg(version))
    assert peer.tls.selected_alpn_protocol() == "smtp"


@BOTH
def test_rsa_keys_work(version: int) -> None:
    ours, server = client_leg(version, self_signed("rsa.example", "rsa")), server_leg(version)
    shake(server, ours)
    assert not ours.handshaking


def test_options() -> None:
    for context in (server_context(), client_context(self_signed())):
        assert context.options & ssl.OP_NO_RENEGOTIATION
        assert context.options & ssl.OP_NO_TICKET
        assert context.options & ssl.OP_NO_COMPRESSION
        assert not context.options & ssl.OP_IGNORE_UNEXPECTED_EOF
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    used = client_leg(TLS_1_2)._tls.context.get_ciphers()
    assert {c["name"].partition("-")[0] for c in used if c["protocol"] == "TLSv1.2"} == {"ECDHE"}
    assert all(c["aead"] for c in used)
    assert not any("NULL" in c["name"] or "ADH" in c["name"] for c in server_context().get_ciphers())


def test_no_server_chooses_how_long_our_key_exchange_takes() -> None:
    """DHE with a prime of 10000 bit keeps the worker busy for a second."""
    names = [c["name"] for c in server_context().get_ciphers()]
    assert not any(name.startswith(("DHE-", "EDH-", "ADH-")) for name in names)
    assert "ECDHE-RSA-AES256-GCM-SHA384" in names
    assert "AES256-GCM-SHA384" in names  # for servers without ECDHE


def test_each_certificate_is_loaded_once_and_the_oldest_is_forgotten() -> None:
    contexts = ClientContexts(limit=2)
    a, b, c = (contexts_of(contexts, name) for name in ("a.example", "b.example", "a.example"))
    assert a is c
    assert contexts_of(contexts, "c.example") is not a
    assert len(contexts) == 2
    assert contexts_of(contexts, "a.example") is a
    assert contexts_of(contexts, "b.example") is not b


def contexts_of(contexts: ClientContexts, name: str) -> ssl.SSLContext:
    return contexts.get(self_signed(name), {TLS_1_3})


def test_a_context_of_one_use_is_freed_with_its_stream() -> None:
    stream, server = client_leg(TLS_1_2), server_leg(TLS_1_2)
    shake(server, stream)
    context = CONTEXTS.get(self_signed(), {TLS_1_2})
    freed = weakref.ref(context)
    gc.disable()
    try:
        used = TlsStream(context, Side.CLIENT)
        del context
        assert freed() is not None
        server = server_leg(TLS_1_2)
        shake(server, used)
        used.close_notify()
        del used
        assert freed() is None
    finally:
        gc.enable()


def test_certificates_that_cannot_be_used(tmp_path: Path) -> None:
    good, other = self_signed(), self_signed("other.example")
    with pytest.raises(ValueError, match="certificate and key cannot be used: KEY_VALUES_MISMATCH"):
        client_context(replace(good, key=other.key))
    with pytest.raises(ValueError, match="certificate and key cannot be used"):
        client_context(replace(good, chain=b"", key=b""))
    secret = tmp_path / "secret.pem"
    (tmp_path / "key.pem").write_bytes(good.key)
    subprocess.run(
        ["openssl", "pkey", "-in", tmp_path / "key.pem", "-aes128", "-passout", "pass:x", "-out", secret],
        check=True,
        capture_output=True,
    )
    with pytest.raises(ValueError, match="the key has a passphrase: store it without one"):
        client_context(replace(good, key=secret.read_bytes()))
