"""Limits per time and the duration of locks, as the file writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.config.rates import ClientLimit, LockDuration, LockReply, RateLimit, parse_lock_duration, parse_rate
from proxsmtp_tp.config.reader import ConfigError, parse_config

BASE = b"OutAddress: 192.0.2.1\n"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("500/1h", RateLimit(500, 3600, 500)),
        ("500/h burst 100", RateLimit(500, 3600, 100)),
        ("60/1m  burst 30\tshadow", RateLimit(60, 60, 30, shadow=True)),
        ("5/10M SHADOW", RateLimit(5, 600, 5, shadow=True)),
        ("1/1s", RateLimit(1, 1, 1)),
        ("2000/1d", RateLimit(2000, 86400, 2000)),
        ("off", None),
        ("0", None),
    ],
)
def test_rates(text: str, value: RateLimit | None) -> None:
    assert parse_rate(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "500", "500/", "500/1", "500/1w", "/1h", "-1/h", "1.5/h", "0/1h", "5/0h", "5/1h burst 0", "5/1h burst",
     "5/1h shadow burst 3", "5 / 1h", "5/1h 5", "1/1d burst 1000", "9999999999/1s"],
)  # fmt: skip
def test_the_error_of_a_wrong_rate_shows_a_right_one(text: str) -> None:
    with pytest.raises(ValueError, match=r"write|lower"):
        parse_rate(text)


@given(st.integers(1, 10**6), st.integers(1, 86400), st.integers(1, 300), st.booleans())
def test_a_rate_is_shown_as_it_may_be_written(count: int, period: int, burst: int, shadow: bool) -> None:
    rate = RateLimit(count, period, burst, shadow)
    assert parse_rate(str(rate)) == rate


@pytest.mark.parametrize(
    ("text", "value", "shown"),
    [
        ("15m x2 max 1d", LockDuration(900, 2, 86400), "15m x2 max 1d"),
        ("1h", LockDuration(3600, 1, 3600), "1h x1 max 1h"),
        ("1h x3", LockDuration(3600, 3, 86400), "1h x3 max 1d"),
        ("2d x2", LockDuration(172800, 2, 172800), "2d x2 max 2d"),
        ("90s x2 max 3h", LockDuration(90, 2, 10800), "90s x2 max 3h"),
    ],
)
def test_durations(text: str, value: LockDuration, shown: str) -> None:
    assert parse_lock_duration(text) == value
    assert str(value) == shown
    assert parse_lock_duration(shown) == value


@pytest.mark.parametrize("text", ["", "15", "x2", "15m x0", "15m max 10m", "0m", "99999d", "15m x2 max", "1w"])
def test_the_error_of_a_wrong_duration_shows_a_right_one(text: str) -> None:
    with pytest.raises(ValueError, match=r"write|must be"):
        parse_lock_duration(text)


def test_a_lock_grows_up_to_its_maximum() -> None:
    grows = LockDuration(900, 2, 86400)
    assert [grows.seconds(earlier) for earlier in range(9)] == [
        900,
        1800,
        3600,
        7200,
        14400,
        28800,
        57600,
        86400,
        86400,
    ]
    assert grows.seconds(10**6) == 86400
    assert LockDuration(60, 1, 60).seconds(5) == 60


def test_all_are_off_by_default_and_lists_add_up() -> None:
    settings = parse_config(BASE, "x").settings
    rates = ("connection_rate", "servers", "messages", "recipients", "rejects", "spam")
    assert all(getattr(settings, f"client_{name}") is None for name in rates)
    assert settings.lock_on == ()
    assert (settings.client_ipv4_prefix, settings.client_ipv6_prefix) == (32, 64)
    lines = (
        b"ClientRejects: 5/1m\nClientSpam: 5/1m\nLockOn: clientspam\nLockOn: ClientRejects ClientSpam\nLockReply: 554\n"
    )
    settings = parse_config(BASE + lines, "x").settings
    assert settings.lock_on == (ClientLimit.SPAM, ClientLimit.REJECTS)
    assert settings.lock_reply is LockReply.REFUSED


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"LockOn: spam", "'spam' is not one of ClientConnectionRate, "),
        (b"LockOn: ClientSpam", "LockOn: ClientSpam is off: nothing would lock"),
        (b"LockOn: ClientSpam\nClientSpam: 5/1h shadow", "LockOn: ClientSpam is in shadow form: it does not lock"),
        (b"ClientConnections: 20/1m", "'20/1m' is no limit: write a number such as 20"),
        (b"LockReply: 550", "'550' is not one of 421, 554"),
        (b"ClientMessages: many", "'many' is no limit"),
        (b"ClientIPv4Prefix: 33", "from 8 to 32"),
        (b"ClientServers: 2000/1h", "ClientServers: at most 500"),
    ],
)
def test_what_cannot_work_is_said(line: bytes, words: str) -> None:
    try:
        found = parse_config(BASE + line + b"\n", "x").warnings
    except ConfigError as error:
        found = tuple(error.problems)
    assert any(words in str(problem) for problem in found), found
