"""What doctor does and prints."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from proxsmtp_tp.cli.rule_actions import EXIT_FAILED, EXIT_USAGE, options_of, settings_of, store_of
from proxsmtp_tp.config.reader import ConfigError, printable
from proxsmtp_tp.gateway import survey
from proxsmtp_tp.gateway.doctor import examination, probe
from proxsmtp_tp.gateway.errors import GatewayError
from proxsmtp_tp.gateway.plan import PlanError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from proxsmtp_tp.gateway.doctor.findings import Finding


def act(args: argparse.Namespace) -> int:
    """Examine; errors of usage become a line each and an exit status."""
    try:
        survey.require_root()
        setup = examination.setup_of(settings_of(args), args.config, options_of(args), store_of(args))
        findings = _say(args, examination.examine(setup))
        if args.probe:
            findings += _say(args, probe.probe(setup))
    except ConfigError as error:
        return _complain(error.lines(), error.exit_code)
    except PlanError as error:
        return _complain([str(error)], EXIT_USAGE)
    except GatewayError as error:
        return _complain(str(error).splitlines(), EXIT_FAILED)
    well = all(finding.ok for finding in findings)
    if args.json:
        # "mend" is the name that "fix" had in 2.0.0: programs read it.
        print(json.dumps({"ok": well, "findings": [asdict(item) | {"mend": item.fix} for item in findings]}))
    return 0 if well else EXIT_FAILED


def _say(args: argparse.Namespace, findings: Iterable[Finding]) -> list[Finding]:
    """Print each finding as it comes: a step may take a second."""
    found = []
    for finding in findings:
        found.append(finding)
        if not args.json:
            print(f"{'ok   ' if finding.ok else 'WRONG'}  {finding.step}: {printable(finding.text)}", flush=True)
            if finding.fix:
                print(f"       fix: {printable(finding.fix)}", flush=True)
    return found


def _complain(lines: list[str], status: int) -> int:
    for line in lines:
        print(f"proxsmtp-tp: {printable(line)}", file=sys.stderr)
    return status
