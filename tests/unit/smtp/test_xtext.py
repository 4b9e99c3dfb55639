"""xtext: RFC 3461 section 4."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.smtp import xtext
from tests.unit.smtp.chunking import PROPERTY


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"", b""),
        (b"mail.example.com", b"mail.example.com"),
        (b"a+b=c d", b"a+2Bb+3Dc+20d"),
        (b"\r\n\0\x7f\xff", b"+0D+0A+00+7F+FF"),
        (b"!~<>", b"!~<>"),
    ],
)
def test_values(value: bytes, text: bytes) -> None:
    assert xtext.encode(value) == text
    assert xtext.decode(text) == value


def test_lower_case_digits_are_read() -> None:
    assert xtext.decode(b"+2b+fF") == b"+\xff"


@pytest.mark.parametrize("text", [b"+", b"+2", b"+2g", b"a=b", b"a b", b"a\n", b"a\0", b"\xff", b"\x7f", b"++2B"])
def test_malformed(text: bytes) -> None:
    with pytest.raises(ValueError, match="not xtext"):
        xtext.decode(text)


@given(st.binary())
@PROPERTY
def test_every_value_comes_back(value: bytes) -> None:
    text = xtext.encode(value)
    assert text.isascii()
    assert not set(text) & set(b" =\r\n\0")
    assert xtext.decode(text) == value


@given(st.binary())
@PROPERTY
def test_any_text_has_a_value_or_is_refused(text: bytes) -> None:
    try:
        value = xtext.decode(text)
    except ValueError:
        return
    assert xtext.decode(xtext.encode(value)) == value
