"""The facts of a leg, as log and filters get them."""

from __future__ import annotations

from proxsmtp_tp.tls.facts import NO_TLS, Legs, Side, TlsFacts, Verified, environment

CLIENT = TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", "mx.example")
SERVER = TlsFacts("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256", "mx.example", Verified.NAME)


def test_log_values() -> None:
    assert CLIENT.log_value(Side.CLIENT) == "TLSv1.3"
    assert CLIENT.log_value(Side.SERVER) == "TLSv1.3/unverified"
    assert SERVER.log_value(Side.SERVER) == "TLSv1.2/verified"
    assert [value.value for value in Verified] == ["unverified", "trusted", "verified", "dane"]


def test_the_environment_has_all_variables_in_every_case() -> None:
    assert environment(Legs(CLIENT, SERVER)) == {
        "CLIENT_TLS": "TLSv1.3",
        "CLIENT_TLS_CIPHER": "TLS_AES_256_GCM_SHA384",
        "CLIENT_TLS_NAME": "mx.example",
        "SERVER_TLS": "TLSv1.2",
        "SERVER_TLS_CIPHER": "ECDHE-RSA-AES128-GCM-SHA256",
        "SERVER_TLS_NAME": "mx.example",
        "SERVER_TLS_VERIFIED": "verified",
    }
    assert environment(NO_TLS) == dict.fromkeys(environment(Legs(CLIENT, SERVER)), "")
