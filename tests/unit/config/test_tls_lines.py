"""Tls and UpstreamTls: from text and back, and every mistake by name."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.config.tls_lines import TlsAction, TlsLevel, TlsRule, UpstreamRule, parse_tls, parse_upstream
from tests.unit.smtp.chunking import PROPERTY


@pytest.mark.parametrize(
    ("text", "rule", "shown"),
    [
        ("terminate", TlsRule(TlsAction.TERMINATE), "terminate"),
        ("STRIP  Submission", TlsRule(TlsAction.STRIP, submission=True), "strip submission"),
        (
            "Pass Client=192.0.2.0/24,2001:db8::1 server=203.0.113.25 port=25,587 name=*.Bank.Example.,none",
            TlsRule(
                TlsAction.PASS,
                (ip_network("192.0.2.0/24"), ip_network("2001:db8::1")),
                (ip_network("203.0.113.25"),),
                (25, 587),
                ("*.bank.example", "none"),
            ),
            "pass client=192.0.2.0/24,2001:db8::1 server=203.0.113.25 port=25,587 name=*.bank.example,none",
        ),
    ],
)
def test_tls(text: str, rule: TlsRule, shown: str) -> None:
    assert parse_tls(text) == (rule,)
    assert str(rule) == shown
    assert parse_tls(shown) == (rule,)


@pytest.mark.parametrize(
    ("text", "rule", "shown"),
    [
        ("encrypt", UpstreamRule(TlsLevel.ENCRYPT), "encrypt"),
        (
            "secure server=192.0.2.1 port=25 match=MX.example,*.example sni=mx.Example",
            UpstreamRule(TlsLevel.SECURE, (ip_network("192.0.2.1"),), (25,), ("mx.example", "*.example"), "mx.example"),
            "secure server=192.0.2.1 port=25 match=mx.example,*.example sni=mx.example",
        ),
    ],
)
def test_upstream(text: str, rule: UpstreamRule, shown: str) -> None:
    assert parse_upstream(text) == (rule,)
    assert str(rule) == shown
    assert parse_upstream(shown) == (rule,)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "'' is not one of terminate, pass, strip, refuse"),
        ("drop", "'drop' is not one of terminate, pass, strip, refuse"),
        ("pass from=192.0.2.1", "'from=192.0.2.1' is none of client=, server=, port=, name=: separate"),
        ("pass client=192.0.2.1, 192.0.2.2", "client: '' is no network"),
        ("pass client=192.0.2.1 192.0.2.2", "'192.0.2.2' is none of client="),
        ("pass client=192.0.2.1/24", "client: '192.0.2.1/24' is no network"),
        ("pass client=", "client: '' is no network"),
        ("pass client=192.0.2.1 client=192.0.2.2", "client: given twice"),
        ("pass port=0", "port: '0' is no port"),
        ("pass name=a..b", "name: 'a..b' is no pattern"),
        ("pass name=*", "name: '*' is no pattern"),
        ("pass name=mx*.example", "name: 'mx*.example' is no pattern"),
        ("pass name=192.0.2.1", "name: '192.0.2.1' is no pattern"),
        ("pass submission", "submission: only strip has this word"),
        ("strip name=mx.example", "name: not with strip"),
        ("drop port=x", "'drop' is not one of terminate, pass, strip, refuse; port: 'x' is no port"),
    ],
)
def test_what_is_wrong_with_tls(text: str, problem: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the text is compared below)
        parse_tls(text)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("none", "'none' is not one of may, encrypt, dane, verify, secure"),
        ("secure", "secure: write the names that the certificate may have: match=mx.example"),
        ("encrypt match=mx.example", "match: only verify and secure compare names"),
        ("verify match=none", "match: none is no name of a certificate"),
        ("verify sni=mx", "sni: 'mx' is no name of a server"),
        ("verify sni=192.0.2.1", "sni: '192.0.2.1' is no name of a server"),
        ("may client=192.0.2.1", "'client=192.0.2.1' is none of server=, port=, match=, sni="),
    ],
)
def test_what_is_wrong_with_upstream(text: str, problem: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the text is compared below)
        parse_upstream(text)
    assert problem in str(caught.value)


@given(st.text(max_size=60) | st.text(max_size=40).map(lambda text: f"pass {text}"))
@PROPERTY
def test_any_text_is_a_rule_or_a_problem(text: str) -> None:
    for parse in (parse_tls, parse_upstream):
        with suppress(ValueError):
            (rule,) = parse(text)
            assert parse(str(rule)) == (rule,)
