"""The picture of `proxsmtp-tp top` in docs/top.md: a daemon with mail, and what its terminal shows, as SVG.

    .venv/bin/python -m proxsmtp_tp.lab.isolate .venv/bin/python -m tools.screenshot docs/top.svg

Addresses are those for documentation (RFC 5737), on the loopback interface of the namespace that `isolate` makes.
"""

from __future__ import annotations

import html
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tools.live_mail import COMMAND, LiveMail
from tools.terminal import Terminal

if TYPE_CHECKING:
    import pyte

SERVER = "198.51.100.25"
CLIENTS = {
    "192.0.2.7": (["ann@client.example"], 0.15, 3, 4000),
    "192.0.2.23": (["spam@bot.example", "spam@bot.example", "ann@bot.example"], 0.3, 2, 900),
    "192.0.2.80": (["slow@list.example"], 0.1, 5, 30_000),
    "192.0.2.114": (["later@client.example", "eve@client.example"], 0.8, 1, 1500),
    "203.0.113.9": (["dan@client.example"], 1.5, 1, 60_000),
}
"""By address: senders, seconds between two messages, how many of them at once, octets of a message."""
_SECONDS = 12.0
"""Of mail before the picture is taken: by then each client has sent something."""
_CELL, _LINE, _MARGIN = 8.4, 18, 12  # pixels, for a font of 14 pixels


def main() -> None:
    """Write the picture, and print its text."""
    for address in (SERVER, *CLIENTS):
        subprocess.run(["ip", "address", "replace", f"{address}/32", "dev", "lo"], check=True)
    with tempfile.TemporaryDirectory() as folder:
        mail = LiveMail(Path(folder), SERVER, slow=1.2)
        try:
            screen = _picture(mail)
        finally:
            mail.close()
    Path(sys.argv[1]).write_text(svg(screen))
    print("\n".join(line.rstrip() for line in screen.display))


def _picture(mail: LiveMail) -> pyte.Screen:
    for client, (senders, pause, sessions, size) in CLIENTS.items():
        for _ in range(sessions):
            mail.send(client, senders, pause, size)
    mail.hold("192.0.2.80", b"EHLO list.example\r\n")
    environment = mail.environment | {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
    top = Terminal([str(COMMAND), "top", "-f", str(mail.configuration), "--by", "messages"], environment)
    try:
        end = time.monotonic() + _SECONDS
        while time.monotonic() < end:
            top.read()
        top.until(lambda text: "waiting, the oldest" in text, "messages wait for the filter")
    finally:
        top.close()
    return top.screen


def svg(screen: pyte.Screen) -> str:
    """The screen as a picture: each run of cells that look the same is a text, on a rectangle where it is reversed."""
    width, height = screen.columns * _CELL + 2 * _MARGIN, screen.lines * _LINE + 2 * _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}">',
        f'<rect width="{width:.0f}" height="{height}" rx="6" fill="#1c1f24"/>',
        '<g font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="14" fill="#d7dae0"',
        ' xml:space="preserve">',
    ]
    for number in range(screen.lines):
        cells = [screen.buffer[number][column] for column in range(screen.columns)]
        start = 0
        while start < len(cells):
            look = (cells[start].bold, cells[start].reverse)
            end = start
            while end < len(cells) and (cells[end].bold, cells[end].reverse) == look:
                end += 1
            parts += _run("".join(cell.data for cell in cells[start:end]), look, start, number)
            start = end
    return "\n".join([*parts, "</g>", "</svg>"]) + "\n"


def _run(text: str, look: tuple[bool, bool], column: int, line: int) -> list[str]:
    bold, reverse = look
    x, y = _MARGIN + column * _CELL, _MARGIN + line * _LINE
    parts = []
    if reverse:
        parts.append(f'<rect x="{x:.1f}" y="{y}" width="{len(text) * _CELL:.1f}" height="{_LINE}" fill="#d7dae0"/>')
    if text.strip():
        weight = ' font-weight="bold"' if bold else ""
        fill = ' fill="#1c1f24"' if reverse else ""
        length = f' textLength="{len(text.rstrip()) * _CELL:.1f}"'
        parts.append(f'<text x="{x:.1f}" y="{y + 14}"{length}{weight}{fill}>{html.escape(text.rstrip())}</text>')
    return parts


if __name__ == "__main__":
    main()
