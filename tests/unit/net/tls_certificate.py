"""What a worker of the harness has for TLS: one certificate for all clients, and the CA that verifies servers."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from proxsmtp_tp.certificates.material import CertificateError
from proxsmtp_tp.certificates.path_check import Anchors
from proxsmtp_tp.net.handshake_limits import HandshakeLimits
from proxsmtp_tp.net.tls_contexts import ClientContexts
from proxsmtp_tp.net.tls_worker import WorkerTls
from tests.unit.net.tls_legs import self_signed

if TYPE_CHECKING:
    import ssl
    from collections.abc import Collection

    from proxsmtp_tp.certificates.material import Material
    from proxsmtp_tp.config.settings import Settings
    from proxsmtp_tp.net.tls_rejections import TlsRejections

SERVER_NAME = "mx.example"
"""The certificate of the server is for this name, and is its own CA."""


class OneCertificate:
    """A source of certificates that remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[tuple[str, ...], bool]] = []
        self.missing = ""
        """There is none: why."""
        self.own_material: Material | None = None
        self._contexts = ClientContexts()

    async def context(
        self, server_names: tuple[str, ...], verified: bool, server_ip: str, versions: Collection[int] = ()
    ) -> ssl.SSLContext:
        """The same certificate in any case."""
        assert server_ip == "127.0.0.1"
        self.asked.append((server_names, verified))
        if self.missing:
            raise CertificateError(self.missing)
        return self._contexts.get(self_signed("proxy.example"), versions)

    def own(self, server: str) -> Material | None:
        """A TlsCertificate, where the test has one."""
        assert server == "127.0.0.1"
        return self.own_material


@functools.cache
def anchors() -> Anchors:
    """Only the server's own certificate."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(self_signed(SERVER_NAME).chain)
        file.flush()
        return Anchors(Path(file.name))


def worker_tls(settings: Settings, rejections: TlsRejections) -> WorkerTls | None:
    """None: there are no Tls lines."""
    if not settings.tls:
        return None
    limits = HandshakeLimits(settings.tls_handshakes, settings.tls_client_handshakes)
    made = WorkerTls(OneCertificate(), anchors(), limits)
    made.learn_rejections(settings, rejections)
    return made
