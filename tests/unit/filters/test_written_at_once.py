"""A message of usual size is written to a filter at once: each write(2) wakes the process that reads it."""

from __future__ import annotations

import asyncio
from asyncio import selector_events
from typing import TYPE_CHECKING

import pytest

from proxsmtp_tp.filters.mail import CHUNK, joined
from tests.unit.filters.member_harness import TEXT, judge, server

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], []),
        ([10, 0, 20], [30]),
        ([10, CHUNK, CHUNK, 5], [10 + CHUNK, CHUNK, 5]),
        ([CHUNK // 2, 1], [CHUNK // 2, 1]),
        ([1] * CHUNK, [CHUNK // 2] * 2),
    ],
)
def test_joined(sizes: list[int], expected: list[int]) -> None:
    pieces = [bytes([at % 256]) * size for at, size in enumerate(sizes)]
    found = list(joined(pieces))
    assert b"".join(found) == b"".join(pieces)
    assert [len(piece) for piece in found] == expected


OPTIONS = b"\0\0\0\x0dO\0\0\0\x06\0\0\0\0\x00\x0f\xf0\x80"
"""Version 6, no action, no reply to any event."""
ACCEPT = b"\0\0\0\x01a"


def test_milter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a filter that answers only at the end: the options, all events, QUIT."""
    written: list[bytes] = []
    write = selector_events._SelectorSocketTransport.write  # type: ignore[attr-defined]  # of both sides

    def watched(transport: asyncio.WriteTransport, data: bytes) -> None:
        if data not in {OPTIONS, ACCEPT}:
            written.append(bytes(data))
        write(transport, data)

    async def filter_(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(17)
        writer.write(OPTIONS)
        text = b""
        while b"\0\0\0\x01E" not in text:
            text += await reader.read(65536)
        writer.write(ACCEPT)
        await reader.read()

    async def main() -> None:
        async with server(tmp_path / "milter", filter_) as address:
            assert (await judge(f"m milter {address}", TEXT, str(tmp_path))).text == TEXT

    monkeypatch.setattr("asyncio.selector_events._SelectorSocketTransport.write", watched)
    asyncio.run(main())
    assert len(written) == 3
    assert b"Good morning." in written[1]
    assert written[1].endswith(b"\0\0\0\x01E")
