"""docs/architecture.md tells what becomes of each keyword of EHLO as the table does."""

from __future__ import annotations

import re
from pathlib import Path

from proxsmtp_tp.smtp.capabilities import EXTENSIONS

PAGE = (Path(__file__).parents[3] / "docs/architecture.md").read_text("utf-8")


def test_the_table_of_extensions() -> None:
    told = re.findall(r"^\| (\S+) \| (stays|goes) \| (.+) \|$", PAGE, re.MULTILINE)
    meant = [(keyword.decode(), "stays" if row.stays else "goes", row.why) for keyword, row in EXTENSIONS.items()]
    assert told == meant
