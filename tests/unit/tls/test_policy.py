"""The table of Tls lines: the first that fits counts, before and after the client's hello."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.config.tls_lines import parse_tls
from proxsmtp_tp.tls.policy import Candidates, Decision, TlsAction, TlsPolicy, name_fits
from tests.unit.smtp.chunking import PROPERTY

CLIENT, SERVER = "192.0.2.7", "203.0.113.25"


def policy(*lines: str) -> TlsPolicy:
    return TlsPolicy([rule for line in lines for rule in parse_tls(line)])


def actions(found: Candidates) -> list[str]:
    return [each.action.value for each in found.decisions]


@pytest.mark.parametrize(
    ("line", "client", "server", "port", "fits"),
    [
        ("pass", "", "", 25, True),
        ("pass client=192.0.2.0/24", CLIENT, SERVER, 25, True),
        ("pass client=192.0.2.0/24", "192.0.3.1", SERVER, 25, False),
        ("pass client=192.0.2.0/24", "2001:db8::1", SERVER, 25, False),
        ("pass client=192.0.2.0/24", "", SERVER, 25, False),
        ("pass client=2001:db8::/32,192.0.2.7", CLIENT, SERVER, 25, True),
        ("pass client=fe80::/10", "fe80::1%eth0", SERVER, 25, True),
        ("pass server=203.0.113.25", CLIENT, SERVER, 25, True),
        ("pass server=203.0.113.26", CLIENT, SERVER, 25, False),
        ("pass server=203.0.113.26", CLIENT, "", 25, False),
        ("pass port=25,587", CLIENT, SERVER, 587, True),
        ("pass port=25,587", CLIENT, SERVER, 2525, False),
        ("pass client=192.0.2.7 server=203.0.113.25 port=25", CLIENT, SERVER, 25, True),
        ("pass client=192.0.2.7 server=203.0.113.25 port=587", CLIENT, SERVER, 25, False),
    ],
)
def test_conditions(line: str, client: str, server: str, port: int, fits: bool) -> None:
    table = policy(line, "strip")
    expected = TlsAction.PASS if fits else TlsAction.STRIP
    decision = table.by_address(client, server, port).certain
    assert decision is not None
    assert decision.action is expected
    assert decision.rule == (line if fits else "strip")


def test_the_first_line_counts() -> None:
    table = policy("terminate client=192.0.2.7", "pass client=192.0.2.0/24", "refuse")
    assert table.decide(CLIENT, SERVER, 25, "mx.example").action is TlsAction.TERMINATE
    assert table.decide("192.0.2.8", SERVER, 25, "").action is TlsAction.PASS
    assert table.decide("192.0.3.8", SERVER, 25, "").action is TlsAction.REFUSE


def test_a_name_may_still_decide() -> None:
    table = policy("pass name=*.bank.example", "refuse name=none", "terminate")
    found = table.by_address(CLIENT, SERVER, 25)
    assert actions(found) == ["pass", "refuse", "terminate"]
    assert found.certain is None
    assert found.keeps_starttls
    assert table.decide(CLIENT, SERVER, 25, "mx.bank.example") == Decision(TlsAction.PASS, "pass name=*.bank.example")
    assert table.decide(CLIENT, SERVER, 25, "").action is TlsAction.REFUSE
    assert table.decide(CLIENT, SERVER, 25, "mx.example") == Decision(TlsAction.TERMINATE, "terminate")


def test_a_name_that_changes_nothing_is_certain() -> None:
    found = policy("terminate name=mx.example", "terminate").by_address(CLIENT, SERVER, 25)
    assert found.certain == Decision(TlsAction.TERMINATE, "terminate name=mx.example")


def test_starttls_is_removed_only_where_every_name_leads_to_strip() -> None:
    assert not policy("strip").by_address(CLIENT, SERVER, 25).keeps_starttls
    assert policy("refuse name=mx.example", "refuse").by_address(CLIENT, SERVER, 25).keeps_starttls
    assert policy("pass name=mx.example", "refuse").by_address(CLIENT, SERVER, 25).keeps_starttls


def test_after_the_hello_nothing_is_stripped() -> None:
    """check-config refuses such a table; even then a session in TLS must not become one in clear."""
    table = policy("pass name=mx.example", "strip")
    assert table.decide(CLIENT, SERVER, 25, "other.example") == Decision(TlsAction.REFUSE, "strip")


def test_submission_is_not_stripped_without_the_keyword() -> None:
    """Rules of the host may intercept port 587 although RulePort does not name it."""
    assert [policy("strip").by_address(CLIENT, SERVER, port).certain for port in (25, 465, 587)] == [
        Decision(TlsAction.STRIP, "strip"),
        Decision(TlsAction.REFUSE, "strip"),
        Decision(TlsAction.REFUSE, "strip"),
    ]
    assert policy("strip submission").by_address(CLIENT, SERVER, 587).certain == (
        Decision(TlsAction.STRIP, "strip submission")
    )


def test_without_a_line_that_fits_nothing_is_done() -> None:
    table = policy("terminate client=192.0.2.7")
    assert table.by_address("192.0.2.8", SERVER, 25).certain == Decision(TlsAction.REFUSE, "")
    assert table.decide("192.0.2.8", SERVER, 25, "").action is TlsAction.REFUSE
    assert actions(policy().by_address(CLIENT, SERVER, 25)) == ["refuse"]


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("mx.example", "mx.example", True),
        ("mx.example", "a.mx.example", False),
        ("mx.example", "", False),
        ("*.example", "mx.example", True),
        ("*.example", "a.mx.example", True),
        ("*.example", "example", False),
        ("*.example", "badexample", False),
        ("*.example", ".example", False),
        ("none", "", True),
        ("none", "none.example", False),
    ],
)
def test_names(pattern: str, name: str, fits: bool) -> None:
    assert name_fits(pattern, name) is fits


LINES = st.sampled_from(
    ["pass", "refuse", "terminate client=192.0.2.7", "pass name=*.example", "refuse name=none", "terminate port=587"]
)


@given(st.lists(LINES, max_size=6), st.sampled_from([25, 587]), st.sampled_from(["", "mx.example", "mx.test"]))
@PROPERTY
def test_the_decision_was_a_candidate(lines: list[str], port: int, name: str) -> None:
    table = policy(*lines)
    found = table.by_address(CLIENT, SERVER, port)
    decision = table.decide(CLIENT, SERVER, port, name)
    assert decision in found.decisions
    assert found.certain is None or found.certain.action is decision.action
