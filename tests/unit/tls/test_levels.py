"""What UpstreamTls demands: Postfix's levels, and never clear once the client has TLS."""

from __future__ import annotations

import itertools

import pytest

from proxsmtp_tp.config.tls_lines import TlsLevel, UpstreamRule, parse_upstream
from proxsmtp_tp.smtp import answers
from proxsmtp_tp.tls.facts import Verified
from proxsmtp_tp.tls.levels import MAY_GO_ON, Demand, TlsaState, UpstreamPolicy

NONE, UNUSABLE, USABLE, FAILED = TlsaState


def demand(level: str, *, client_tls: bool = False, tlsa: TlsaState = NONE) -> Demand:
    return Demand(UpstreamRule(TlsLevel(level)), client_tls, tlsa)


@pytest.mark.parametrize(
    ("level", "client_tls", "tlsa", "in_force"),
    [
        ("may", False, NONE, "may"),
        ("may", True, NONE, "encrypt"),
        ("encrypt", False, NONE, "encrypt"),
        ("dane", False, NONE, "may"),
        ("dane", True, NONE, "encrypt"),
        ("dane", False, UNUSABLE, "encrypt"),
        ("dane", False, USABLE, "dane"),
        ("dane", True, USABLE, "dane"),
        ("dane", False, FAILED, "dane"),
        ("verify", True, NONE, "verify"),
        ("secure", False, USABLE, "secure"),
    ],
)
def test_the_level_in_force(level: str, client_tls: bool, tlsa: TlsaState, in_force: str) -> None:
    found = demand(level, client_tls=client_tls, tlsa=tlsa)
    assert found.level.value == in_force
    assert found.wants_tls == (in_force != "may")


ALL = [
    Demand(UpstreamRule(level), client_tls, tlsa)
    for level, client_tls, tlsa in itertools.product(TlsLevel, [False, True], TlsaState)
]


@pytest.mark.parametrize("each", ALL, ids=str)
def test_clear_only_with_may_and_a_client_in_clear(each: Demand) -> None:
    allowed = not each.client_tls and each.level is TlsLevel.MAY and each.unknown is None
    for outcome, refusal in (
        (each.not_offered(), answers.UPSTREAM_TLS_NOT_OFFERED),
        (each.failed("the handshake failed"), answers.UPSTREAM_TLS_FAILED),
    ):
        assert outcome.clear is allowed
        assert outcome.refusal == (None if allowed else refusal)
        assert outcome.reason.isprintable()
        assert outcome.reason
    assert not any(each.handshake_done(verified).clear for verified in Verified)


@pytest.mark.parametrize(
    ("level", "enough"),
    [
        ("may", set(Verified)),
        ("encrypt", set(Verified)),
        ("dane", {Verified.DANE}),
        ("verify", {Verified.NAME}),
        ("secure", {Verified.NAME}),
    ],
)
def test_certificates(level: str, enough: set[Verified]) -> None:
    for verified in Verified:
        outcome = demand(level, tlsa=USABLE).handshake_done(verified)
        if verified in enough:
            assert outcome is MAY_GO_ON
        else:
            assert outcome.refusal is answers.UPSTREAM_NOT_VERIFIED
            assert outcome.reason == (f"the server's certificate is {verified.value}, and UpstreamTls demands {level}")


def test_unknown_records_refuse_before_anything_is_tried() -> None:
    outcome = demand("dane", tlsa=FAILED).unknown
    assert outcome is not None
    assert outcome.refusal is answers.UPSTREAM_TLSA_UNKNOWN
    assert [demand(level, tlsa=FAILED).unknown for level in ("may", "encrypt", "verify", "secure")] == [None] * 4
    assert [demand("dane", tlsa=tlsa).unknown for tlsa in (NONE, UNUSABLE, USABLE)] == [None] * 3


def test_the_first_line_counts() -> None:
    lines = ["secure server=192.0.2.0/24 match=mx.example", "dane port=587", "encrypt server=2001:db8::/32"]
    policy = UpstreamPolicy([rule for line in lines for rule in parse_upstream(line)])
    assert policy.rule_for("192.0.2.9", 587).match == ("mx.example",)
    assert policy.rule_for("192.0.3.9", 587).level is TlsLevel.DANE
    assert policy.rule_for("2001:db8::1", 25).level is TlsLevel.ENCRYPT
    assert policy.rule_for("192.0.3.9", 25).level is TlsLevel.MAY
    assert policy.rule_for("", 25).level is TlsLevel.MAY
    assert UpstreamPolicy([]).rule_for("192.0.2.9", 25) == UpstreamRule(TlsLevel.MAY)
