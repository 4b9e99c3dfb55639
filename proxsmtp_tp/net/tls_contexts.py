"""The settings of the TLS engine, for both legs: TLS 1.2 and newer, no renegotiation, no resumption.

A resumed session skips the certificate, so a peer could carry what one rule allowed over to another one. Towards
servers no session is ever offered. Towards clients, TLS 1.3 resumes by tickets only, and none is given; TLS 1.2 also
resumes by session ids from a cache that belongs to the context and that Python cannot switch off: such a client gets a
context of its own, whose cache is empty.
"""

from __future__ import annotations

import os
import ssl
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING

from proxsmtp_tp.net.tls_groups import limit_groups

if TYPE_CHECKING:
    from collections.abc import Collection

    from proxsmtp_tp.certificates.material import Material

CONTEXTS_MAX = 1024
"""Certificates that are kept loaded: about 25 KiB each. Loading one again takes less than a millisecond."""
_TLS_1_3 = 0x0304
_CLIENT_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""TLS 1.2 from clients: forward secrecy, and no CBC (Lucky Thirteen). Exchange on Windows Server 2012 R2, out of
support, has these only with an EC key: give it a TlsCertificate of that kind, or none.
"""
_SERVER_CIPHERS = "HIGH:!aNULL:!eNULL:!MD5:!DSS:!PSK:!SRP:!kDHE:@SECLEVEL=1"
"""TLS 1.2 to servers: a server with old ciphers is better than mail that cannot be sent. Never anonymous: then nothing
is known. No DHE: the server chooses the prime, and with one of 10000 bit a handshake takes a second of our processor
time (CVE-2002-20001), in which the worker serves nobody. Servers that have DHE without ECDHE have RSA, too.

SECLEVEL: Debian has level 2. A key of 1024 bit, which mail servers still have, is no reason to refuse one that nobody
verifies; `certificates.path_check` demands level 2.
"""


class ClientContexts:
    """Contexts for the legs to clients, where we are the TLS server; one for each certificate, at most `limit`.

    The one that was used longest ago is forgotten first; connections that use it keep it.
    """

    def __init__(self, limit: int = CONTEXTS_MAX) -> None:
        self._limit = limit
        self._contexts: OrderedDict[Material, ssl.SSLContext] = OrderedDict()

    def get(self, certificate: Material, versions: Collection[int]) -> ssl.SSLContext:
        """`versions`: those of the ClientHello. ValueError: the certificate cannot be used; says why."""
        context = self._contexts.get(certificate)
        if context is None:
            context = self._contexts[certificate] = client_context(certificate)
            if len(self._contexts) > self._limit:
                self._contexts.popitem(last=False)
        else:
            self._contexts.move_to_end(certificate)
        return context if _TLS_1_3 in versions else _single_use(context)

    def __len__(self) -> int:
        return len(self._contexts)


def client_context(certificate: Material) -> ssl.SSLContext:
    """For legs to clients that know TLS 1.3. ValueError: the certificate cannot be used; says why."""
    context = _client_settings()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    limit_groups(context)
    load(context, certificate)
    return context


def server_context() -> ssl.SSLContext:
    """For legs to servers, where we are the TLS client; one can serve all of them.

    The handshake proves nothing: who the server is, and whether that is enough, is decided after it
    (`certificates.examining`), because the levels may and encrypt go on with any server.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _common(context)
    limit_groups(context)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers(_SERVER_CIPHERS)
    return context


def load(context: ssl.SSLContext, certificate: Material) -> None:
    """Load certificate and key from memory. ValueError: it cannot be used; says why."""
    fd = os.memfd_create("certificate")  # the ssl module loads from files only; this one is never on a disk
    try:
        with os.fdopen(fd, "wb", closefd=False) as file:
            file.write(certificate.chain + b"\n" + certificate.key)
        # Without a callback, OpenSSL would ask for the passphrase of a key on the terminal.
        context.load_cert_chain(f"/proc/self/fd/{fd}", password=_no_passphrase)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"certificate and key cannot be used: {getattr(error, 'reason', None) or error}") from error
    finally:
        os.close(fd)


def _no_passphrase() -> bytes:
    raise ValueError("the key has a passphrase: store it without one")


def _common(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.MAXIMUM_SUPPORTED
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # set in Python before 3.11.3: a FIN would look like close_notify


def _client_settings() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _common(context)
    context.num_tickets = 0
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers(_CLIENT_CIPHERS)
    context.set_alpn_protocols(["smtp"])  # a hello without it is refused before (`session.starttls.hello`)
    return context


def _single_use(certified: ssl.SSLContext) -> ssl.SSLContext:
    """A context with an empty session cache, and the certificate of `certified`. Takes a fifth of the time of loading
    one.
    """
    context = _client_settings()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.sni_callback = partial(_switch, certified)
    return context


def _switch(certified: ssl.SSLContext, tls: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
    """Called with each ClientHello, with a server name or without. The cache stays that of the first context."""
    tls.context = certified
