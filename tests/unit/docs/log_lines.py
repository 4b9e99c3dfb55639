"""The log lines of the program, read from its source, and those that docs/troubleshooting.md explains.

`python -m tests.unit.docs.log_lines` prints the rows that the page lacks, and those that no code writes any more.

A log line is the text of `log.warning(..)`, of `d.log(..)` and `d.log_once(..)` in a session, of `effects.Log(..)`, of
`reporting.say(..)`, of `session.refuse(..)`, and of the errors in LOGGED_ERRORS, with `..` for each value. Who the line
is about (`client=..: `) and the trace id are left out. The text may be a name: then it is what the function assigns to
it, or what other functions of the module give for this parameter. It may be a call of a function of the module, too.
"""

from __future__ import annotations

import ast
import functools
import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).parents[3] / "proxsmtp_tp"
PAGE = Path(__file__).parents[3] / "docs/troubleshooting.md"
_LOGGERS = {"log", "_log"}
_METHODS = ("debug", "info", "warning", "error", "critical", "exception")
LOGGED_ERRORS = {
    "ListenError": "critical",
    "PidFileError": "critical",
    "PrivilegeError": "critical",
    "StartError": "critical",
    "ReloadError": "error",
    "NoDestinationError": "warning",
    "RefusedDestinationError": "warning",
}
"""Errors whose text becomes a log line where they are caught, and its level."""
_WHO = re.compile(r"^(?:\.\.: )?(?:client|server)=\.\.(?:, server=\.\.)?: |(?:, id=\.\.)$")
_ROW = re.compile(r"^\| ([a-z]+(?:, [a-z]+)*) \| `(.+?)` \| (.+) \|$", re.MULTILINE)
_VALUE = re.compile(r"%(?!%)[-+0# ]*\d*(?:\.\d+)?[sdrfgi]")
_LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "varies")


@dataclass(frozen=True, slots=True, order=True)
class LogLine:
    """One text, where it is written (`module.function`), and its level; `varies` if that is decided elsewhere."""

    text: str
    level: str
    place: str


@functools.cache
def in_code() -> tuple[LogLine, ...]:
    """Every log line of the program. A text without words is one that the call only passes on."""
    found = set[LogLine]()
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        returned, assigned, calls = _returned(tree), _assigned(tree.body), _calls(tree)
        for function in _functions(tree):
            own_nodes = list(_own_nodes(function))
            names = returned | assigned | _parameters(function, calls) | _assigned(own_nodes)
            for node in own_nodes:
                if isinstance(node, ast.Call) and (call := _log_call(node)) is not None:
                    level, arguments = call
                    texts = {_WHO.sub("", _values_left_out(text)) for text in _formatted(arguments, names)}
                    found |= {LogLine(text, level, f"{module}.{function.name}") for text in texts}
    return tuple(sorted(found))


def wanted() -> dict[str, str]:
    """By text: the level, or the levels if it is written in several places."""
    levels: dict[str, set[str]] = {}
    for line in in_code():
        if says_something(line.text):
            levels.setdefault(line.text, set()).add(line.level)
    return {text: ", ".join(sorted(found, key=_LEVELS.index)) for text, found in levels.items()}


def passed_on() -> set[str]:
    """The places that log a text which was made elsewhere."""
    return {line.place for line in in_code() if not says_something(line.text)}


def says_something(text: str) -> bool:
    """Whether a text has words of its own."""
    return re.search(r"[A-Za-z]{2}", text) is not None


def in_page() -> dict[str, str]:
    """By text: the level that the page says."""
    return {text: level for level, text, _ in _ROW.findall(PAGE.read_text("utf-8"))}


def missing() -> list[str]:
    """The rows to add to the page. A row may stand for several lines: `..` is any text."""
    page = in_page()
    return [
        f"| {level} | `{text}` | WHAT IT MEANS, AND WHAT TO DO |"
        for text, level in wanted().items()
        if not any(_stands_for(row, text) and level == of_row for row, of_row in page.items())
    ]


def unknown() -> list[str]:
    """What the page explains, and no code writes at this level."""
    code = wanted()
    return [
        f"| {level} | `{text}` |"
        for text, level in in_page().items()
        if not any(_stands_for(text, line) and level == of_line for line, of_line in code.items())
    ]


