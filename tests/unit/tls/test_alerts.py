"""What alerts mean, and which names of OpenSSL they have."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.net.tls_stream import TlsStream, TlsStreamError
from proxsmtp_tp.tls.alerts import Alert, alert_record, meaning, received_alert
from proxsmtp_tp.tls.facts import Side
from tests.unit.net.tls_legs import TLS_1_2, TLS_1_3, VERSIONS, client_leg, server_leg

SENTENCES = [
    (Alert.UNKNOWN_CA, Side.CLIENT, "unknown CA: the client rejects our certificate"),
    (Alert.BAD_CERTIFICATE, Side.CLIENT, "bad certificate: the client rejects our certificate"),
    (Alert.CERTIFICATE_EXPIRED, Side.CLIENT, "certificate expired: the client rejects our certificate"),
    (Alert.CERTIFICATE_REQUIRED, Side.SERVER, "certificate required: the server wants a certificate of the client"),
    (Alert.PROTOCOL_VERSION, Side.SERVER, "protocol version: the server and we have no TLS version in common"),
    (Alert.UNRECOGNIZED_NAME, Side.SERVER, "unrecognized name: the server does not know the server name"),
    (Alert.DECODE_ERROR, Side.CLIENT, "decode error: the client ended TLS"),
]


@pytest.mark.parametrize(("alert", "side", "sentence"), SENTENCES)
def test_meanings(alert: Alert, side: Side, sentence: str) -> None:
    assert meaning(alert, side) == sentence


NOT_NAMED = {
    Alert.CLOSE_NOTIFY,
    Alert.USER_CANCELED,  # a warning: close_notify follows (RFC 8446 section 6.1)
    Alert.ECH_REQUIRED,  # newer than this OpenSSL
}


@pytest.mark.parametrize("alert", [a for a in Alert if a not in NOT_NAMED])
@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
def test_each_alert_of_a_client_is_named(alert: Alert, version: int) -> None:
    """As OpenSSL reports it: sent in clear where the client's first flight is expected, or its second."""
    stream = client_leg(version)
    stream.receive(server_leg(version).to_send())
    with pytest.raises(TlsStreamError) as failed:
        stream.receive(alert_record(alert))
    assert failed.value.alert is alert
    assert failed.value.reason == meaning(alert, Side.CLIENT)
    assert failed.value.certificate_rejected == ("rejects our certificate" in failed.value.reason)


def test_an_alert_that_openssl_does_not_know_is_an_error_like_others() -> None:
    stream = server_leg()
    with pytest.raises(TlsStreamError) as failed:
        stream.receive(bytes((21, 3, 3, 0, 2, 2, 121)))
    assert failed.value.alert is None


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
def test_a_client_that_does_not_trust_our_ca(version: int) -> None:
    """The real thing: a client that verifies."""
    context = ssl.create_default_context()
    context.maximum_version = VERSIONS[version]
    ours, theirs = client_leg(version), TlsStream(context, Side.SERVER, "mx.example")
    ours.receive(theirs.to_send())
    with pytest.raises(TlsStreamError) as bad:
        theirs.receive(ours.to_send())
    assert bad.value.reason == "certificate verify failed"
    assert bad.value.alert is None
    assert not bad.value.certificate_rejected
    with pytest.raises(TlsStreamError) as failed:
        ours.receive(theirs.to_send())
    assert failed.value.reason == "unknown CA: the client rejects our certificate"
    assert failed.value.certificate_rejected


def test_alerts_of_our_own_are_understood() -> None:
    stream = server_leg()
    with pytest.raises(TlsStreamError) as failed:
        stream.receive(alert_record(Alert.NO_APPLICATION_PROTOCOL))
    assert failed.value.alert is Alert.NO_APPLICATION_PROTOCOL
    assert alert_record(Alert.NO_APPLICATION_PROTOCOL) == b"\x15\x03\x03\x00\x02\x02\x78"


@given(st.text(max_size=60))
def test_any_reason_is_an_alert_or_none(reason: str) -> None:
    assert received_alert(reason) is None or reason.startswith(("SSLV3_", "TLSV1_", "TLSV13_"))
