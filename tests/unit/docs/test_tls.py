"""docs/tls.md: its configurations can be used, and it names every action, level and log line as it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from proxsmtp_tp.config.reader import parse_config
from proxsmtp_tp.config.tls_lines import TlsAction, TlsLevel

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/tls.md").read_text("utf-8")
TROUBLESHOOTING = (ROOT / "docs/troubleshooting.md").read_text("utf-8")
EXAMPLES = re.findall(r"(?ms)^```text\n(.*?)^```", PAGE)
LOG_LINES = re.findall(r"the log: `([^`:(]+)", PAGE)


def test_there_are_some() -> None:
    assert len(EXAMPLES) >= 3
    assert len(LOG_LINES) >= 4


@pytest.mark.parametrize("text", EXAMPLES)
def test_an_example_is_accepted(text: str) -> None:
    found = parse_config(f"TransparentProxy: client\n{text}".encode(), "/etc/proxsmtp-tp/gateway.conf")
    assert [each.text for each in found.warnings if not each.text.startswith("Tls: strip: ")] == []


def test_every_action_and_level_has_a_row() -> None:
    rows = re.findall(r"(?m)^\| `(\w+)` \|", PAGE)
    assert rows == [*(action.value for action in TlsAction), *(level.value for level in TlsLevel)]


@pytest.mark.parametrize("line", LOG_LINES)
def test_a_log_line_is_explained(line: str) -> None:
    assert f"`{line}" in TROUBLESHOOTING