def _stands_for(row: str, line: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, row.split(".."))), line) is not None


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _own_nodes(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[ast.AST]:
    """Everything in a function, without functions inside it."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += ast.iter_child_nodes(node)


def _assigned(nodes: list[ast.AST] | list[ast.stmt]) -> dict[str, list[ast.expr]]:
    """What is assigned to each name."""
    found: dict[str, list[ast.expr]] = {}
    for node in nodes:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                pairs = [(target, node.value)]
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs = list(zip(target.elts, node.value.elts, strict=True))
                for name, value in pairs:
                    if isinstance(name, ast.Name):
                        found.setdefault(name.id, []).append(value)
    return found


def _calls(tree: ast.Module) -> dict[str, list[ast.Call]]:
    """The calls of a module, by the name of what they call."""
    found: dict[str, list[ast.Call]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            found.setdefault(_name_of(node), []).append(node)
    return found


def _parameters(
    function: ast.FunctionDef | ast.AsyncFunctionDef, calls: dict[str, list[ast.Call]]
) -> dict[str, list[ast.expr]]:
    """What this module gives for the parameters of a function."""
    names = [parameter.arg for parameter in function.args.args if parameter.arg != "self"]
    found: dict[str, list[ast.expr]] = {}
    for call in calls.get(function.name, []):
        for name, value in zip(names, call.args, strict=False):
            found.setdefault(name, []).append(value)
    return found


def _returned(tree: ast.Module) -> dict[str, list[ast.expr]]:
    """What functions of this module return, by `name()`."""
    found: dict[str, list[ast.expr]] = {}
    for function in _functions(tree):
        values = [node.value for node in _own_nodes(function) if isinstance(node, ast.Return) and node.value]
        if all(isinstance(value, ast.JoinedStr | ast.Constant) for value in values):
            found[f"{function.name}()"] = values
    return found


def _name_of(call: ast.Call) -> str:
    return ast.unparse(call.func).rpartition(".")[2]


def _log_call(call: ast.Call) -> tuple[str, list[ast.expr]] | None:
    """The level of a call that logs, its text, and the values of the text."""
    name, owner, arguments = _name_of(call), ast.unparse(call.func).rpartition(".")[0], call.args
    if owner in _LOGGERS and name in _METHODS:
        return {"exception": "error"}.get(name, name), arguments
    if name in LOGGED_ERRORS and arguments:
        return LOGGED_ERRORS[name], arguments[:1]
    if name == "refuse" and owner.endswith("session"):
        return "warning", arguments[1:]
    if (
        (owner in _LOGGERS and name == "log")
        or (owner == "effects" and name == "Log")
        or (name == "say" and owner.endswith("reporting"))
    ):
        return _level(arguments[0]), arguments[1:]
    if name in {"log", "log_once"} and owner in {"d", "self", "dialogue", "self.dialogue"}:
        text, *rest = arguments[name == "log_once" :]
        return _level(rest[0]) if rest else "info", [text]
    return None


def _formatted(arguments: list[ast.expr], names: dict[str, list[ast.expr]]) -> list[str]:
    """The texts of a log call: `%s` stands for what is known of its value."""
    text, *values = arguments
    found = []
    for form in _texts(text, names):
        pieces = _VALUE.split(form)
        known = [_texts(value, names) for value in values] + [[".."]] * len(pieces)
        choices = itertools.product(*known[: len(pieces) - 1])
        found += ["".join(itertools.chain(*zip(pieces, [*chosen, ""], strict=True))) for chosen in choices]
    return found


def _level(node: ast.expr) -> str:
    word = ast.unparse(node).rpartition(".")[2].lower()
    return word if word in _LEVELS else "varies"


def _texts(node: ast.expr, names: dict[str, list[ast.expr]]) -> list[str]:
    """The texts that an expression can have, with `..` for what is not known here."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            choices = [_texts(part.value if isinstance(part, ast.FormattedValue) else part, names) for part in parts]
            return ["".join(pieces) for pieces in itertools.product(*choices)]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return [a + b for a in _texts(left, names) for b in _texts(right, names)]
        case ast.BinOp(left=left, op=ast.Mod()):
            return _texts(left, names)
        case ast.IfExp(body=body, orelse=orelse):
            return [*_texts(body, names), *_texts(orelse, names)]
        case ast.Call(func=ast.Name(id="quoted"), args=[text, *_]):
            return _texts(text, names)
        case ast.Call(func=ast.Name(id=name)) if names.get(f"{name}()"):
            return _texts_of(names[f"{name}()"])
        case ast.Name(id=name) if name in names:
            return _texts_of(names[name])
        case _:
            return [".."]


def _texts_of(values: list[ast.expr]) -> list[str]:
    return list(dict.fromkeys(text for value in values for text in _texts(value, {}))) or [".."]


def _values_left_out(text: str) -> str:
    """`%s` is a value, `%%` a percent sign; several values in a row are one."""
    text = _VALUE.sub("..", text).replace("%%", "%")
    return re.sub(r"(?:\.\.){2,}", "..", " ".join(text.split())).replace("|", "/").replace("`", "'")


if __name__ == "__main__":
    print(*missing(), sep="\n")
    print(*(f"no code writes: {row}" for row in unknown()), sep="\n")
