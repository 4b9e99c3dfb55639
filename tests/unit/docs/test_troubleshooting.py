"""docs/troubleshooting.md: every log line of the program is explained, and no other; its commands exist."""

from __future__ import annotations

import re

from proxsmtp_tp.cli.main import SUBCOMMANDS
from tests.unit.docs import log_lines

# These log texts that were made elsewhere: problems and warnings of the configuration, which check-config prints, too;
# errors of LOGGED_ERRORS; summaries of the log limit; facts of telemetry.log_lines; lines of sessions.
PASSED_ON = {
    "filters.smtp._judged",
    "net.opening._refuse",
    "net.proxy._tell_left_out",
    "net.reporting._write",
    "service.detaching.failed",
    "service.launch._prepare",
    "service.master._not_used",
    "service.reload.read_again",
    "session.dialogue.log",
    "session.dialogue.log_once",
    "session.session.refuse",
}


def test_every_log_line_is_explained() -> None:
    rows = "\n".join(log_lines.missing())
    assert not rows, f"add to a table under `## Log lines` in docs/troubleshooting.md, one row a line:\n{rows}"


def test_every_line_that_is_explained_is_written() -> None:
    rows = "\n".join(log_lines.unknown())
    assert not rows, f"no code writes these lines (any more, or at this level): change docs/troubleshooting.md\n{rows}"


def test_texts_that_are_passed_on() -> None:
    new = sorted(log_lines.passed_on() - PASSED_ON)
    assert not new, (
        f"{new} log a text that is made elsewhere, and this test cannot read it: log a text with the value in it"
        " (log.warning('what happened: %s', value)), or add them to PASSED_ON and their texts to the page"
    )
    assert sorted(PASSED_ON - log_lines.passed_on()) == []


def test_the_collector_sees_the_forms_that_are_used() -> None:
    """One line of each form: if a form changes, its lines would be missing without a failure."""
    found = log_lines.wanted()
    for text, level in (
        ("more than MaxConnections (..): .. connections refused; clients with most: ..", "error"),  # log.error with %d
        ("the new configuration is in force", "notice"),  # log.log(NOTICE, ..)
        ("no connection to the server: ..", "warning"),  # d.log with an f-string
        ("accepted connection from: ..", "info"),  # reporting.say
        ("LHLO is refused: only SMTP is supported, not LMTP", "warning"),  # d.log_once
        ("RuleFail open: the daemon stops: mail passes unfiltered until it is back", "error"),  # a parameter
        ("the server closed the connection before its greeting", "warning"),
        ("refused: its address is not in Clients", "warning"),  # session.refuse
        ("unable to completely drop privileges: root can be regained", "critical"),  # an error that is logged
    ):
        assert found.get(text) == level, text


def test_its_commands_exist() -> None:
    page = log_lines.PAGE.read_text("utf-8")
    named = set(re.findall(r"proxsmtp-tp ([a-z]+-?[a-z-]*)", page)) - {"for"}
    assert named <= set(SUBCOMMANDS), "docs/troubleshooting.md names commands that do not exist"
