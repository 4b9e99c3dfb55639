"""TLS alerts: what one of a peer means, and those that we send before the engine runs (RFC 8446 section 6)."""

from __future__ import annotations

import re
from enum import IntEnum

from proxsmtp_tp.tls.facts import Side


class Alert(IntEnum):
    """IANA's registry of TLS alerts. The text of one is its name with spaces: `unknown ca`."""

    CLOSE_NOTIFY = 0
    UNEXPECTED_MESSAGE = 10
    BAD_RECORD_MAC = 20
    DECRYPTION_FAILED = 21
    RECORD_OVERFLOW = 22
    DECOMPRESSION_FAILURE = 30
    HANDSHAKE_FAILURE = 40
    NO_CERTIFICATE = 41
    BAD_CERTIFICATE = 42
    UNSUPPORTED_CERTIFICATE = 43
    CERTIFICATE_REVOKED = 44
    CERTIFICATE_EXPIRED = 45
    CERTIFICATE_UNKNOWN = 46
    ILLEGAL_PARAMETER = 47
    UNKNOWN_CA = 48
    ACCESS_DENIED = 49
    DECODE_ERROR = 50
    DECRYPT_ERROR = 51
    EXPORT_RESTRICTION = 60
    PROTOCOL_VERSION = 70
    INSUFFICIENT_SECURITY = 71
    INTERNAL_ERROR = 80
    INAPPROPRIATE_FALLBACK = 86
    USER_CANCELED = 90
    NO_RENEGOTIATION = 100
    MISSING_EXTENSION = 109
    UNSUPPORTED_EXTENSION = 110
    CERTIFICATE_UNOBTAINABLE = 111
    UNRECOGNIZED_NAME = 112
    BAD_CERTIFICATE_STATUS_RESPONSE = 113
    BAD_CERTIFICATE_HASH_VALUE = 114
    UNKNOWN_PSK_IDENTITY = 115
    CERTIFICATE_REQUIRED = 116
    NO_APPLICATION_PROTOCOL = 120
    ECH_REQUIRED = 121

    @property
    def text(self) -> str:
        """The name, for people: `unknown CA`, `handshake failure`."""
        words = self.name.lower().split("_")
        return " ".join("CA" if word == "ca" else word for word in words)


CERTIFICATE_REJECTED = frozenset(
    {
        Alert.NO_CERTIFICATE,
        Alert.BAD_CERTIFICATE,
        Alert.UNSUPPORTED_CERTIFICATE,
        Alert.CERTIFICATE_REVOKED,
        Alert.CERTIFICATE_EXPIRED,
        Alert.CERTIFICATE_UNKNOWN,
        Alert.UNKNOWN_CA,
    }
)
"""A client that verifies sends one of these when it does not accept our certificate (RFC 8446 section 6.2)."""

_MEANINGS = {
    Alert.HANDSHAKE_FAILURE: "{peer} and we have no cipher or parameter in common",
    Alert.INSUFFICIENT_SECURITY: "{peer} demands stronger ciphers",
    Alert.PROTOCOL_VERSION: "{peer} and we have no TLS version in common",
    Alert.UNRECOGNIZED_NAME: "{peer} does not know the server name",
    Alert.CERTIFICATE_REQUIRED: "{peer} wants a certificate of the client",
    Alert.ACCESS_DENIED: "{peer} refuses us",
    Alert.NO_APPLICATION_PROTOCOL: "{peer} does not speak SMTP here",
    Alert.ECH_REQUIRED: "{peer} wants Encrypted Client Hello, which ends where TLS is terminated",
    Alert.USER_CANCELED: "{peer} gave up",
    Alert.INTERNAL_ERROR: "{peer} has an error of its own",
}


def meaning(alert: Alert, side: Side) -> str:
    """What an alert from this peer says about us: `unknown CA: the client rejects our certificate`."""
    peer = f"the {side.value}"
    if alert in CERTIFICATE_REJECTED:
        what = (
            "rejects our certificate" if side is Side.CLIENT else "rejects the certificate that we did or did not show"
        )
        return f"{alert.text}: {peer} {what}"
    return f"{alert.text}: " + _MEANINGS.get(alert, "{peer} ended TLS").format(peer=peer)


_ALERT_REASON = re.compile(r"(?:SSLV3|TLSV1|TLSV13)_(?:ALERT_)?(.+)")
"""OpenSSL's reason for a received alert, as `SSLError.reason` has it: SSLV3_ALERT_HANDSHAKE_FAILURE,
TLSV1_UNRECOGNIZED_NAME (sslerr.h, the codes above SSL_AD_REASON_OFFSET).
"""
_OTHER_NAMES = {"USER_CANCELLED": Alert.USER_CANCELED}


def received_alert(reason: str) -> Alert | None:
    """The alert that the peer sent, from OpenSSL's reason; None: the error is ours."""
    match = _ALERT_REASON.fullmatch(reason)
    if match is None:
        return None
    name = match.group(1)
    return _OTHER_NAMES.get(name) or Alert.__members__.get(name)


def alert_record(alert: Alert) -> bytes:
    """A fatal alert in clear, to be sent instead of a first flight: nothing is negotiated yet (RFC 8446 5.1)."""
    return bytes((21, 3, 3, 0, 2, 2, alert))
