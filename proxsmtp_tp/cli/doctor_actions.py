"""What doctor does and prints."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxsmtp_tp.cli import doctor_tls
from proxsmtp_tp.cli.daemon import NoAnswerError, ask_daemon
from proxsmtp_tp.cli.doctor_daemon import FILTER_ASKER, announce, may_be_a_filters, status_of
from proxsmtp_tp.cli.rule_actions import EXIT_FAILED, EXIT_USAGE, chosen_of, options_of, settings_of, store_of
from proxsmtp_tp.cli.service_units import capabilities
from proxsmtp_tp.config.reader import ConfigError, printable
from proxsmtp_tp.gateway.doctor import examination
from proxsmtp_tp.gateway.doctor.findings import Finding, State
from proxsmtp_tp.gateway.doctor.steps import Step
from proxsmtp_tp.gateway.errors import GatewayError
from proxsmtp_tp.gateway.plan import PlanError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from proxsmtp_tp.config.settings import Settings
    from proxsmtp_tp.gateway.plan import Options

_PROBE_SECONDS = 300.0
"""Seconds. A probe takes less: the time limits of the daemon apply to its mails."""

_LABELS = {state: f"{state.value:<5}" for state in State}


def act(args: argparse.Namespace) -> int:
    """Examine; errors of usage become a line each and an exit status."""
    try:
        found = _examine(args)
    except ConfigError as error:
        return _complain(error.lines(), error.exit_code)
    except PlanError as error:
        return _complain([str(error)], EXIT_USAGE)
    except GatewayError as error:
        return _complain(str(error).splitlines(), EXIT_FAILED)
    well = is_well(found)
    if args.json:
        print(json.dumps({"ok": well, "summary": summary(found), "findings": [as_json(item) for item in found]}))
    else:
        print(summary(found))
    return 0 if well else EXIT_FAILED


def _examine(args: argparse.Namespace) -> list[Finding]:
    """Print the findings as they come. A configuration file with errors is one; raises ConfigError if there is none."""
    try:
        settings = settings_of(args)
    except ConfigError as error:
        if not Path(error.path).is_file():
            raise
        return _say(args, _of_a_wrong_file(chosen_of(args).name, error))
    setup = examination.setup_of(settings, chosen_of(args).path, _options(args, settings), store_of(args))
    setup = replace(
        setup,
        status=partial(status_of, settings.instance),
        may_be_a_filters=may_be_a_filters,
        filter_asker=FILTER_ASKER,
        announce=partial(announce, settings.instance),
        needs=tuple(capabilities(settings)),
        authorities=partial(doctor_tls.authorities, chosen_of(args).path, settings),
    )
    waiting = None if args.json else _tell_waiting
    look = partial(doctor_tls.examine, chosen_of(args).path, settings)
    tls = Step("TLS", look, setup.step_seconds)  # it runs beside the others
    found = _say(args, examination.examine(setup, waiting))
    found += _say(args, tls.findings(waiting))
    if args.probe:
        _expect_probe(args, _PROBE_SECONDS)
        found += _say(args, examination.send_probe(setup, waiting))
        _expect_probe(args, 1.0)
    return found


def _options(args: argparse.Namespace, settings: Settings) -> Options:
    """Raises PlanError."""
    if settings.intercept_port is not None or args.rule_interface or args.rule_local:
        return options_of(args)
    return examination.options_of(settings)


def _of_a_wrong_file(instance: str, error: ConfigError) -> Iterator[Finding]:
    """Findings without a valid configuration: only the daemon can be examined."""
    for line in error.lines():
        yield Finding("configuration", False, line)
    if status_of(instance) is None:
        yield Finding("daemon", False, "it does not run, or does not answer; it does not start with this file")
    else:
        yield Finding("daemon", True, "it runs, with what it read before the file was changed")


def is_well(findings: Iterable[Finding]) -> bool:
    """Whether everything was examined, and nothing is wrong. KEPT is neither wrong nor unseen."""
    return all(finding.state in {State.OK, State.KEPT} for finding in findings)


def summary(findings: list[Finding]) -> str:
    """The last line: `2 of 20 wrong`."""
    count = {state: sum(1 for finding in findings if finding.state is state) for state in State}
    parts = [f"{count[State.WRONG] or 'none'} of {len(findings)} wrong"]
    if count[State.KEPT]:
        parts.append(f"{count[State.KEPT]} kept by the filter")
    if count[State.UNSEEN]:
        parts.append(f"{count[State.UNSEEN]} not seen" + ("" if examination.is_root() else " (run it as root)"))
    return ", ".join(parts)


def as_json(finding: Finding) -> dict[str, Any]:
    """A finding for programs. "mend" is the name that "fix" had in 2.0.0: programs read it."""
    shown = {name: value for name, value in asdict(finding).items() if name != "other"}
    return shown | {"state": finding.state.name.lower(), "mend": finding.fix}


def _expect_probe(args: argparse.Namespace, seconds: float) -> None:
    """Let the daemon keep the sessions of the probe out of its log. Without it they are logged like others."""
    with suppress(NoAnswerError):
        ask_daemon(args, "probe", seconds=seconds)


def _say(args: argparse.Namespace, findings: Iterable[Finding]) -> list[Finding]:
    """Print each finding as it comes: a step may take a second."""
    found = []
    for finding in findings:
        found.append(finding)
        if not args.json:
            print(f"{_LABELS[finding.state]}  {finding.step}: {printable(finding.text)}", flush=True)
            if finding.fix:
                print(f"       fix: {printable(finding.fix)}", flush=True)
    return found


def _tell_waiting(step: str, seconds: float) -> None:
    print(f"       {step} still runs after {seconds:.0f} s", file=sys.stderr, flush=True)


def _complain(lines: list[str], status: int) -> int:
    for line in lines:
        print(f"proxsmtp-tp: {printable(line)}", file=sys.stderr)
    return status
