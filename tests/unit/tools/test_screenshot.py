"""The picture in docs/top.md: it shows the program as it is."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pyte

from proxsmtp_tp.cli.top_rows import COLUMNS
from tools.screenshot import svg

PICTURE = Path(__file__).parents[3] / "docs/top.svg"
MAKE = "make docs/top.svg again (tools/screenshot.py)"


def texts(picture: str) -> list[str]:
    root = ET.fromstring(picture)
    return [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]


def test_the_picture_has_the_columns_of_the_program() -> None:
    found = texts(PICTURE.read_text())
    header = next(text for text in found if text.startswith("CLIENT"))
    assert header.split() == [column.title for column in COLUMNS["clients"]], MAKE
    for start in (
        "connections",
        "messages",
        "replies to messages",
        "recipients",
        "filters",
        "verdicts",
        "mean seconds",
    ):
        assert any(text.startswith(start) for text in found), MAKE


def test_the_page_explains_each_column() -> None:
    page = PICTURE.with_suffix(".md").read_text()
    explained = set(re.findall(r"[A-Z0-9]+(?:/S)?", " ".join(re.findall(r"^\| ([A-Z0-9/, ]+) \|", page, re.MULTILINE))))
    words = {"CLIENT", "SERVER", "ID", "MSGS", "ENVELOPE"}  # their names say it
    titles = {column.title for columns in COLUMNS.values() for column in columns}
    assert titles - words <= explained


def test_a_screen_becomes_a_picture() -> None:
    screen = pyte.Screen(12, 2)
    pyte.Stream(screen).feed("a<b \x1b[1mbold\x1b[0m\r\n\x1b[7mrow\x1b[0m")
    picture = svg(screen)
    assert texts(picture) == ["a<b", "bold", "row"]
    assert picture.count('font-weight="bold"') == 1
    assert picture.count("<rect") == 2
