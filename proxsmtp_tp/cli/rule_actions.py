"""What install-rules, remove-rules and check-rules do and print."""

from __future__ import annotations

import json
import select
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from proxsmtp_tp.cli.instances import Instance, InstanceError, choose
from proxsmtp_tp.config.reader import ConfigError, printable, read_config
from proxsmtp_tp.config.settings import Settings
from proxsmtp_tp.gateway import check as checker
from proxsmtp_tp.gateway import confirm, counting, describe, existing, forward, survey
from proxsmtp_tp.gateway import install as installer
from proxsmtp_tp.gateway.errors import GatewayError
from proxsmtp_tp.gateway.options import options_from
from proxsmtp_tp.gateway.plan import PlanError
from proxsmtp_tp.gateway.state import DIRECTORY, Store

if TYPE_CHECKING:
    import argparse

    from proxsmtp_tp.gateway.confirm import Trial
    from proxsmtp_tp.gateway.install import Outcome
    from proxsmtp_tp.gateway.plan import Options, Plan

EXIT_FAILED, EXIT_USAGE = 1, 2
_RETRY_PAUSE = 2.0  # seconds; after that an interface of a VPN may exist, or another program has ended
_FIELDS = (
    "rule_method", "rule_mode", "rule_interface", "rule_source", "rule_except_source",
    "rule_except_destination", "rule_port", "rule_listen_port", "rule_fail", "rule_existing", "rule_forward",
    "rule_local",
)  # fmt: skip


def act(args: argparse.Namespace) -> int:
    """Do what `args.action` says; errors become a line each and an exit status."""
    try:
        return {"install": install, "remove": remove, "check": check}[args.action](args)
    except ConfigError as error:
        return _complain(error.lines(), error.exit_code)
    except PlanError as error:
        return _complain([str(error)], EXIT_USAGE)
    except (GatewayError, OSError) as error:
        return _complain(str(error).splitlines(), EXIT_FAILED)


def install(args: argparse.Namespace) -> int:
    """install-rules."""
    options, store = options_of(args), store_of(args)
    if args.dry_run:
        plan, notes = survey.choose_plan(options, store.read_all())
        print(describe.describe(plan))
        print(describe.changes(plan))
        return _complain([*notes, *map(str, forward.closed(plan))], 0)
    outcome, trial = _install_at_last(args, options, store)
    _complain(outcome.notes, 0)
    print(f"rules of instance {options.instance}: {'installed' if outcome.changed else 'already in place'}", flush=True)
    return 0 if trial is None else _await_confirmation(options.instance, store, trial)


def _install_at_last(args: argparse.Namespace, options: Options, store: Store) -> tuple[Outcome, Trial | None]:
    """Install; with --retry, repeat what may work later. Each new reason is printed once."""
    end, told = time.monotonic() + args.retry, ""
    while True:
        try:
            if args.confirm is None:
                return installer.install(options, store, or_refuse_mail=args.or_refuse_mail), None
            return confirm.install_on_trial(options, store, args.confirm)
        except (GatewayError, OSError) as error:
            if time.monotonic() + _RETRY_PAUSE > end:
                raise
            if str(error) != told:
                told = str(error)
                _complain([*told.splitlines(), "trying again"], 0)
            time.sleep(_RETRY_PAUSE)


def _await_confirmation(instance: str, store: Store, trial: Trial) -> int:
    """Ask for a confirmation until the deadline. Without a terminal, print how to confirm."""
    how = "confirm with the same install-rules without --confirm"
    if not sys.stdin.isatty():
        print(f"they are undone in {trial.remaining:.0f} s: {how}")
        return 0
    print(
        f'they are undone in {trial.remaining:.0f} s. Open a new connection to this host, then type "yes" here',
        flush=True,
    )
    while trial.remaining > 0 and confirm.wanted(instance, store, trial.token):
        if not select.select([sys.stdin], [], [], min(1.0, max(0.0, trial.remaining)))[0]:
            continue
        answer = sys.stdin.readline()
        if answer.strip().lower() in {"y", "yes"} and confirm.confirm(instance, store, trial.token):
            print("confirmed")
            return 0
        if answer.strip().lower() in {"n", "no"}:
            confirm.undo(instance, store, trial.token)
        if not answer:
            break  # the terminal is closed, or Ctrl-D was typed: the watchdog undoes the rules
    return _complain([f"not confirmed: the rules are undone, or will be at the deadline; {how}"], EXIT_FAILED)


