"""A program in a terminal of its own (pty(7)), and what its screen shows: for tests and screenshots.

The screen is pyte's, which understands what ncurses writes for TERM=linux and xterm.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pyte

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

WAIT_SECONDS = 60.0
"""Seconds that each wait may take on a busy machine."""


class Terminal:
    """Runs the command until `close`. `size`: lines, columns."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], size: tuple[int, int] = (24, 80)
    ) -> None:
        self.screen = pyte.Screen(size[1], size[0])
        self._stream = pyte.ByteStream(self.screen)
        self.raw = bytearray()
        """All that the program wrote."""
        self._master, slave = pty.openpty()
        _set_size(slave, size)
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={name: value for name, value in environment.items() if name not in {"LINES", "COLUMNS"}},
            preexec_fn=_own_terminal,  # noqa: PLW1509  (it calls the kernel only)
        )
        os.close(slave)

    @property
    def text(self) -> str:
        """What the screen shows."""
        return "\n".join(line.rstrip() for line in self.screen.display)

    @property
    def lines(self) -> list[str]:
        """The same, by line."""
        return [line.rstrip() for line in self.screen.display]

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def resize(self, lines: int, columns: int) -> None:
        """Change the size, as when a window is resized."""
        self.screen.resize(lines, columns)
        _set_size(self._master, (lines, columns))
        self.process.send_signal(signal.SIGWINCH)

    def read(self, seconds: float = 0.2) -> bool:
        """Read what the program writes within this time. False: it has closed the terminal."""
        if not select.select([self._master], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self._master, 65536)
        except OSError:  # EIO: no process has the terminal any more
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)

    def until(self, what: Callable[[str], object], why: str = "") -> str:
        """The text of the screen, as soon as `what` is true of it. Raises AssertionError with the screen."""
        end = time.monotonic() + WAIT_SECONDS
        while not what(self.text):
            open_ = self.read()
            if not open_ and not what(self.text):
                raise AssertionError(f"the program has ended: {why}\n{self.text}")
            if time.monotonic() > end:
                raise AssertionError(f"{why or 'it did not happen'}\n{self.text}")
        return self.text

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        while self.read():
            if self.process.poll() is not None:
                break
        return self.process.wait(WAIT_SECONDS)

    def hang_up(self) -> None:
        """Close the terminal, as when an ssh connection breaks."""
        os.close(self._master)
        self._master = -1

    def close(self) -> None:
        """End the program."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self._master >= 0:
            with suppress(OSError):
                os.close(self._master)


def _own_terminal() -> None:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _set_size(descriptor: int, size: tuple[int, int]) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
