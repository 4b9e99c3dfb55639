"""FilterReject as a reply."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxsmtp_tp.config.settings import Settings
from proxsmtp_tp.filters.reject import parse_reject


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        (Settings().filter_reject, b"530 Email Rejected\r\n"),
        ("451 4.7.1 later", b"451 4.7.1 later\r\n"),
        ("just text", b"550 Content Rejected; just text\r\n"),
        ("250 gone", b"550 Content Rejected; 250 gone\r\n"),
        ("250", b"550 Content Rejected; 250\r\n"),
        ("421 closing", b"451 closing\r\n"),
        ("550 first\n550 second", b"550 first 550 second\r\n"),
        ("530 für", b"530 f?r\r\n"),
    ],
)
def test_written_like_a_last_line(text: str, reply: bytes) -> None:
    assert parse_reject(text).wire == reply


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=600))
def test_any_text_refuses(text: str) -> None:
    reply = parse_reject(text)
    assert reply.negative
    assert reply.wire.count(b"\n") == 1
    assert reply.code != 421
