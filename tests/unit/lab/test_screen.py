"""Colour only on a terminal and only if it is wanted, and no control sequences of others."""

from __future__ import annotations

import io
import os

import pytest

from proxsmtp_tp.lab.screen import Screen, printable, wants_colour


class Terminal(io.StringIO):
    """Says that it is one."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "colour"),
    [
        (Terminal(), {"TERM": "xterm"}, True),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": ""}, True),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {"TERM": "xterm"}, False),
    ],
)
def test_colour(
    stream: io.StringIO, environment: dict[str, str], colour: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert wants_colour(stream) is colour
    Screen(stream).hop("mx", "has it")
    assert ("\033" in stream.getvalue()) is colour
    assert "mx" in stream.getvalue()
    assert "has it" in stream.getvalue()


def test_nothing_drives_the_terminal() -> None:
    assert printable("250 \033[2J\r\n\x9bOk, Grüße") == "250 ?[2J???Ok, Grüße"


def test_a_reader_that_closes_early_is_no_error() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        os.close(reader)
        screen = Screen(stream)
        for _ in range(3):
            screen.line("not read")
