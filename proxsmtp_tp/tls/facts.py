"""What is known of TLS on one leg of a session: for the log line and the environment of filters."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from proxsmtp_tp.telemetry.facts import TlsLeg


class Side(Enum):
    """A leg of a session: to the client (we are the TLS server), or to the server (we are the TLS client)."""

    CLIENT = "client"
    SERVER = "server"


class Verified(Enum):
    """How well the peer of a leg is known by its certificate. The value is the word in the log."""

    NO = "unverified"
    """Anybody may be there: no check was asked for, or the check failed where the level allows that."""
    TRUSTED = "trusted"
    """The certificate is of a trusted CA, and there was no name to compare with."""
    NAME = "verified"
    """The certificate is of a trusted CA, and for the name that was asked for."""
    DANE = "dane"
    """The certificate matches a TLSA record that DNSSEC secures (RFC 7672)."""

    @property
    def proven(self) -> bool:
        """Whether the server is the one that was asked for."""
        return self in {Verified.NAME, Verified.DANE}

    @property
    def vouched(self) -> bool:
        """Whether a client may get a certificate of the trusted CA, with the names of the server's own.

        Also where the client has sent no name (most Postfix do not): a client that compares the names then accepts or
        rejects the server as it would without the gateway.
        """
        return self is not Verified.NO


@dataclass(frozen=True, slots=True)
class TlsFacts:
    """One leg in TLS. `version` and `cipher` are the names of OpenSSL (`TLSv1.3`, `TLS_AES_256_GCM_SHA384`)."""

    version: str
    cipher: str
    server_name: str = ""
    """The name in the ClientHello of this leg; "": none."""
    verified: Verified = Verified.NO
    """On the server's leg. We ask no client for a certificate."""

    def log_value(self, side: Side) -> str:
        """As log lines have it."""
        return self.reported(side).short

    def reported(self, side: Side) -> TlsLeg:
        """For the log, events and `sessions`."""
        verified = "" if side is Side.CLIENT else self.verified.value
        return TlsLeg(self.version, self.cipher, self.server_name, verified)


class Legs(NamedTuple):
    """Both legs of a session; None: the leg is in clear."""

    client: TlsFacts | None = None
    server: TlsFacts | None = None

    @property
    def reported(self) -> tuple[TlsLeg | None, TlsLeg | None]:
        """Both for the log, events and `sessions`."""
        client, server = self
        return client.reported(Side.CLIENT) if client else None, server.reported(Side.SERVER) if server else None


NO_TLS: Final = Legs()


def environment(legs: Legs) -> dict[str, str]:
    """The variables of filters. All of them, so that none is inherited: those of a leg in clear are empty."""
    client, server = legs
    return {
        "CLIENT_TLS": client.version if client else "",
        "CLIENT_TLS_CIPHER": client.cipher if client else "",
        "CLIENT_TLS_NAME": client.server_name if client else "",
        "SERVER_TLS": server.version if server else "",
        "SERVER_TLS_CIPHER": server.cipher if server else "",
        "SERVER_TLS_NAME": server.server_name if server else "",
        "SERVER_TLS_VERIFIED": server.verified.value if server else "",
    }
