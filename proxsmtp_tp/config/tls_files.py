"""Files of certificates and keys: TlsCertificate, TlsCa and TlsUntrustedCa, from text and back. Nothing is opened."""

from __future__ import annotations

from dataclasses import dataclass

from proxsmtp_tp.config.tls_lines import Network, networks_of, show_value


@dataclass(frozen=True, slots=True)
class KeyPair:
    """The files (PEM) of a certificate, with its chain, and of its key. They may be the same."""

    certificate: str
    key: str

    def __str__(self) -> str:
        """As the configuration file writes it."""
        return self.certificate if self.key == self.certificate else f"{self.certificate} {self.key}"


@dataclass(frozen=True, slots=True)
class CertificateLine:
    """One line `TlsCertificate:`. Without `servers`: for all of them."""

    files: KeyPair
    servers: tuple[Network, ...] = ()

    def __str__(self) -> str:
        """As the configuration file writes it."""
        servers = f" server={','.join(map(show_value, self.servers))}" if self.servers else ""
        return f"{self.files}{servers}"


def parse_key_pair(text: str) -> KeyPair:
    """Read CERTIFICATE [KEY]. Raises ValueError."""
    words = text.split()
    if not 1 <= len(words) <= 2:
        raise ValueError("write the file of the certificate and that of its key, or one file that has both")
    if wrong := [word for word in words if not word.startswith("/")]:
        raise ValueError(f"{wrong[0]!r} is no absolute path: begin it with /")
    return KeyPair(words[0], words[-1])


def parse_certificate(text: str) -> tuple[CertificateLine, ...]:
    """Read CERTIFICATE [KEY] [server=NET,..]. Raises ValueError."""
    words = text.split()
    servers: tuple[Network, ...] = ()
    if words and words[-1].lower().startswith("server="):
        try:
            servers = networks_of(words.pop().partition("=")[2])
        except ValueError as error:
            raise ValueError(f"server: {error}") from None
    return (CertificateLine(parse_key_pair(" ".join(words)), servers),)
