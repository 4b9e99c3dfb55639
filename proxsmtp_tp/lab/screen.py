"""Text for people: the demo's pages. Colour only on a terminal, and not where NO_COLOR is set (no-color.org)."""

from __future__ import annotations

import os
from typing import TextIO

WIDTH = 96
LABEL = 9

_PLAIN = "\033[0m"
_COLOURS = {
    "sender": "\033[36m",
    "gateway": "\033[33m",
    "mx": "\033[35m",
    "good": "\033[32m",
    "bad": "\033[1;31m",
    "strong": "\033[1m",
    "quiet": "\033[2m",
}


def wants_colour(stream: TextIO) -> bool:
    """Whether the stream is a terminal with colours, and NO_COLOR is not set."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def printable(text: str) -> str:
    """One line without anything that a terminal could take for a command."""
    return "".join(c if c.isprintable() else "?" for c in text)


class Screen:
    """Writes lines and flushes each, so that the output is up to date."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._colour = wants_colour(stream)

    def paint(self, style: str, text: str) -> str:
        """`text` in a style of the table above."""
        return f"{_COLOURS[style]}{text}{_PLAIN}" if self._colour else text

    def line(self, text: str = "") -> None:
        """Write a line unchanged. If the reader has closed the pipe (`| head`), discard the output and go on."""
        try:
            print(text, file=self._stream, flush=True)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def title(self, text: str) -> None:
        """The beginning of a part."""
        self.line()
        self.line(self.paint("strong", "━" * WIDTH))
        self.line(f"   {text}")

    def quiet(self, text: str) -> None:
        """A line of a file, or a command that was typed."""
        self.line(f"     {self.paint('quiet', text)}".rstrip())

    def hop(self, host: str, text: str) -> None:
        """What one host saw."""
        self.line(f"     {self.paint(host, host.ljust(LABEL))}{text}")

    def more(self, text: str) -> None:
        """A second line of the same host."""
        self.line(" " * (5 + LABEL) + text)
