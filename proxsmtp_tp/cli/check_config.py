"""proxsmtp-tp check-config: every problem of a configuration file, with its line, and nothing started.

A file without problems is `ok`, with what it means in a few lines; warnings are on standard error. `--show` and
`--changed` print directives instead, as a file that can be read again.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from proxsmtp_tp.cli import tls_text
from proxsmtp_tp.cli.instances import add_options, choose
from proxsmtp_tp.config.advice import advice
from proxsmtp_tp.config.directives.table import DIRECTIVES
from proxsmtp_tp.config.reader import ConfigError, instance_name, load_config, printable
from proxsmtp_tp.config.settings import FilterType, TransparentProxy
from proxsmtp_tp.filters.plain_command import how_it_runs, how_line_runs

if TYPE_CHECKING:
    import argparse

    from proxsmtp_tp.config.filter_lines import FilterLine
    from proxsmtp_tp.config.settings import Settings

_FROM = {
    TransparentProxy.CLIENT: "this host's address",
    TransparentProxy.FULL: "the client's own address",
}


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `check-config`."""
    parser = subparsers.add_parser("check-config", help="read the configuration file and report every problem")
    add_options(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--show", action="store_true", help="print every directive with the value in force")
    what.add_argument("--changed", action="store_true", help="print the directives that differ from their defaults")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """0: fine (warnings may be printed). 2: there are problems."""
    try:
        path = choose(args.file, args.instance).path
        configuration = load_config(path)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    for warning in configuration.warnings:
        print(f"{printable(path)}:{warning.line}: warning: {warning.text}", file=sys.stderr)
    for text in (*advice(configuration.settings), *_key_problems(path, configuration.settings)):
        print(f"{printable(path)}: warning: {text}", file=sys.stderr)
    if args.show:
        print("\n".join(show(configuration.settings)))
    elif args.changed:
        print("".join(f"{line}\n" for line in changed(configuration.settings, path)), end="")
    else:
        print("\n".join([f"{printable(path)}: ok", *(f"  {line}" for line in in_force(configuration.settings))]))
    return 0


def _key_problems(path: str, settings: Settings) -> list[str]:
    """What is wrong with the files of certificates and keys, as far as this user may read them."""
    if not settings.tls:
        return []
    from proxsmtp_tp.cli.state_files import owners_of  # noqa: PLC0415  (with TLS only: they import much)
    from proxsmtp_tp.service.privileges import groups_of  # noqa: PLC0415
    from proxsmtp_tp.service.tls_keys import problems  # noqa: PLC0415

    return list(problems(settings, groups_of(settings), owners_of(path, settings)))


def show(settings: Settings) -> list[str]:
    """The configuration as the text of a file; directives that are not set are comments."""
    lines = []
    for row in DIRECTIVES:
        value = getattr(settings, row.field)
        absent = value is None or value == () or (row.field == "skip_authenticated" and not value)
        lines.append(f"# {row.name}: {row.shown_default}" if absent else f"{row.name}: {row.kind.show(value)}")
    return [printable(line) for line in lines]


def changed(settings: Settings, path: str) -> list[str]:
    """The directives whose value is not the default, as the file at `path` would say them."""
    defaults = {row.field: row.default for row in DIRECTIVES} | {"instance": instance_name(path)}
    return [
        printable(f"{row.name}: {row.kind.show(getattr(settings, row.field))}")
        for row in DIRECTIVES
        if getattr(settings, row.field) != defaults[row.field]
    ]


def in_force(settings: Settings) -> list[str]:
    """What the configuration means, for people: one printable line each."""
    lines = [
        f"instance {settings.instance}, user {settings.user or 'as started'}",
        f"listens on {_addresses(settings)} for {_clients(settings)}, at most {settings.max_connections} connections",
        f"mail goes to {_server(settings)}",
        f"filter: {_filter(settings)}",
        *tls_text.in_force(settings),
        f"rules: {_rules(settings)}",
    ]
    return [printable(line) for line in lines]


def _addresses(settings: Settings) -> str:
    shown = (f"port {where}, all addresses" if str(where).isdigit() else str(where) for where in settings.listen)
    return "; ".join(shown)


def _clients(settings: Settings) -> str:
    return ", ".join(map(str, settings.clients)) or "everybody"


def _server(settings: Settings) -> str:
    if settings.transparent:
        return f"the server that the client connected to, from {_FROM[settings.transparent_proxy]}"
    if settings.loopback:
        return f"port {settings.out_address} of the client's own address"
    return str(settings.out_address)


def _filter(settings: Settings) -> str:
    if settings.filter_type is FilterType.REJECT:
        return f"all messages are refused: {settings.filter_reject}"
    if settings.filter:
        return "; then ".join(map(_link, settings.filter))
    if settings.filter_command is None:
        return "none, all mail passes"
    how = "" if settings.filter_type is FilterType.SMTP else f", {how_it_runs(settings.filter_command)}"
    return (
        f"{settings.filter_command} ({settings.filter_type.value}, within {settings.filter_timeout:.0f} s,"
        f" at most {settings.filter_processes} at once{how})"
    )


def _link(line: FilterLine) -> str:
    how = how_line_runs(line)
    return f"{line} ({how})" if how else str(line)


def _rules(settings: Settings) -> str:
    where = [
        *(f"interface {name}" for name in settings.rule_interface),
        *(["this host"] if settings.rule_local else []),
    ]
    if not where:
        return "none (RuleInterface)"
    ports = ", ".join(map(str, settings.rule_port))
    return (
        f"{settings.rule_method.value}, {settings.rule_mode.value} port {ports} from {', '.join(where)}"
        f" to {settings.intercept_port}; while the daemon is down, mail"
        f" {'is refused' if settings.rule_fail.value == 'closed' else 'passes unfiltered'} (RuleFail"
        f" {settings.rule_fail.value})"
    )
