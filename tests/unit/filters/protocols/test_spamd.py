"""spamd's protocol: requests, and the score in an answer."""

from __future__ import annotations

import pytest

from proxsmtp_tp.filters.protocols.answers import Head
from proxsmtp_tp.filters.protocols.errors import ProtocolError
from proxsmtp_tp.filters.protocols.spamd import Score, parse_head, request_head


def head(spam: bytes | None, start: bytes = b"SPAMD/1.1 0 EX_OK") -> Head:
    return Head(start, ((b"spam", spam),) if spam is not None else ())


def test_request() -> None:
    assert request_head(b"CHECK", 12, "") == b"CHECK SPAMC/1.5\r\nContent-length: 12\r\n\r\n"
    assert request_head(b"PROCESS", 0, "bob") == b"PROCESS SPAMC/1.5\r\nContent-length: 0\r\nUser: bob\r\n\r\n"


@pytest.mark.parametrize(
    ("spam", "score"),
    [
        (b"True ; 15.0 / 5.0", Score(spam=True, score=15.0, required=5.0)),
        (b"False ; -1.9 / 5.0", Score(spam=False, score=-1.9, required=5.0)),
        (b"Yes;1000 / 5", Score(spam=True, score=1000.0, required=5.0)),
    ],
)
def test_scores(spam: bytes, score: Score) -> None:
    assert parse_head(head(spam)) == score


def test_score_as_text() -> None:
    assert str(Score(spam=True, score=15.04, required=5.0)) == "Yes, score=15.0 required=5.0"


@pytest.mark.parametrize(
    ("spam", "start"),
    [
        (None, b"SPAMD/1.1 0 EX_OK"),
        (b"maybe ; 1 / 5", b"SPAMD/1.1 0 EX_OK"),
        (b"True ; nan / 5", b"SPAMD/1.1 0 EX_OK"),
        (b"True", b"SPAMD/1.1 0 EX_OK"),
        (b"False ; 0.0 / 5.0", b"SPAMD/1.1 76 Bad header line: x"),
        (b"False ; 0.0 / 5.0", b"SPAMD/1.1 79 Timeout: x"),
        (b"False ; 0.0 / 5.0", b"HTTP/1.1 200 OK"),
        (b"False ; 0.0 / 5.0", b""),
    ],
)
def test_what_is_no_score(spam: bytes | None, start: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_head(head(spam, start))
