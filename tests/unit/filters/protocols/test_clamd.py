"""clamd's INSTREAM: what is sent, and which answers mean clean, a virus, or neither."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxsmtp_tp.filters.protocols import clamd
from proxsmtp_tp.filters.protocols.clamd import NotScannedError, complete, request, virus
from proxsmtp_tp.filters.protocols.errors import ProtocolError


def test_request() -> None:
    sent = b"".join(request([b"abc", b"de"]))
    assert sent == b"zINSTREAM\0\0\0\0\x03abc\0\0\0\x02de\0\0\0\0"


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b"stream: OK", ""),
        (b"instream(local): OK", ""),
        (b"stream: Eicar-Test-Signature FOUND", "Eicar-Test-Signature"),
        (b"stream: A B\r\x01 FOUND", "A B"),
        (b"instream(127.0.0.1@54321): Win.Test(1ab:34) FOUND", "Win.Test(1ab:34)"),
        (b"stream: OK FOUND", "OK"),
        (b"stream: \x01 FOUND", "a virus without a name"),
    ],
)
def test_answers(line: bytes, name: str) -> None:
    assert virus(line) == name


@pytest.mark.parametrize(
    "line",
    [
        b"INSTREAM size limit exceeded. ERROR",
        b"stream: Heuristics.Limits.Exceeded.MaxFileSize FOUND",
        b"stream: Heuristics.Limits.Exceeded FOUND",
    ],
)
def test_over_a_limit_is_neither_clean_nor_a_virus(line: bytes) -> None:
    with pytest.raises(NotScannedError):
        virus(line)


@pytest.mark.parametrize(
    "line", [b"", b"OK", b"stream: ERROR", b"stream: x lstat() failed. ERROR", b"UNKNOWN COMMAND", b"stream: OKAY"]
)
def test_what_is_no_answer(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        virus(line)


def test_the_end_of_an_answer() -> None:
    assert complete(b"stream: O") is None
    assert complete(b"stream: OK\0") == b"stream: OK"
    with pytest.raises(ProtocolError):
        complete(b"x" * (clamd.LIMIT + 1))


@given(st.one_of(st.binary(), st.binary().map(lambda octets: b"stream: " + octets + b" FOUND")))
def test_nothing_but_ok_is_clean(line: bytes) -> None:
    try:
        name = virus(line)
    except ProtocolError:
        return
    assert name.isprintable()
    assert name or b"OK" in line.upper()
