"""What servers, scanners, other programs and files say is printed without control characters."""

from __future__ import annotations

import argparse

import pytest

from proxsmtp_tp.cli import doctor_actions, rule_actions, service
from proxsmtp_tp.gateway.doctor.findings import Finding
from proxsmtp_tp.gateway.doctor.fixes import Fix

HOSTILE = "550 go away\x1b[2J\nok     daemon: all is well\x9b\u202e"
SHOWN = "550 go away\\x1b[2J\\nok     daemon: all is well\\x9b\\u202e"


def test_doctor_quotes_what_others_said(capsys: pytest.CaptureFixture[str]) -> None:
    finding = Finding("daemon", ok=False, text=HOSTILE, fix=Fix(HOSTILE))
    assert doctor_actions._say(argparse.Namespace(json=False), [finding]) == [finding]
    assert capsys.readouterr().out == f"WRONG  daemon: {SHOWN}\n       fix: {SHOWN}\n"


@pytest.mark.parametrize("complain", [doctor_actions._complain, rule_actions._complain, service._complain])
def test_errors_that_quote_others_are_one_printable_line(complain: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert complain([HOSTILE], 1) == 1  # type: ignore[operator]
    assert capsys.readouterr().err == f"proxsmtp-tp: {SHOWN}\n"
