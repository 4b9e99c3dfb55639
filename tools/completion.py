"""Completion of `proxsmtp-tp` for bash and zsh, made from the parsers of its subcommands.

    python -m tools.completion bash|zsh

Options, their choices, and kinds of values: files, directories, interfaces, and the instances of /etc/proxsmtp-tp. The
kind is read from what help shows for the value (metavar). Also subcommands of subcommands.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field

from proxsmtp_tp.cli import main as cli

PROGRAM = "proxsmtp-tp"
_KINDS = {"FILE": "file", "DIR": "directory"}
_INTERFACES = {"--interface"}
_BASH_VALUES = {
    "file": 'compopt -o filenames; COMPREPLY=($(compgen -f -- "$current"))',
    "directory": 'compopt -o filenames; COMPREPLY=($(compgen -d -- "$current"))',
    "interface": 'COMPREPLY=($(compgen -W "$(ls /sys/class/net)" -- "$current"))',
    "instance": 'COMPREPLY=($(compgen -W "$(_proxsmtp_tp_instances)" -- "$current"))',
    "": "",
}
_ZSH_VALUES = {
    "file": "_files",
    "directory": "_files -/",
    "interface": "_net_interfaces",
    "instance": "_proxsmtp_tp_instances",
    "": " ",
}


@dataclass(slots=True)
class Option:
    """An option, or a positional argument (without `names`)."""

    names: list[str]
    what: str
    takes_value: bool
    metavar: str = ""
    choices: list[str] = field(default_factory=list)
    repeatable: bool = False

    @property
    def kind(self) -> str:
        """What kind of value; empty: any text."""
        if _INTERFACES & set(self.names):
            return "interface"
        if self.metavar == "NAME" and (not self.names or "--instance" in self.names):
            return "instance"
        return _KINDS.get(self.metavar, "")


@dataclass(slots=True)
class Command:
    """A command. `path`: its words without the program's name; none for the program itself."""

    path: tuple[str, ...]
    what: str
    options: list[Option]
    positionals: list[Option]
    commands: list[Command]

    def everything(self) -> list[Command]:
        """This one, and all below it."""
        return [self, *(found for command in self.commands for found in command.everything())]


def program() -> Command:
    """The program with all subcommands."""
    top = _read(cli._parser(""), (), "")
    commands = []
    for name, (_, what) in cli.SUBCOMMANDS.items():
        parsers = {found: parser for found, parser, _ in _subparsers(cli._parser(name))}
        commands.append(_read(parsers[name], (name,), what))
    return Command((), "", top.options, [], commands)


def bash() -> str:
    """The file in bash-completion/completions."""
    top = program()
    paths = [" ".join(command.path) for command in top.everything() if command.path]
    values, words = _bash_cases(top)
    known = " | ".join(f'"{path}"' for path in paths)
    return f"""\
# Completion of {PROGRAM}(8) for bash, written by tools/completion.py.

_proxsmtp_tp_instances() {{
    local file
    for file in /etc/proxsmtp-tp/*.conf; do
        [[ -e $file ]] && basename "$file" .conf
    done
}}

_proxsmtp_tp() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}} command="" word
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case "${{command:+$command }}$word" in
        {known}) command="${{command:+$command }}$word" ;;
        esac
    done
    COMPREPLY=()
    case "$command:$previous" in
{"".join(values)}    esac
    case "$command" in
{"".join(words)}    esac
}}

complete -F _proxsmtp_tp {PROGRAM}
"""


def _bash_cases(top: Command) -> tuple[list[str], list[str]]:
    """Cases of the script: by command and option, the values of the option; by command, its words."""
    values, words = [], []
    for command in top.everything():
        path = " ".join(command.path)
        for option in command.options:
            if option.takes_value:
                patterns = " | ".join(f'"{path}:{name}"' for name in option.names)
                values.append(f"        {patterns})\n            {_bash_value(option)}\n            return ;;\n")
        names = [name for option in command.options for name in option.names]
        first = [below.path[-1] for below in command.commands]
        more = "".join(f"\n            {_bash_value(option, '+')}" for option in command.positionals)
        reply = f'COMPREPLY=($(compgen -W "{" ".join([*first, *names])}" -- "$current"))'
        words.append(f'        "{path}")\n            {reply}{more} ;;\n')
    return values, words