def remove(args: argparse.Namespace) -> int:
    """remove-rules: works without a configuration file."""
    store = store_of(args)
    others = sorted(store.read_all())
    instance = _named(args)
    if args.dry_run:
        left = installer.leftovers(instance, store)
        print("\n".join(f"would remove: {printable(line)}" for line in left) or "nothing is there")
        return 0
    outcome = installer.remove(instance, store)
    _complain(outcome.notes, 0)
    print(f"rules of instance {instance}: {'removed' if outcome.changed else 'there were none'}")
    return 0 if outcome.changed else _complain(_with_rules(others), 0)


def check(args: argparse.Namespace) -> int:
    """check-rules."""
    options, store = options_of(args), store_of(args)
    survey.require_root()
    finding, notes, plan = checker.look(options, store)
    if finding.refuses_mail:
        notes += _why_refused(plan)
    unfiltered = existing.connections(plan)
    counted = counting.read(options.instance, store)
    if args.json:
        answer = {"instance": options.instance, "state": finding.word, "differences": finding.differences}
        answer |= {"notes": notes, "existing": options.existing.value, "unfiltered": unfiltered}
        print(json.dumps(answer | {"packets": counted.report() if counted else None}))
    else:
        notes += [line] if (line := existing.sentence(plan, unfiltered)) else []
        lines = [f"rules of instance {options.instance}: {finding.word}", *finding.differences]
        print("\n".join(map(printable, [*lines, *(counted.lines() if counted else [])])))
        _complain(notes, 0)
    return 0 if finding.in_place else EXIT_FAILED


def _why_refused(plan: Plan) -> list[str]:
    try:
        found = [f"{item}: interception would let it pass" for item in forward.closed(plan)]
    except GatewayError as error:
        return [str(error)]
    return found or ["nothing prevents the rules any more: install-rules"]


def options_of(args: argparse.Namespace) -> Options:
    """The options of the plan, from the configuration file and the command line."""
    overrides = {name: getattr(args, name) for name in _FIELDS}
    return options_from(settings_of(args), {n: tuple(v) if isinstance(v, list) else v for n, v in overrides.items()})


def settings_of(args: argparse.Namespace) -> Settings:
    """The configuration file. An instance without one is known by its rules, or made by the options alone.

    Raises ConfigError.
    """
    chosen = chosen_of(args)
    if args.file is None and not Path(chosen.path).exists():
        return Settings(instance=chosen.name)
    return read_config(chosen.path)


def _named(args: argparse.Namespace) -> str:
    """The instance. A missing or damaged file also gives its name."""
    chosen = chosen_of(args, file_needed=False)
    if args.file is not None:
        try:
            read_config(chosen.path)
        except ConfigError as error:
            _complain([*error.lines(), f"taking the name that the file gives: {chosen.name}"], 0)
    return chosen.name


def chosen_of(args: argparse.Namespace, *, file_needed: bool = True) -> Instance:
    """The instance that the options mean. No file is needed if the options define all rules, or if rules are installed.

    Raises InstanceError, which also names the instances that have rules.
    """
    with_rules = sorted(store_of(args).read_all())
    file_needed = file_needed and not (args.rule_interface or args.rule_local or args.instance in with_rules)
    try:
        return choose(args.file, args.instance, file_needed=file_needed)
    except InstanceError as error:
        raise InstanceError("; ".join([*error.lines(), *_with_rules(with_rules)]), error.exit_code) from None


def _with_rules(names: list[str]) -> list[str]:
    return [f"instances that have rules: {', '.join(names)}"] if names else []


def store_of(args: argparse.Namespace) -> Store:
    """The state files of the rules."""
    return Store(args.state_dir or DIRECTORY)


def _complain(lines: list[str], status: int) -> int:
    for line in lines:
        print(f"proxsmtp-tp: {printable(line)}", file=sys.stderr)
    return status
