"""Chains and rules of the iptables method as values, and as text in the syntax of iptables.

Source: iptables-extensions(8).
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

Parameters = tuple[tuple[str, tuple[str, ...]], ...]
"""Each option with its values; a first value "!" negates it."""
Extension = tuple[str, Parameters]
RETURN: Extension = ("RETURN", ())


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `base` holds src, dst, in-interface, out-interface and protocol; a "!" before a value negates it."""

    target: Extension
    base: tuple[tuple[str, str], ...] = ()
    matches: tuple[Extension, ...] = ()

    def __str__(self) -> str:
        """In the syntax of iptables."""
        flags = {"src": "-s", "dst": "-d", "in-interface": "-i", "out-interface": "-o", "protocol": "-p"}
        words = [word for name, value in self.base for word in _option(flags[name], value)]
        for name, parameters in self.matches:
            words += ["-m", name, *_words(parameters)]
        return " ".join(_quoted([*words, "-j", self.target[0], *_words(self.target[1])]))


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain of ours in a table, and the rule of a built-in chain that calls it."""

    table: str
    name: str
    caller: str
    call: Rule
    rules: tuple[Rule, ...]


def _option(flag: str, value: str) -> tuple[str, ...]:
    return ("!", flag, value[1:]) if value.startswith("!") else (flag, value)


def _quoted(words: list[str]) -> list[str]:
    """Quoted for a shell, where needed; a single exclamation mark needs no quotes."""
    return [word if word == "!" else shlex.quote(word) for word in words if word]


def _words(parameters: Parameters) -> list[str]:
    words = []
    for name, values in parameters:
        negated = values[:1] == ("!",)
        words += [*(["!"] if negated else []), f"--{name}", *(values[1:] if negated else values)]
    return words