def zsh() -> str:
    """The file in zsh/vendor-completions."""
    top = program()
    functions = "\n".join(_zsh_function(command) for command in top.everything())
    return f"""\
#compdef {PROGRAM}
# Completion of {PROGRAM}(8) for zsh, written by tools/completion.py.

_proxsmtp_tp_instances() {{
    local -a instances=(/etc/proxsmtp-tp/*.conf(N:t:r))
    compadd -a instances
}}

{functions}
_proxsmtp_tp "$@"
"""


def _subparsers(parser: argparse.ArgumentParser) -> list[tuple[str, argparse.ArgumentParser, str]]:
    found = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            found += [(name, below, helps.get(name, "")) for name, below in action.choices.items()]
    return found


def _read(parser: argparse.ArgumentParser, path: tuple[str, ...], what: str) -> Command:
    options: list[Option] = []
    positionals: list[Option] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) or action.help == argparse.SUPPRESS:
            continue
        takes = action.nargs != 0
        shown = str(action.metavar or "").split("|")
        choices = [str(choice) for choice in action.choices or (shown if len(shown) > 1 else ())]
        metavar = "" if choices else str(action.metavar or action.dest.upper())
        option = Option(
            list(action.option_strings),
            " ".join((action.help or "").replace("%(default)s", str(action.default)).split()),
            takes,
            metavar if takes else "",
            choices,
            isinstance(action, argparse._AppendAction) or action.nargs in {"*", "+"},
        )
        (options if action.option_strings else positionals).append(option)
    below = [_read(parser, (*path, name), text) for name, parser, text in _subparsers(parser)] if path else []
    return Command(path, what, options, positionals, below)


def _bash_value(option: Option, add: str = "") -> str:
    if option.choices:
        value = f'COMPREPLY=($(compgen -W "{" ".join(option.choices)}" -- "$current"))'
    else:
        value = _BASH_VALUES[option.kind]
    return value.replace("COMPREPLY=", f"COMPREPLY{add}=") or ":"


def _zsh_function(command: Command) -> str:
    name = "_".join(["_proxsmtp_tp", *(word.replace("-", "_") for word in command.path)])
    specs = [spec for option in command.options for spec in _zsh_option(option)]
    specs += [_zsh_positional(option) for option in command.positionals]
    if command.commands:
        specs += ["'1: :->command'", "'*:: :->arguments'"]
    lines = "".join(f" \\\n        {spec}" for spec in specs)
    body = f"    _arguments -s{lines}\n"
    if command.commands:
        body = (
            f"    local curcontext=$curcontext state line\n    typeset -A opt_args\n{body}{_zsh_below(command, name)}"
        )
    return f"{name}() {{\n{body}}}\n"


def _zsh_below(command: Command, name: str) -> str:
    rows = "".join(f"            '{below.path[-1]}:{_zsh_text(below.what)}'\n" for below in command.commands)
    calls = "".join(
        f"        {below.path[-1]}) {name}_{below.path[-1].replace('-', '_')} ;;\n" for below in command.commands
    )
    return f"""\
    case $state in
    command)
        local -a commands=(
{rows}        )
        _describe command commands ;;
    arguments)
        case $words[1] in
{calls}        esac ;;
    esac
"""


def _zsh_option(option: Option) -> list[str]:
    value = f":{option.metavar or 'value'}:{_zsh_value(option)}" if option.takes_value else ""
    repeat = "*" if option.repeatable else ""
    return [f"'{repeat}{name}[{_zsh_text(option.what)}]{value}'" for name in option.names]


def _zsh_positional(option: Option) -> str:
    return f"'{'*' if option.repeatable else ''}:{option.metavar or 'value'}:{_zsh_value(option)}'"


def _zsh_value(option: Option) -> str:
    return f"({' '.join(option.choices)})" if option.choices else _ZSH_VALUES[option.kind]


def _zsh_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "'\\''").replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")


if __name__ == "__main__":
    sys.stdout.write({"bash": bash, "zsh": zsh}[sys.argv[1]]())
