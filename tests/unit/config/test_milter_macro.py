"""The directives Hostname and MilterMacro."""

from __future__ import annotations

import pytest

from proxsmtp_tp.config.values import parse_hostname, parse_milter_macro


@pytest.mark.parametrize(
    ("text", "macro"),
    [
        ("daemon_name gateway.example", ("{daemon_name}", "gateway.example")),
        ("{daemon_name} \t a b %i # c", ("{daemon_name}", "a b %i # c")),
        ("j gateway.example", ("j", "gateway.example")),
        ("_ %i%l%s%%x", ("_", "%i%l%s%%x")),
    ],
)
def test_milter_macro(text: str, macro: tuple[str, str]) -> None:
    assert parse_milter_macro(text) == (macro,)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is no name of a macro"),
        ("{} x", "is no name of a macro"),
        ("a{b x", "is no name of a macro"),
        ("daemon_name", "daemon_name: write its value"),
        ("x caf\xe9", "x: write its value"),
        ("x 100%", "x: % is no placeholder"),
        ("x %%%d", "x: %d is no placeholder"),
        ("rcpt_addr x", "rcpt_addr is about each sender or recipient"),
    ],
)
def test_no_milter_macro(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_milter_macro(text)


def test_hostname() -> None:
    assert parse_hostname("gw-1.example") == "gw-1.example"
    for text in ("", "gw example", "-gw", "gw.", "x" * 256, "gw\u00e4"):
        with pytest.raises(ValueError, match="is no name of a host"):
            parse_hostname(text)
